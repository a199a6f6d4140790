"""Train the head and the top n layers; what lies below stays as it is and needs no backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn

from penjing.errors import SpecError
from penjing.models.layers import depths_of, layers_of
from penjing.records import Method


def top(*, layers: int = 0) -> Method:
    """Train the head and the top `layers` layers of the base (0: the head only)."""
    if layers < 0:
        raise SpecError(f"`top.layers` must be 0 or more; it is {layers}. 0 trains the head only.")

    def apply(trunk: Any) -> nn.Module:
        n_layers, depths = len(layers_of(trunk)), depths_of(trunk)
        if layers > n_layers:
            raise SpecError(
                f"`top.layers` must be 0 to {n_layers}, the layers of {type(trunk).__name__}; it is "
                f"{layers}. Take fewer, or `method: full` to train them all."
            )
        for name, parameter in trunk.named_parameters():
            # what lies above the top layer, such as a last norm, moves with it
            parameter.requires_grad_(layers > 0 and depths[name] > n_layers - layers)
        return trunk

    return Method("top", apply, lr=3e-4 if layers else 1e-2, saves="changed", by_width=1.0 if layers else 0.0)
