"""Bottleneck adapters: a small network whose output is added inside a frozen layer.

They hang on linear layers as forward hooks and child modules, so that the base keeps its names and its code.

Legend: T tokens, D width of the base, m size of the bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": F.tanh,
}


class Bottleneck(nn.Module):
    """scale (W_up f(W_down x + b_down) + b_up); `up` begins at zero, and so does what this gives."""

    def __init__(self, width: int, size: int, *, activation: str, scale: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.activation, self.scale = activation, scale
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self._seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        low: Tensor = ACTIVATIONS[self.activation](self.down(x))
        return self.scale * self.up(low)  # type: ignore[no-any-return]

    def after(self, linear: nn.Module) -> None:
        """Read what `linear` gives, and add to it."""
        linear.bottleneck = self
        linear.register_forward_hook(self._add)

    def beside(self, first: nn.Module, last: nn.Module) -> None:
        """Read what `first` reads, and add to what `last` gives."""
        last.bottleneck = self
        first.register_forward_pre_hook(self._see)
        last.register_forward_hook(self._add_seen)

    def _add(self, linear: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out + self.forward(out)

    def _see(self, linear: nn.Module, args: Any) -> None:
        self._seen = args[0]

    def _add_seen(self, linear: nn.Module, args: Any, out: Tensor) -> Tensor:
        seen, self._seen = self._seen, None
        assert seen is not None, "a feed-forward network ended before it began"
        return out + self.forward(seen)
