"""Train the head and the top n layers; what lies below stays as it is and needs no backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn

from penjing.errors import SpecError
from penjing.models.layers import layers_of
from penjing.records import Method


def top(*, layers: int = 0) -> Method:
    """Train the head and the top `layers` layers of the base (0: the head only)."""

    def apply(trunk: Any) -> nn.Module:
        stack = layers_of(trunk)
        if not 0 <= layers <= len(stack):
            raise SpecError(
                f"`top.layers` must be 0 to {len(stack)}, the layers of this base; it is {layers}. Choose "
                "fewer."
            )
        trunk.requires_grad_(False)
        for layer in list(stack)[len(stack) - layers :]:
            layer.requires_grad_(True)
        if layers:  # what lies above the top layer, such as a last norm, moves with it
            for name, parameter in trunk.named_parameters():
                if name.startswith(("norm", "final_norm", "ln_f", "final_layer_norm")):
                    parameter.requires_grad_(True)
        return trunk

    return Method("top", apply, lr=3e-4 if layers else 1e-2, saves="changed")
