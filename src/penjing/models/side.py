"""A ladder side network: narrow layers fed from a frozen trunk (Sung et al. 2022, arXiv 2206.06522).

The trunk runs without a graph: backward costs what the narrow layers cost, and no activation of it is kept.
The side runs packed, in whatever way the trunk is run, with a small attention of its own.

Legend: T tokens, D width of the base, w width of the side, H heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.layout import Layout, layout_of
from penjing.models.packing import Way, attend, layer_states

TEMPERATURE = 0.1  # of the gates, as in the paper


class Side(nn.Module):
    """x_0 = down_0 h_0; x_i = block_i(m_i down_i h_i + (1 - m_i) x_{i-1}) with m_i = sigmoid(gate_i / 0.1).

    The base's last states get up norm(x) added, and `up` begins at zero.
    """

    without_trunk = True  # no gradient flows through the trunk

    def __init__(self, width: int, narrow: int, heads: int, rungs: Sequence[int], *, causal: bool) -> None:
        """`rungs`: the trunk's layers that are listened to, 1 the lowest, in order."""
        super().__init__()
        self.rungs = tuple(rungs)
        self.downs = nn.Sequential(*(nn.Linear(width, narrow) for _ in range(len(self.rungs) + 1)))
        self.blocks = nn.Sequential(*(Block(narrow, heads, causal=causal) for _ in self.rungs))
        self.gates = nn.Parameter(torch.zeros(len(self.rungs)))
        self.norm, self.up = nn.LayerNorm(narrow), nn.Linear(narrow, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def run(
        self, trunk: nn.Module, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
    ) -> Tensor:
        """Last states, (T, D); called by `packing.run`."""
        with torch.no_grad():
            states = layer_states(trunk, way, ids, lengths, segments)
        layout = layout_of(lengths, ids.device)
        x = self.downs[0](states[0])  # (T, w)
        mixed = (self.gates / TEMPERATURE).sigmoid()
        for i, rung in enumerate(self.rungs):
            heard = self.downs[i + 1](states[rung])
            x = self.blocks[i](mixed[i] * heard + (1 - mixed[i]) * x, layout)
        return states[-1] + self.up(self.norm(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A layer of the side: attention and a feed-forward network, each after a norm and within a residual."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.is_causal = heads, causal
        self.norm, self.other_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(T, w) -> (T, w)."""
        joined = self.inputs(self.norm(x)).view(len(x), 3, self.heads, -1)
        query, key, value = joined.permute(1, 2, 0, 3)[:, None]  # (1, H, T, d) each
        seen = attend(self, query, key, value, None, layout=layout)[0][0]  # (T, H, d)
        x = x + self.output(seen.flatten(1))
        return x + self.narrow(F.gelu(self.widen(self.other_norm(x))))  # type: ignore[no-any-return]
