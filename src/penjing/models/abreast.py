"""Layers in whole numbers that read the same states, as queries, keys and values do: one product in the place
of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from penjing.models.int8 import watched
from penjing.models.made import Made

Multiply = Callable[[Tensor], Tensor]


class Abreast:
    """The layers of one place; what they are joined to is made when it is first asked."""

    def __init__(self) -> None:
        self._made: Made[Multiply | None] = Made()

    def of(self, layers: Sequence[Any], x: Tensor) -> list[Tensor]:
        """What each makes of states (T, D): (T, O) in x's type, views of one table where they can be joined
        and nobody watches one, to the bit as alone.
        """
        seen = [t for one in layers for t in one._buffers.values() if t is not None]
        multiply = self._made.of(seen, lambda: joined(layers))
        if multiply is None or any(map(watched, layers)):
            return [layer(x) for layer in layers]
        return [*multiply(x).split([one.out_features for one in layers], 1)]


def joined(layers: Sequence[Any]) -> Multiply | None:
    """One product in the place of these; None where one of them is of a kind that cannot."""
    beside = getattr(layers[0], "beside", None)
    can = beside is not None and all(map(beside, layers))
    return layers[0].joined(layers) if can else None
