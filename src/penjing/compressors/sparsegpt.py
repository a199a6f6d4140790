"""Weights become zero one column after another, the others make up for them (Frantar & Alistarh 2023)."""

from __future__ import annotations

from torch import Tensor

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import Moments
from penjing.compressors.gptq import inverse_factor
from penjing.compressors.thinning import thin
from penjing.errors import SpecError
from penjing.models.sparsity import pattern_of, sparse_gpt


def sparsegpt(
    *,
    share: float = 0.5,
    pattern: str | None = None,
    damping: float = 0.01,
    block: int = 128,
    rows: int = 256,
) -> Compressor:
    """Set weights to zero where that costs a layer's output least, and change the others to make up for it.

    share: of the weights. pattern: `2:4` leaves two of every four neighbours in a row, in place of a share.
    damping: share of the mean of X X' diagonal that is added to it. block: columns that are chosen among at
    once. rows: looked at.
    """
    asked = pattern_of("sparsegpt", share, pattern)
    if not damping > 0 or block < 1:
        raise SpecError(
            f"`sparsegpt.damping` must be above 0 and `block` 1 or more; they are {damping} and {block}. The "
            "paper takes 0.01 and 128."
        )

    def solve(weight_OI: Tensor, seen: Moments) -> Tensor:
        return sparse_gpt(weight_OI, inverse_factor(seen.outer, damping), asked, block=block)

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        return thin(held, rehearsal, asked, solve, rows)

    return Compressor("sparsegpt", shrink, wants="texts", rows=rows)
