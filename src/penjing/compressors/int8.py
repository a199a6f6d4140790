"""Linears in 8 bits, run in 8 bits: a quarter of the size, about twice the speed on a CPU with VNNI."""

from __future__ import annotations

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import bias_of, plain_linears
from penjing.compressors.sensitive import kept, looks, told
from penjing.compressors.tables import hold_tables
from penjing.models.int8 import Int8Linear
from penjing.models.slim import weight_of


def int8(*, embeddings: bool = True, keep: float | list[str] = 0.0) -> Compressor:
    """Holds the linears of the layers in int8, a scale a row; computes with inputs in int8, a scale a token.

    No calibration is needed, and no answer depends on who shares its batch: a token's scale is its own
    (as in LLM.int8, Dettmers et al. 2022, arXiv 2208.07339, vector-wise, without its outliers apart).
    Layers that are held in few bits already stay so.

    Args:
        embeddings: hold the word table in int8, too, a scale a row. It stays as it is where the head
            says words with it.
        keep: the share of linears, those that hurt the answers most, or names such as `["*.output.dense"]`,
        that
            stay in fp32.
    """

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        trunk, names = held.model.trunk, plain_linears(held)

        def held_so(name: str) -> Int8Linear:
            return Int8Linear.of(weight_of(trunk, name), bias_of(trunk, name))

        spared, hurts = kept(keep, held, rehearsal, names, held_so)
        for name in names:
            if name not in spared:
                trunk.set_submodule(name, held_so(name))
        facts = {"layers": len(names) - len(spared), "tables": hold_tables(held) if embeddings else 0}
        return Shrunk(held, {**facts, **told(hurts, spared)})

    return Compressor("int8", shrink, wants="texts" if looks(keep) else "nothing")
