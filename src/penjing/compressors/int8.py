"""Linears in 8 bits, run in 8 bits: a quarter of the size, about twice the speed on a CPU with VNNI."""

from __future__ import annotations

from torch import nn

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import bias_of, plain_linears, weight_of
from penjing.compressors.sensitive import kept, looks, told
from penjing.models.int8 import Int8Linear, Int8Table
from penjing.models.stored import kind_of
from penjing.models.word_head import words_of


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
        tables = _tables(held) if embeddings else []
        for name in tables:
            table = trunk.get_submodule(name)
            assert isinstance(table, nn.Embedding)
            trunk.set_submodule(name, Int8Table.of(table))
        facts = {"linears": len(names) - len(spared), "tables": len(tables)}
        return Shrunk(held, {**facts, **told(hurts, spared)})

    return Compressor("int8", shrink, wants="texts" if looks(keep) else "nothing")


def _tables(held: Held) -> list[str]:
    """Names of the word table, where nothing else uses its weight."""
    trunk = held.model.trunk
    if held.base.way.sight is not None or words_of(held.model.head) is not None:
        return []
    own = trunk.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(own, nn.Embedding) or kind_of(own) is not None:
        return []
    users = [n for n, p in held.model.named_parameters(remove_duplicate=False) if p is own.weight]
    return [n for n, m in trunk.named_modules() if m is own] if len(users) == 1 else []
