"""Which weights of a linear layer go: patterns of zeros, and the second-order update of those that stay.

Legend: O outputs, I inputs of a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from penjing.errors import NotSupported, SpecError


@dataclass(frozen=True)
class Pattern:
    """A share of the weights, or `n` of every `m` neighbours in a row, that become zero.

    over: among which weights the share is counted: a `row` (one output), or the whole `layer`.
    """

    share: float
    m: int | None = None  # neighbours
    over: Literal["row", "layer"] = "row"

    def __str__(self) -> str:
        return f"{self.share:.0%} of each {self.over}" if self.m is None else f"{self.m - self.n}:{self.m}"

    @property
    def n(self) -> int:
        """Zeros among `m` neighbours."""
        assert self.m is not None
        return round(self.share * self.m)


def pattern_of(
    name: str, share: float, pattern: str | None, over: Literal["row", "layer"] = "row"
) -> Pattern:
    """What a compressor's settings `share` and `pattern` ask for.

    Raises:
        SpecError: a share out of range, or a pattern that is none.
    """
    if pattern is None:
        if not 0 <= share < 1:
            raise SpecError(
                f"`{name}.share` is the share of weights that become zero, from 0 to below 1; it is {share}. "
                f"0.5 takes half."
            )
        return Pattern(share, over=over)
    left, _, right = pattern.partition(":")
    if not (left.isdecimal() and right.isdecimal() and 0 < int(left) < int(right) <= 64):
        raise SpecError(
            f"`{name}.pattern` is n:m, n weights left of every m in a row; it is `{pattern}`. `2:4` is what "
            "CUDA cards multiply faster."
        )
    return Pattern(1 - int(left) / int(right), m=int(right))


def mask_of(scores_OI: Tensor, pattern: Pattern) -> Tensor:
    """(O, I) True where a weight stays: as many of the least scores go as the pattern says, to the weight.

    Raises:
        NotSupported: rows that do not divide into stretches of the pattern.
    """
    n_out, n_in = scores_OI.shape
    if pattern.m is not None:
        if n_in % pattern.m:
            raise NotSupported(
                f"Rows that divide into stretches of {pattern.m} were wanted for the pattern {pattern}; a "
                f"layer has {n_in} inputs. Give `share` in its place."
            )
        groups = scores_OI.reshape(-1, pattern.m)
        return _without_least(groups, pattern.n).view(n_out, n_in)
    if pattern.over == "row":
        return _without_least(scores_OI, int(pattern.share * n_in + 1e-9))
    return _without_least(scores_OI.reshape(1, -1), int(pattern.share * scores_OI.numel() + 1e-9)).view(
        n_out, n_in
    )


def _without_least(scores: Tensor, n: int) -> Tensor:
    """True but for the `n` least of each row; of equal ones the first go."""
    if not n:
        return torch.ones_like(scores, dtype=torch.bool)
    least = scores.kthvalue(n, dim=1, keepdim=True).values  # a sort of all takes ten times as long
    below, equal = scores < least, scores == least
    due = n - below.sum(1, keepdim=True)
    return ~(below | (equal & (equal.cumsum(1) <= due)))


def magnitudes(weight_OI: Tensor) -> Tensor:
    """|W|."""
    return weight_OI.abs()


def wanda_scores(weight_OI: Tensor, outer_II: Tensor) -> Tensor:
    """|W_ij| ||X_j||_2, X_j being all that enters input j (Sun et al. 2023, arXiv 2306.11695, eq. 1)."""
    return weight_OI.abs().double() * outer_II.diagonal().clamp(min=0).sqrt()


def sparse_gpt(weight_OI: Tensor, upper_II: Tensor, pattern: Pattern, *, block: int = 128) -> Tensor:
    """(O, I) the weight with the pattern's zeros, each made up for by the columns still to come (SparseGPT,
    Frantar & Alistarh 2023, arXiv 2301.00774, algorithm 1).

    `upper` (I, I): the Cholesky factor U, U' U the inverse of X X'. In a block of columns those weights go
    whose loss w^2 / U_qq^2 is least, as many of the block as of the whole (of `m` neighbours with a pattern);
    column q's error w / U_qq is taken off the later columns in the proportion of U_q.
    """
    weight = weight_OI.double().clone()
    n_out, n_in = weight.shape
    block = block if pattern.m is None else max(pattern.m, block // pattern.m * pattern.m)
    gone = 0
    for first in range(0, n_in, block):
        last = min(first + block, n_in)
        inside, factor = weight[:, first:last], upper_II[first:last, first:last]
        diagonal = factor.diagonal()
        keep = torch.ones_like(inside, dtype=torch.bool)
        if pattern.m is None:
            due = int(pattern.share * n_out * last + 1e-9) - gone
            gone += due
            keep = _without_least((inside / diagonal).square().reshape(1, -1), due).view(n_out, -1)
        errors = torch.empty_like(inside)
        for i in range(last - first):
            if pattern.m is not None and i % pattern.m == 0:
                there = slice(i, i + pattern.m)
                keep[:, there] = mask_of((inside[:, there] / diagonal[there]).square(), pattern)
            errors[:, i] = torch.where(keep[:, i], 0.0, inside[:, i]) / diagonal[i]
            inside[:, i:] -= errors[:, i, None] * factor[i, None, i:]
        inside[~keep] = 0
        weight[:, last:] -= errors @ upper_II[first:last, last:]
    return weight
