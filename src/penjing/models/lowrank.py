"""peft's LoRA layers with fewer passes over memory: y = W x + b + scale B (A x), one product added in place.

peft multiplies by the scale and adds in two more passes over an activation as wide as the layer, and casts
before; in a small base that costs more than the low-rank products themselves. Weights, names and files stay
peft's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def quicken(trunk: nn.Module) -> int:
    """Give every plain LoRA layer below `trunk` the quick forward; returns how many.

    Layers with dropout on their input, DoRA, several active adapters or another dtype rule keep peft's own
    forward; so does a quick layer while its adapter is merged or switched off.
    """
    if not hasattr(trunk, "peft_config"):
        return 0
    from peft.tuners.lora.layer import Linear

    n_quick = 0
    for layer in trunk.modules():
        if isinstance(layer, Linear) and _plain(layer) and not isinstance(layer.forward, _Quick):
            layer.forward = _Quick(layer)
            n_quick += 1
    return n_quick


def _plain(layer: Any) -> bool:
    names = layer.active_adapters
    return (
        type(layer.base_layer).__name__ in ("Linear", "Conv1D")
        and len(names) == 1
        and names[0] in layer.lora_A
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and layer.lora_B[names[0]].bias is None
    )


class _Quick:
    """The forward of one layer; keeps the class's own for what it does not do."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.whole, self.name = layer, layer.forward, layer.active_adapters[0]

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self.layer
        if layer.disable_adapters or layer.merged or args or kwargs or layer.active_adapters != [self.name]:
            return self.whole(x, *args, **kwargs)  # type: ignore[no-any-return]
        base = layer.base_layer
        if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
            return self.whole(x)  # type: ignore[no-any-return]
        weight = base.weight.t() if layer.fan_in_fan_out else base.weight  # GPT-2's Conv1D is (D, O)
        low, up = layer.lora_A[self.name].weight, layer.lora_B[self.name].weight
        flat = x.reshape(-1, x.shape[-1])
        out = _LowRank.apply(flat, weight, base.bias, low, up, layer.scaling[self.name])
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


class _LowRank(torch.autograd.Function):
    """x (T, D) -> x W' + b + scale (x A') B' (T, O), W and b frozen; A (r, D), B (O, r).

    Written out because autograd's own way copies the wide gradient where the sum was made in place, and adds
    up the two gradients of x in a pass of its own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, low: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        narrow = F.linear(x, low)  # (T, r)
        ctx.save_for_backward(x, weight, low, up, narrow)
        ctx.scale = scale
        return F.linear(x, weight, bias).addmm_(narrow, up.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, low, up, narrow = ctx.saved_tensors
        back = (grad @ up).mul_(ctx.scale)  # (T, r)
        x_grad = (grad @ weight).addmm_(back, low) if ctx.needs_input_grad[0] else None
        up_grad = (narrow.t() @ grad).mul_(ctx.scale).t()  # r rows: four times as fast as r columns
        return x_grad, None, None, back.t() @ x, up_grad, None
