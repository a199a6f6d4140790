"""peft's LoRA layers with fewer passes over memory: y = W x + b, then one product adds scale B (A x) in
place.

peft multiplies by the scale and adds in two more passes over an activation as wide as the layer, and casts
before; in a small base that costs more than the low-rank products themselves. Weights, names and files stay
peft's.
"""

from __future__ import annotations

from typing import Any

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
        len(names) == 1
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
        out: Tensor = layer.base_layer(x)
        low = F.linear(x, layer.lora_A[self.name].weight)
        up, scale = layer.lora_B[self.name].weight, layer.scaling[self.name]
        flat = out.view(-1, out.shape[-1])
        return flat.addmm_(low.view(-1, low.shape[-1]), up.t(), alpha=scale).view(out.shape)
