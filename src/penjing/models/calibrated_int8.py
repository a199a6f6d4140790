"""Linears in int8 whose inputs' range was measured beforehand (static), or whose inputs are divided by
factors.

Static: an input is round(x / step) + zero, one step and zero for all tokens, found by calibration; values
outside are cut. W (x - zero) = W x - zero (sum of W's row), so the zero costs nothing. Where `step` is not
there, each token has a scale of its own, as in `models.int8`. Sums of products are exact either way, so an
answer does not depend on its batch mates.

Legend: O outputs, I inputs, T tokens.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from penjing.models.int8 import MOST, product, rounded, tokens_rounded, whole_product


class CalibratedInt8(nn.Module):
    """A linear with its weight in int8: `weight` (I, O) codes and `scale` (O,), of W times `factors` (I,)
    where these are there; a kind of `models.stored`.
    """

    kind = "calibrated_int8"
    weight: Tensor
    scale: Tensor
    factors: Tensor | None  # (I,) inputs are divided by
    step: Tensor | None  # (1,) of the inputs' codes
    zero: Tensor | None  # (1,) a whole number: the code of 0
    sums: Tensor | None  # (O,) of the weight's codes
    bias: Tensor | None

    def __init__(self, n_in: int, n_out: int, *, bias: bool, static: bool, factors: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = n_in, n_out
        self.register_buffer("weight", torch.zeros(n_in, n_out, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(n_out))
        self.register_buffer("factors", torch.ones(n_in) if factors else None)
        self.register_buffer("step", torch.ones(1) if static else None)
        self.register_buffer("zero", torch.zeros(1) if static else None)
        self.register_buffer("sums", torch.zeros(n_out, dtype=torch.int32) if static else None)
        self.register_buffer("bias", torch.zeros(n_out) if bias else None)

    @classmethod
    def empty(cls, n_in: int, n_out: int, *, bias: bool, static: bool, factors: bool) -> Self:
        """Such a layer without weights."""
        return cls(n_in, n_out, bias=bias, static=static, factors=factors)

    @classmethod
    def of(
        cls,
        weight_OI: Tensor,
        bias: Tensor | None,
        *,
        span: tuple[float, float] | None = None,
        factors: Tensor | None = None,
    ) -> Self:
        """The layer of a plain weight. `span`: lowest and highest input, over its factor; None: a scale a
        token.
        """
        n_out, n_in = weight_OI.shape
        made = cls(n_in, n_out, bias=bias is not None, static=span is not None, factors=factors is not None)
        made.to(weight_OI.device)
        codes, made.scale = rounded(weight_OI if factors is None else weight_OI * factors)
        made.weight.copy_(codes.t())
        if span is not None:
            step, zero = grid_of(*span)
            made.get_buffer("step").fill_(step)
            made.get_buffer("zero").fill_(zero)
            made.get_buffer("sums").copy_(codes.sum(1, dtype=torch.int32))
        for name, given in (("bias", bias), ("factors", factors)):
            if given is not None:
                made.get_buffer(name).copy_(given.detach())
        return made

    def settings(self) -> dict[str, Any]:
        """What `empty` makes the same layer from."""
        return {"static": self.step is not None, "factors": self.factors is not None}

    def dense(self) -> Tensor:
        """(O, I) fp32 that it stands for."""
        found = self.weight.t().float() * self.scale[:, None]
        return found if self.factors is None else found / self.factors

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in x's type: inputs and weights as whole numbers, all else in fp32."""
        flat = x.reshape(-1, self.in_features).float()
        if self.step is None or self.zero is None or self.sums is None:
            codes, of_tokens = tokens_rounded(flat if self.factors is None else flat / self.factors)
            out = product(codes, of_tokens, self.weight, self.scale, self.bias)
        else:
            step = self.step if self.factors is None else self.step * self.factors
            codes = (flat / step).add_(self.zero).round_().clamp_(-MOST, MOST).to(torch.int8)
            scale = self.scale * self.step
            less = scale * self.zero * self.sums
            offset = -less if self.bias is None else self.bias - less
            out = torch.addcmul(offset, whole_product(codes, self.weight).float(), scale)
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.settings()}"


def grid_of(low: float, high: float) -> tuple[float, int]:
    """Step and zero of the codes -127 to 127 that span these values and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, 1e-12) / (2 * MOST)
    return step, round(-MOST - low / step)


def through(x: Tensor, low: float, high: float) -> Tensor:
    """Inputs as a static layer with this span sees them."""
    step, zero = grid_of(low, high)
    return ((x / step + zero).round().clamp(-MOST, MOST) - zero) * step
