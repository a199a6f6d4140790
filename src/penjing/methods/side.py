"""A side network on a frozen trunk: nothing flows back through the base (Sung et al. 2022, 2206.06522)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from penjing.errors import SpecError
from penjing.models.dropout import set_dropout
from penjing.models.layers import is_causal, width_of
from penjing.models.side import Side
from penjing.records import Method


def side(*, reduction: int = 8, every: int = 1) -> Method:
    """Train a narrow network beside the base, fed from its layers; nothing flows back through the base.

    The base runs without dropout. reduction: how many times narrower than the base the network is. every: it
    listens to each layer of the base (1), to every second one (2), …, the last one always.
    """
    if reduction < 2:
        raise SpecError(f"`side.reduction` must be at least 2; it is {reduction}. 4 to 16 are usual.")
    if every < 1:
        raise SpecError(f"`side.every` must be at least 1; it is {every}. 1 listens to every layer.")

    def apply(trunk: Any) -> nn.Module:
        width, n_layers = width_of(trunk), int(trunk.config.num_hidden_layers)
        if width // reduction < 4 or every > n_layers:
            raise SpecError(
                f"`side.reduction` is {reduction} and `side.every` is {every}; {type(trunk).__name__} is "
                f"{width} wide and has {n_layers} layers. Take at most {width // 4} and {n_layers}."
            )
        trunk.requires_grad_(False)
        set_dropout(trunk, 0.0)
        narrow = width // reduction
        heads = math.gcd(narrow, int(trunk.config.num_attention_heads))
        rungs = range(n_layers, 0, -every)[::-1]
        with torch.device(next(trunk.parameters()).device):
            trunk.added = Side(width, narrow, heads, rungs, causal=is_causal(trunk))
        return trunk

    return Method("side", apply, lr=3e-3, saves="added", by_width=0.5)
