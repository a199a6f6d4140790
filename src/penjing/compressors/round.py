"""Weight-only quantization by rounding each weight to the nearest value of its grid."""

from __future__ import annotations

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.holding import hold
from penjing.compressors.sensitive import looks
from penjing.models.grid import Grid


def round(
    *,
    bits: int = 8,
    group: int | None = None,
    symmetric: bool = True,
    embeddings: bool = True,
    keep: float | list[str] = 0.0,
) -> Compressor:
    """Hold the weights of linears in 2 to 8 bits, each rounded to its nearest value (RTN).

    Args:
        bits: of each weight, 2 to 8.
        group: so many weights of a row share a scale; null, all of a row do.
        symmetric: a grid spans as far above 0 as below; else from the lowest to the highest weight.
        embeddings: hold the word table in int8, too, unless the head says words with it.
        keep: the share of linears, those that hurt the answers most, or names such as `["*.output.dense"]`,
        that
            are held in 8 bits instead.
    """
    grid = Grid(bits, group, symmetric)

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        return hold(held, rehearsal, grid, keep, None, embeddings=embeddings)

    return Compressor("round", shrink, wants="texts" if looks(keep) else "nothing")
