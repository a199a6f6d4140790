"""Feed-forward units that matter least are taken out (Molchanov et al. 2017, arXiv 1611.06440, eq. 7)."""

from __future__ import annotations

from typing import Literal

from penjing.compressor import Compressor
from penjing.compressors.narrowing import Asked, shrink


def prune_ffn(
    *,
    share: float = 0.5,
    by: Literal["taylor", "activation"] = "taylor",
    even: bool = True,
    repair: bool = True,
    rows: int = 1024,
) -> Compressor:
    """Take the units of the feed-forward networks out that matter least; two thirds of a layer lie there.

    With `even` the checkpoint stays a plain one of its family, with a smaller `intermediate_size`.

    share: of the units that go. by: `taylor`, how much the loss hangs on a unit by first order, from labelled
    rows; `activation`, how much it adds to the states, from texts. even: as many in every layer, else the
    least of all layers. repair: what is left says what it can of what goes, by least squares on the rows.
    rows: looked at.
    """
    asked = Asked("prune_ffn", False, share, by, even, repair, rows, multiple=8)
    wants: Literal["labels", "texts"] = "labels" if by == "taylor" else "texts"
    return Compressor("prune_ffn", lambda held, seen: shrink(held, seen, asked), wants=wants, rows=rows)
