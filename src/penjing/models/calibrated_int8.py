"""Linears in int8 whose inputs' range was measured beforehand (static), or whose inputs are divided by
factors.

Static: an input is round(x / step) + zero, one step and zero for all tokens, found by calibration; values
outside are cut. Where `step` is not there, each token has a scale of its own, as in `models.int8`. Sums of
products are exact either way, so an answer does not depend on its batch mates.

Legend: O outputs, I inputs, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from penjing.models import onednn
from penjing.models.int8 import (
    MOST,
    abreast,
    has_vnni,
    product,
    rounded,
    tokens_rounded,
    watched,
    whole_product,
)
from penjing.models.made import Made
from penjing.models.onednn import LOWEST


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
        self._made: Made[onednn.Packed] = Made()

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
        if self.step is None:
            codes, of_tokens = tokens_rounded(flat if self.factors is None else flat / self.factors)
            out = product(codes, of_tokens, self.weight, self.scale, self.bias)
        elif (own := self.packed()) is not None:
            out = onednn.linear(onednn.codes(flat, own), own)
        else:
            out = self._by_sums(flat)
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _by_sums(self, flat: Tensor) -> Tensor:
        """The same where oneDNN cannot: W (x - zero) = W x - zero (sum of W's row)."""
        assert self.step is not None
        assert self.zero is not None
        assert self.sums is not None
        step = self.step if self.factors is None else self.step * self.factors
        codes = (flat / step).add_(self.zero).round_().clamp_(-LOWEST, MOST).to(torch.int8)
        scale = self.scale * self.step
        less = scale * self.zero * self.sums
        offset = -less if self.bias is None else self.bias - less
        return torch.addcmul(offset, whole_product(codes, self.weight).float(), scale)

    def packed(self) -> onednn.Packed | None:
        """As oneDNN has it; None where inputs have no grid, or oneDNN has no whole numbers here."""
        step, zero = self.step, self.zero
        if step is None or zero is None or self.weight.device.type != "cpu" or not has_vnni():
            return None
        return self._made.of(
            [t for t in self._buffers.values() if t is not None],
            lambda: onednn.packed(
                *(self.weight, self.scale, self.bias),
                step=float(step),
                zero=int(zero),
                factors=self.factors,
            ),
        )

    def beside(self, other: Any) -> bool:
        """Whether it can be one product with a layer that reads the same states: both on one grid."""
        if type(other) is not CalibratedInt8 or (other.bias is None) != (self.bias is None):
            return False
        ours, theirs = self.packed(), other.packed()
        if ours is None or theirs is None or self.factors is not None or other.factors is not None:
            return False
        return (ours.step, ours.zero) == (theirs.step, theirs.zero)

    @staticmethod
    def joined(layers: Sequence[CalibratedInt8]) -> Callable[[Tensor], Tensor]:
        """What makes the outputs (T, O) of all, side by side, of states (T, I), to the bit as alone."""
        first = layers[0].packed()
        assert first is not None
        whole = onednn.packed(*abreast(layers), step=first.step, zero=first.zero, factors=None)
        return lambda x: onednn.linear(onednn.codes(x.float(), whole), whole).to(x.dtype)

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
    return ((x / step + zero).round().clamp(-LOWEST, MOST) - zero) * step


def plus(layer: nn.Module, x: Tensor, rest: Tensor) -> Tensor:
    """layer(x) + rest of tables (T, I) and (T, O); in one pass where the layer is static and unwatched."""
    own = _own(layer)
    if own is None or rest.dtype != torch.float32:
        return layer(x) + rest  # type: ignore[no-any-return]
    return onednn.linear_plus(onednn.codes(x, own), own, rest)


def feed_forward(
    up: nn.Module, activation: nn.Module, down: nn.Module, x: Tensor, *, fused: bool = True
) -> Tensor:
    """down(activation(up(x))) + x of states (T, D). Where both layers are static and the activation is GELU,
    what lies between them is made as codes at once: oneDNN's GELU is not torch's to the last bit, so a value
    between two codes may get the other one.
    """
    first, second = _own(up), _own(down)
    plain = not fused or not _is_gelu(activation) or x.dtype != torch.float32
    if plain or first is None or second is None or second.per is not None:
        return plus(down, activation(up(x)), x)
    return onednn.linear_plus(onednn.linear_gelu(onednn.codes(x, first), first, second), second, x)


def _own(layer: nn.Module) -> onednn.Packed | None:
    return layer.packed() if isinstance(layer, CalibratedInt8) and not watched(layer) else None


def _is_gelu(activation: nn.Module) -> bool:
    """Whether it is the exact one, in torch's form or transformers', and unwatched."""
    exact = getattr(activation, "act", None), getattr(activation, "approximate", None)
    return not watched(activation) and (exact[0] is nn.functional.gelu or exact[1] == "none")
