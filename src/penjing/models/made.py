"""What is made of tensors once, and anew when they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class Made(Generic[T]):
    """Keeps what was made of tensors for as long as these are the same ones, unchanged (where torch counts a
    tensor's versions: outside inference mode). A copy begins with nothing.
    """

    def __init__(self) -> None:
        self._kept: tuple[Sequence[Tensor], list[int], T] | None = None

    def of(self, tensors: Sequence[Tensor], make: Callable[[], T]) -> T:
        """What `make` makes of them."""
        versions = [0 if t.is_inference() else t._version for t in tensors]
        kept = self._kept
        if kept is None or kept[1] != versions or not all(map(_same, kept[0], tensors)):
            kept = self._kept = tensors, versions, make()
        return kept[2]

    def __deepcopy__(self, memo: dict[int, Any]) -> Made[T]:
        return Made()


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other
