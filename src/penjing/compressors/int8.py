"""Linears in 8 bits, run in 8 bits: a quarter of the size, about twice the speed on a CPU with VNNI."""

from __future__ import annotations

from fnmatch import fnmatch

from torch import nn

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import bias_of, plain_linears, weight_of
from penjing.errors import SpecError
from penjing.models.int8 import Int8Linear, Int8Table
from penjing.models.stored import kind_of
from penjing.models.word_head import words_of


def int8(*, embeddings: bool = True, keep: list[str] | None = None) -> Compressor:
    """Holds the linears of the layers in int8, a scale a row; computes with inputs in int8, a scale a token.

    No calibration is needed, and no answer depends on who shares its batch: a token's scale is its own
    (as in LLM.int8, Dettmers et al. 2022, arXiv 2208.07339, vector-wise, without its outliers apart).
    Layers that are held in few bits already stay so.

    Args:
        embeddings: hold the word table in int8, too, a scale a row. It stays as it is where the head
            says words with it.
        keep: names of linears that stay in fp32, with `*` for anything: `["*.output.dense"]`.
    """

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        trunk, names = held.model.trunk, plain_linears(held)
        kept = [name for name in names if any(fnmatch(name, pattern) for pattern in keep or ())]
        idle = [pattern for pattern in keep or () if not any(fnmatch(name, pattern) for name in names)]
        if idle:
            raise SpecError(
                f"`int8.keep` names `{idle[0]}`; no linear of {type(trunk).__name__} is called so. "
                f"They are called such as `{names[0]}` or `*.{names[-1].rpartition('.')[2]}`."
            )
        for name in names:
            if name not in kept:
                layer = Int8Linear.of(weight_of(trunk, name), bias_of(trunk, name))
                trunk.set_submodule(name, layer)
        tables = _tables(held) if embeddings else []
        for name in tables:
            table = trunk.get_submodule(name)
            assert isinstance(table, nn.Embedding)
            trunk.set_submodule(name, Int8Table.of(table))
        facts = {"linears": len(names) - len(kept), "kept": len(kept), "tables": len(tables)}
        return Shrunk(held, facts)

    return Compressor("int8", shrink)


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
