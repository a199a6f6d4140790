"""Weight-only quantization by rounding each weight to the nearest value of its grid."""

from __future__ import annotations

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.holding import hold
from penjing.models.grid import Grid


def round(
    *, bits: int = 8, group: int | None = None, symmetric: bool = True, keep: float | list[str] = 0.0
) -> Compressor:
    """Hold the weights of linear layers in 2 to 8 bits, each rounded to the nearest value (RTN).

    `group` weights of a row share a scale; null: all of a row. Asymmetric grids span from the lowest to the
    highest weight, symmetric ones as far below 0 as above. `keep`: the share of layers, those that hurt the
    answers most, or names of layers, that are held in 8 bits whatever `bits` says.
    """
    grid = Grid(bits, group, symmetric)

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        return hold(held, rehearsal, grid, keep, None)

    scans = isinstance(keep, float | int) and keep > 0
    return Compressor("round", shrink, wants="texts" if scans else "nothing")
