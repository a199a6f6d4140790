"""Dropout that does not wait for random numbers.

torch draws one 32-bit number an element on the CPU, serially, and that was 13 % of a MiniLM step. Here one
64-bit draw of numpy's SFC64 serves four elements (15 bits each: the share dropped is p to within 1/32768),
and the factors 0 and 1 / (1 - p) are made of the bits in place by whole-number operations. Each call's
generator is seeded by one draw from torch's, so a seed of torch decides everything, and recomputed
activations get the same mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 1 << 15


def dropout_factor(shape: torch.Size | tuple[int, ...], p: float, dtype: torch.dtype) -> Tensor:
    """What to multiply with: 0 for a share p of the elements, 1 / (1 - p) for the rest. On the CPU."""
    level = _level(p)
    n = int(np.prod(shape))
    seed = int(torch.empty((), dtype=torch.int64).random_())
    generator = np.random.Generator(np.random.SFC64(seed))
    draws = generator.integers(0, 1 << 64, (n + 3) // 4, dtype=np.uint64)
    bits = torch.from_numpy(draws.view(np.int16))[:n].view(shape)
    # 15 bits r: r - (levels - level) is negative for all but a share p; its sign over 16 bits is the mask
    bits.bitwise_and_(_LEVELS - 1).sub_(_LEVELS - level).bitwise_right_shift_(15)
    scale = _LEVELS / (_LEVELS - level)
    if dtype == torch.bfloat16:
        return bits.bitwise_and_(int(torch.tensor(scale, dtype=dtype).view(torch.int16))).view(dtype)
    return bits.to(dtype).mul_(-scale)


def _level(p: float) -> int:
    return round(p * _LEVELS)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        factor = dropout_factor(x.shape, p, x.dtype)
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0], None


def fast_dropout(x: Tensor, p: float) -> Tensor:
    """Set a share `p` of the elements to zero and scale the rest up to the same mean; any shape."""
    if _level(p) == 0:
        return x
    if x.device.type != "cpu" or _level(p) >= _LEVELS:
        return F.dropout(x, p)
    return _Drop.apply(x, p)  # type: ignore[no-any-return]


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
    """Give every dropout of a base the rate p, those kept as numbers too; adapters keep their own."""
    for place, module in trunk.named_modules():
        if "lora_" in place:
            continue
        if isinstance(module, nn.Dropout | Dropout):
            module.p = p
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and "drop" in name:
                setattr(module, name, p)
