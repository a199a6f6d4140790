"""Contrastive and ranking losses over the sentences of one step.

Legend: S sentences or rows, N texts that anchors are compared with, D width.
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
    if len(labels_S) == 1:  # no other to be compared with: the softmax below would be over nothing
        return 0 * similar[:, 0]
    itself = torch.eye(len(labels_S), dtype=torch.bool, device=similar.device)
    alike = (labels_S[:, None] == labels_S[None, :]) & ~itself
    unlikely = similar.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True) - similar
    return (unlikely * alike).sum(1) / alike.sum(1).clamp(min=1)


def info_nce(
    anchors_SD: Tensor, others_ND: Tensor, right_SN: Tensor, same_SN: Tensor, *, temperature: float
) -> Tensor:
    """(S,) losses: -log softmax of each anchor's own positive among all the step's texts (van den Oord et al.
    2018, arXiv 1807.03748; Henderson et al. 2017, arXiv 1705.00652).

    All vectors are of length one. `right` marks each anchor's positive, one a row; `same` further texts that
    are as right (doubles of it, other positives of the same anchor, the anchor itself), which are no
    negatives and are left out.
    """
    similar = (anchors_SD @ others_ND.T / temperature).masked_fill(same_SN & ~right_SN, float("-inf"))
    own = similar.masked_fill(~right_SN, 0).sum(1)
    return similar.logsumexp(1) - own


def cosent(cosines_S: Tensor, scores_S: Tensor, *, scale: float = 20.0) -> Tensor:
    """(): log(1 + sum of exp(scale (cos_j - cos_i)) over all pairs of rows of which i has the higher score):
    rows are to stand in the order of their scores (CoSENT, Su 2022, kexue.fm/archives/8847)."""
    gaps = scale * (cosines_S[None, :] - cosines_S[:, None])  # (i, j)
    gaps = gaps.masked_fill(scores_S[:, None] <= scores_S[None, :], float("-inf"))
    return torch.cat([gaps.new_zeros(1), gaps.flatten()]).logsumexp(0)
