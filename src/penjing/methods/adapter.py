"""Bottleneck adapters: small networks inside the frozen layers (Houlsby et al. 2019, arXiv 1902.00751).

They stand inside the residual branch, before its norm, and cannot be merged into the base: a nonlinear
function is no change of a weight. Where a base goes through one layer many times (ALBERT), so it does through
the layer's adapters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from penjing.errors import SpecError
from penjing.models.bottleneck import Bottleneck
from penjing.models.layers import sublayers_of, width_of
from penjing.records import Method


def adapter(
    *,
    size: int = 64,
    places: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby",
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu",
    scale: float = 1.0,
) -> Method:
    """Train small networks x + scale W_up f(W_down x) inside the frozen layers.

    size: width of the bottleneck. places: `houlsby` (after attention and after the feed-forward network),
    `pfeiffer` (after the feed-forward network, arXiv 2005.00247) or `parallel` (beside it, arXiv
    2110.04366). activation: the function f. scale: multiplies what is added; the paper of `parallel` takes 4.
    """
    if size < 1:
        raise SpecError(f"`adapter.size` must be at least 1; it is {size}. 16 to 256 are usual.")
    if not scale > 0:
        raise SpecError(f"`adapter.scale` must be above 0; it is {scale}. Leave it out for 1.")

    def apply(trunk: nn.Module) -> nn.Module:
        trunk.requires_grad_(False)
        width, device = width_of(trunk), next(trunk.parameters()).device
        for place in sublayers_of(trunk):
            if place.attention and places != "houlsby":
                continue
            with torch.device(device):
                bottleneck = Bottleneck(width, size, activation=activation, scale=scale)
            last = trunk.get_submodule(place.last)
            if places == "parallel":
                bottleneck.beside(trunk.get_submodule(place.first), last)
            else:
                bottleneck.after(last)
        return trunk

    return Method("adapter", apply, lr=1e-3, saves="added", by_width=0.5)
