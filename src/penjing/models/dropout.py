"""Dropout that does not wait for random numbers.

torch draws one 32-bit number an element on the CPU, serially; that was 13 % of a MiniLM step. Here one 64-bit draw
serves four elements: 16 bits each, so the share dropped is p to within 1/65536, and kept values are scaled by the share
really kept. The numbers come from torch's global generator, so a seed decides everything.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 1 << 16


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, level: int) -> Tensor:
        n = x.numel()
        draws = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        factor = draws.view(torch.int16)[:n].view(x.shape).ge(level - (1 << 15)).to(x.dtype)
        factor.mul_(_LEVELS / (_LEVELS - level))
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0], None


def fast_dropout(x: Tensor, p: float) -> Tensor:
    """Set a share `p` of the elements to zero and scale the rest up to the same mean; any shape."""
    level = round(p * _LEVELS)
    if level == 0:
        return x
    if x.device.type != "cpu" or level >= _LEVELS:
        return F.dropout(x, p)
    return _Drop.apply(x, level)  # type: ignore[no-any-return]


class Dropout(nn.Module):
    """`nn.Dropout` by `fast_dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return fast_dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


def hasten(trunk: nn.Module) -> None:
    """Replace every plain `nn.Dropout` below `trunk`, in place."""
    for parent in list(trunk.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))


def set_dropout(trunk: nn.Module, p: float) -> None:
    """Give every dropout below `trunk` the rate p, those that attention reads included."""
    for module in trunk.modules():
        if isinstance(module, nn.Dropout | Dropout):
            module.p = p
        for name in ("attention_dropout", "attn_dropout", "dropout_prob", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, p)
