"""Losses of preferences, from how likely both replies are (sums of log-probabilities over their tokens).

DPO: Rafailov et al. 2023, eq. 7. IPO: Azar et al. 2023, eq. 17. ORPO: Hong et al. 2024, eq. 6 and 7.
Legend: S pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def dpo(policy_S2: Tensor, reference_S2: Tensor, beta: float) -> Tensor:
    """(S,) -log sigmoid(beta * how much more than the reference the policy prefers the better reply)."""
    return -F.logsigmoid(beta * margins(policy_S2, reference_S2))


def ipo(policy_S2: Tensor, reference_S2: Tensor, lengths_S2: Tensor, beta: float) -> Tensor:
    """(S,) squared distance of that margin, a token of each reply, from 1 / (2 beta), where it is to come to
    rest. The mean over tokens is how the authors' own results were made, and what TRL does."""
    return (margins(policy_S2 / lengths_S2, reference_S2 / lengths_S2) - 1 / (2 * beta)).square()


def orpo(policy_S2: Tensor, lengths_S2: Tensor, beta: float) -> Tensor:
    """(S,) -log likelihood a token of the better reply - beta * log sigmoid(log odds ratio); no reference."""
    mean = policy_S2 / lengths_S2
    odds = mean - _log_of_rest(mean)
    return -mean[:, 0] - beta * F.logsigmoid(odds[:, 0] - odds[:, 1])


def margins(policy_S2: Tensor, reference_S2: Tensor) -> Tensor:
    """(S,) log of how much more the policy prefers the better reply than the reference does."""
    gain = policy_S2 - reference_S2
    return gain[:, 0] - gain[:, 1]


def _log_of_rest(log_p: Tensor) -> Tensor:
    """log(1 - p), exact near p = 0 and p = 1 (Maechler 2012)."""
    log_p = log_p.clamp(max=-1e-7)
    small = log_p < -0.6931
    return torch.where(small, torch.log1p(-log_p.exp()), torch.log(-torch.expm1(log_p)))
