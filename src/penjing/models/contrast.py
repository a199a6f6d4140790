"""Contrastive losses over the sentences of one step.

Legend: S sentences, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def supervised_contrast(embedded_SD: Tensor, labels_S: Tensor, *, temperature: float) -> Tensor:
    """(S,) losses: for each sentence the mean over the others of its class of -log softmax of their
    similarity among all others (Khosla et al. 2020, arXiv 2004.11362, L_out); 0 where it has no other of its
    class.

    `embedded_SD` are of length one. Every pair of the step is compared once, without a list of pairs.
    """
    similar = embedded_SD @ embedded_SD.T / temperature
    itself = torch.eye(len(labels_S), dtype=torch.bool, device=similar.device)
    alike = (labels_S[:, None] == labels_S[None, :]) & ~itself
    unlikely = similar.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True) - similar
    return (unlikely * alike).sum(1) / alike.sum(1).clamp(min=1)
