"""oneDNN's product of whole numbers of 8 bits, with what follows it in the same pass: scales, bias, GELU, the
next layer's grid or what is added.

Inputs are unsigned: for signed ones it falls to a plain loop, 6,000 ms where 0.9 are needed (300 tokens of
384, 1,536 outputs). Sums are exact, and each output is finished by itself, so tokens do not change each
other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOWEST = 128  # of signed codes; what unsigned ones are larger by


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer as oneDNN wants it: `weight` in a layout of its own, `scale` and `zeros` (O,), and a bias. Its
    inputs' grid: `step`, the signed code `zero` of 0, and where factors divide first, `per` (I,), one over
    step times factor; `middle` is what is added, so that cutting rounds.
    """

    weight: Tensor
    scale: Tensor
    zeros: Tensor
    bias: Tensor | None
    step: float
    zero: int
    per: Tensor | None
    middle: Tensor


def packed(
    weight_IO: Tensor, scale: Tensor, bias: Tensor | None, *, step: float, zero: int, factors: Tensor | None
) -> Packed:
    """Of codes (I, O) int8."""
    weight = torch.ops.onednn.qlinear_prepack(weight_IO.t().contiguous(), None)
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    per = None if factors is None else (step * factors).reciprocal_()
    return Packed(weight, scale, zeros, bias, step, zero, per, torch.tensor(zero + LOWEST + 0.5))


def codes(x: Tensor, layer: Packed) -> Tensor:
    """(T, I) fp32 -> (T, I) uint8, on the layer's grid."""
    if layer.per is None:
        found = torch.add(layer.middle, x, alpha=1 / layer.step)
    else:
        found = torch.addcmul(layer.middle, x, layer.per)
    return found.clamp_(0, 255).to(torch.uint8)


def linear(codes: Tensor, layer: Packed) -> Tensor:
    """x W' + b of codes (T, I): (T, O) fp32."""
    return _ops()(*_given(codes, layer), layer.bias, 1.0, 0, torch.float32, "none", [], "")  # type: ignore[no-any-return]


def linear_plus(codes: Tensor, layer: Packed, rest: Tensor) -> Tensor:
    """x W' + b + rest (T, O) fp32."""
    last = 1.0, 0, torch.float32, 1.0, 0, "add", 1.0, "none", list[float](), ""
    return _ops().binary(*_given(codes, layer), rest, layer.bias, *last)  # type: ignore[no-any-return]


def linear_gelu(codes: Tensor, layer: Packed, onto: Packed) -> Tensor:
    """GELU(x W' + b) as codes (T, O) uint8 for the layer that reads it."""
    last = onto.step, onto.zero + LOWEST, torch.uint8, "gelu", list[float](), "none"
    return _ops()(*_given(codes, layer), layer.bias, *last)  # type: ignore[no-any-return]


def _given(codes: Tensor, layer: Packed) -> tuple[Any, ...]:
    return codes, layer.step, layer.zero + LOWEST, layer.weight, layer.scale, layer.zeros


def _ops() -> Any:
    return torch.ops.onednn.qlinear_pointwise
