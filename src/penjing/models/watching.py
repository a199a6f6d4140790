"""What layers of a trunk gave in its last pass: their states, and the queries, keys and values of attention.

Legend: T tokens, D width, S sequences, L longest, H heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.attention import standing
from penjing.models.layers import bare, layers_of
from penjing.models.packing import Way


class Watched:
    """Watches layers (from 1) of a trunk. `always`: passes without gradients count, too.

    Raises:
        NotSupported: layers that several places share, or attention that cannot be looked into.
    """

    def __init__(
        self,
        trunk: nn.Module,
        way: Way,
        *,
        states: Sequence[int] = (),
        attention: Sequence[int] = (),
        always: bool = False,
    ) -> None:
        stack, name = layers_of(trunk), type(bare(trunk)).__name__
        if len(stack) != int(bare(trunk).config.num_hidden_layers):
            raise NotSupported(
                f"Layers of their own were wanted to look into; {name} shares {len(stack)} among all. Use "
                "its outputs alone."
            )
        if attention and not way.packed:
            raise NotSupported(
                f"Attention that runs packed was wanted to look into; {name} runs padded ({way.reason}). Use "
                "its hidden states."
            )
        self._always = always
        self._states: dict[int, Tensor] = {}
        self._attention: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for number in states:
            stack[number - 1].register_forward_hook(self._noting(number))
        for number in attention:
            for module in stack[number - 1].modules():
                module.told = self._hearing(number)

    def _noting(self, number: int) -> Any:
        def note(module: nn.Module, args: Any, out: Any) -> None:
            if self._always or torch.is_grad_enabled():
                self._states[number] = out[0] if isinstance(out, tuple) else out

        return note

    def _hearing(self, number: int) -> Any:
        def hear(q: Tensor, k: Tensor, v: Tensor) -> None:
            if self._always or torch.is_grad_enabled():
                self._attention[number] = (q, k, v)

        return hear

    def states(self, number: int, lengths: Tensor) -> Tensor:
        """(T, D) fp32 states above a layer."""
        found = self._states[number]
        if found.shape[0] == 1 and found.shape[1] == int(lengths.sum()):
            return found[0].float()
        return found[standing(tuple(lengths.tolist())).to(found.device)].float()

    def attention(self, number: int) -> dict[str, Tensor]:
        """Queries `q`, keys `k` and values `v` of a layer, as attention takes them: (T, H * d) fp32 each."""
        q, k, v = self._attention[number]
        if k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        return {
            name: x[0].transpose(0, 1).flatten(1).float() for name, x in zip("qkv", (q, k, v), strict=True)
        }

    def heads(self, number: int) -> int:
        """Heads of a layer's attention."""
        return int(self._attention[number][0].shape[1])

    def forget(self) -> None:
        """Let go of the last pass, and of its graph."""
        self._states.clear()
        self._attention.clear()
