"""The least weights become zero (Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

from typing import Literal

from penjing.compressor import Compressor
from penjing.compressors.thinning import thin
from penjing.models.sparsity import pattern_of


def magnitude(
    *, share: float = 0.5, pattern: str | None = None, over: Literal["row", "layer"] = "layer"
) -> Compressor:
    """Set the weights of least magnitude to zero, in the linear layers of the stacks; no text is looked at.

    share: of the weights. pattern: `2:4` leaves two of every four neighbours in a row, in place of a share.
    over: the share is of each `row` (output), or of each whole `layer`.
    """
    asked = pattern_of("magnitude", share, pattern, over)
    return Compressor("magnitude", lambda held, seen: thin(held, seen, asked, None, None))
