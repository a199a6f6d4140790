"""Linear layers that train while they compute as they will once they are held in few bits.

The forward pass is the very one of `int8.Int8Linear`, or of `weight_only.WeightOnly`, made anew of the
present weight; the backward pass takes rounding for the identity (straight-through, Bengio et al. 2013,
arXiv 1308.3432). Scales follow the largest weight of a row and the largest number of a token, so nothing is
cut and no gradient lost.

Legend: T tokens, I inputs, O outputs, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.grid import Grid, fitted, nearest, values
from penjing.models.int8 import Int8Linear, codes_of, rounded


class _Straight(torch.autograd.Function):
    """Another value in a tensor's place, whose gradient passes through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Int8Product(torch.autograd.Function):
    """`Int8Linear` of a weight (O, I): (…, I) -> (…, O). Keeps codes for the backward pass, a quarter of what
    a linear layer keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer = Int8Linear.of(weight, bias)
        codes, scale = codes_of(x)
        ctx.save_for_backward(codes, scale, layer.weight, layer.scale)
        return layer(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        codes_TI, scale_T1, codes_IO, scale_O = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = ((flat * scale_O) @ codes_IO.t().float()).view(*grad.shape[:-1], -1)
        if ctx.needs_input_grad[1]:
            to_weight = (flat * scale_T1).t() @ codes_TI.float()
        if ctx.needs_input_grad[2]:
            to_bias = flat.sum(0)
        return to_x, to_weight, to_bias


def on_grid(weight_OI: Tensor, grid: Grid) -> Tensor:
    """The weight at its nearest values, as `weight_only.rounded` holds it; gradients pass through."""
    marks = fitted(weight_OI, grid)
    found: Tensor = _Straight.apply(weight_OI, values(nearest(weight_OI, marks, grid), marks, grid))
    return found


def vectors_on_grid(vectors: Tensor) -> Tensor:
    """Vectors (…, D) of a table as `int8.Int8Table` holds their rows; gradients pass through."""
    codes, scale = rounded(vectors.detach().reshape(-1, vectors.shape[-1]))
    found: Tensor = _Straight.apply(vectors, (codes.float() * scale[:, None]).view_as(vectors))
    return found


class Rounded:
    """A linear layer's forward (GPT-2's Conv1D, too) on a grid, or in int8 where that is None, while
    `active()`; its own otherwise."""

    def __init__(self, layer: Any, grid: Grid | None, active: Callable[[], bool]) -> None:
        self.layer, self.whole, self.grid, self.active = layer, layer.forward, grid, active

    def __call__(self, x: Tensor) -> Tensor:
        if not self.active():
            return self.whole(x)  # type: ignore[no-any-return]
        layer = self.layer
        weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()
        if self.grid is None:
            return _Int8Product.apply(x, weight, layer.bias)  # type: ignore[no-any-return]
        return F.linear(x, on_grid(weight, self.grid), layer.bias)
