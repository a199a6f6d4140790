"""The table of word vectors in int8, beside linears in few bits."""

from __future__ import annotations

from torch import nn

from penjing.compressor import Held
from penjing.models.int8 import Int8Table
from penjing.models.stored import kind_of
from penjing.models.word_head import words_of


def hold_tables(held: Held) -> int:
    """Hold the word table in int8, a scale a row, in place; how many tables are. One that something else uses
    too, such as a head that says words, stays.
    """
    trunk = held.model.trunk
    if held.base.way.sight is not None or words_of(held.model.head) is not None:
        return 0
    own = trunk.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(own, nn.Embedding) or kind_of(own) is not None:
        return 0
    users = [n for n, p in held.model.named_parameters(remove_duplicate=False) if p is own.weight]
    names = [n for n, m in trunk.named_modules() if m is own] if len(users) == 1 else []
    for name in names:
        trunk.set_submodule(name, Int8Table.of(own))
    return len(names)
