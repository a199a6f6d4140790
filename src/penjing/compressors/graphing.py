"""What `openvino` and `onnx` share: which models a graph of states holds, and such a graph in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from penjing.compressor import Held
from penjing.errors import NotSupported
from penjing.models import compiled
from penjing.models.compiled import Compiled
from penjing.models.encdec import is_whole
from penjing.models.model import Model
from penjing.models.stored import kind_of
from penjing.models.word_head import words_of


def held_as(held: Held, trunk: Compiled) -> Held:
    """The same with a graph for its trunk."""
    base = replace(held.base, trunk=trunk, way=compiled.way())
    model = Model(trunk.requires_grad_(False), held.model.head, base.way).prepare("fp32")
    return replace(held, base=base, model=model.eval())


def refuse(held: Held) -> None:
    """Raises NotSupported for what a graph of states does not hold."""
    trunk: Any = held.model.trunk
    kinds = sorted({kind for module in trunk.modules() if (kind := kind_of(module)) is not None})
    what = (
        f"its layers are held as {', '.join(kinds)} already"
        if kinds
        else "it says words, each after the last"
        if words_of(held.model.head) is not None or is_whole(trunk)
        else "it reads images"
        if held.base.way.sight is not None
        else "it is one already"
        if isinstance(trunk, Compiled)
        else ""
    )
    if what:
        raise NotSupported(
            f"A trunk of plain layers that reads texts was wanted for a graph; of `{held.base.name}` {what}. "
            "Take `int8`, or let the graph come in the place of steps that hold weights in few bits."
        )
