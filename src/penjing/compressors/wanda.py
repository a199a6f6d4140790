"""Weights of least magnitude times input become zero (Sun et al. 2023, arXiv 2306.11695)."""

from __future__ import annotations

from torch import Tensor

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import Moments
from penjing.compressors.thinning import thin
from penjing.models.sparsity import mask_of, pattern_of, wanda_scores


def wanda(*, share: float = 0.5, pattern: str | None = None, rows: int = 256) -> Compressor:
    """Set those weights to zero that are least when multiplied by the norm of what enters them, in each row.

    share: of the weights. pattern: `2:4` leaves two of every four neighbours in a row, in place of a share.
    rows: looked at.
    """
    asked = pattern_of("wanda", share, pattern)

    def solve(weight_OI: Tensor, seen: Moments) -> Tensor:
        return weight_OI * mask_of(wanda_scores(weight_OI, seen.outer), asked)

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        return thin(held, rehearsal, asked, solve, rows)

    return Compressor("wanda", shrink, wants="texts", rows=rows)
