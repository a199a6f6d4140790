"""Static int8: inputs of linear layers in whole numbers on a grid that was measured beforehand."""

from __future__ import annotations

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.eight_bits import calibrated


def static_int8(
    *, clip: bool = True, embeddings: bool = True, keep: float | list[str] = 0.0, rows: int = 256
) -> Compressor:
    """Hold linears in int8, a scale a row, and compute with inputs in int8 on a grid found on the rehearsal's
    texts, one scale and zero for all tokens.

    Args:
        clip: a grid spans the share of what was seen that moves inputs least; else all of it.
        embeddings: hold the word table in int8, too, unless the head says words with it.
        keep: the share of linears, those that hurt the answers most, or names such as `["*.output.dense"]`,
        that
            stay in fp32.
        rows: of the train rows, so many are looked at.
    """

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        return calibrated(held, rehearsal, static=True, clip=clip, embeddings=embeddings, keep=keep)

    return Compressor("static_int8", shrink, wants="texts", rows=rows)
