"""Keys and values that train, before those of every sequence in every layer (Li and Liang 2021, 2101.00190).

Every query sees the whole prefix, also where attention is causal or within a window. Real tokens stand at
positions p, p + 1, …, as in transformers with a cache of p tokens, so files go to peft and back.

Legend: T tokens, H heads, K heads of keys, L longest of a group, d width of a head, p length of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.errors import NotSupported
from penjing.models.dropout import fast_dropout
from penjing.models.layout import Group, Layout, Return, by_group, spread
from penjing.models.load import quiet
from penjing.models.modes import evaluating
from penjing.models.packing import Way, attend, forward, how_to_run, pattern_of
from penjing.models.prompting import word_ids


class Prefix(nn.Module):
    """Keys and values of p places for every layer, perhaps made by a small network (reparametrised)."""

    runs_fp32 = True  # cast where they meet the keys
    kind = "PREFIX_TUNING"

    def __init__(self, start: Tensor, n_layers: int, heads: int, hidden: int | None = None) -> None:
        """`start` (p, 2 layers K d) holds each layer's key, then its value; with `hidden` it is (p, K d), and
        two linear layers with tanh between make the rest of it.
        """
        super().__init__()
        self.weight = nn.Parameter(start)
        self.n_layers, self.heads = n_layers, heads
        self.encoder = None
        if hidden is not None:
            width = start.shape[1]
            self.encoder = nn.Sequential(
                nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 2 * n_layers * width)
            )

    def vectors(self) -> Tensor:
        """(p, 2 layers K d), fp32: peft's order."""
        return self.weight if self.encoder is None else self.encoder(self.weight)

    def run(
        self, trunk: nn.Module, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
    ) -> Tensor:
        """Last states, (T, D); called by `packing.run`."""
        length = len(self.weight)
        pairs = self.vectors().view(length, self.n_layers, 2, self.heads, -1).permute(1, 2, 3, 0, 4)
        return forward(trunk, way, ids, lengths, segments, shift=length, instead=_WithPrefix(pairs))


class _WithPrefix:
    """Attention of one forward: knows which layer calls."""

    def __init__(self, pairs: Tensor) -> None:
        self.pairs = pairs  # (layers, 2, K, p, d)
        self.callers: list[nn.Module] = []

    def __call__(
        self,
        module: nn.Module,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: Layout,
        scale: float,
        dropout: float,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        """(1, H, T, d) -> (T, H, d)."""
        before = self.pairs[self._layer(module)].to(k.dtype)
        if k.shape[1] != q.shape[1]:
            times = q.shape[1] // k.shape[1]
            k, v, before = (x.repeat_interleave(times, dim=1) for x in (k, v, before))
        asks, keys, values = (by_group(x, layout.groups) for x in (q, k, v))
        parts = [
            _grouped(group, own, before, scale, dropout, causal, window)
            for group, *own in zip(layout.groups, asks, keys, values, strict=True)
        ]
        return torch.cat(parts)

    def _layer(self, module: nn.Module) -> int:
        """Layers call in turn; one that calls once more recomputes its activations inside backward."""
        if len(self.callers) < len(self.pairs):
            self.callers.append(module)
            return len(self.callers) - 1
        return self.callers.index(module)


def _grouped(
    group: Group,
    own: list[Tensor],
    before: Tensor,
    scale: float,
    dropout: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """One group's part: its queries, keys and values (tokens, H, d) -> (tokens, H, d). `before` is (2, H, p,
    d)."""
    heads, width = own[0].shape[1:]
    q, k, v = (spread(x, group) for x in own)  # (n, H, L, d)
    k, v = (
        torch.cat([first.expand(group.n, *first.shape), x], 2)
        for first, x in zip(before, (k, v), strict=True)
    )
    seen = group.visible
    pattern = pattern_of(group.longest, causal, window, q.device)
    if pattern is not None:
        seen = pattern if seen is None else seen & pattern
    if seen is not None:
        seen = F.pad(seen, (before.shape[2], 0), value=True)
    if dropout:
        scores = (q * scale) @ k.transpose(-1, -2)  # (n, H, L, p + L)
        if seen is not None:
            scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        out = fast_dropout(scores.softmax(-1), dropout) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    flat = out.transpose(1, 2).reshape(-1, heads * width)
    if group.back is not None:
        flat = Return.apply(flat, group.back)
    return flat.view(-1, heads, width)


def put_before(trunk: Any, n: int, how: str, text: str | None = None, hidden: int | None = None) -> None:
    """Freeze the trunk and give it a prefix of n places.

    `how`: keys and values that the base has for a `text` or for random words (`vocabulary`), or `random`.

    Raises:
        NotSupported: the base does not run packed, so its attention cannot be reached.
    """
    device = next(trunk.parameters()).device
    n_layers, heads, width = shape_of(trunk)
    size = (heads * width) if hidden is not None else 2 * n_layers * heads * width
    start = torch.randn(n, size, device=device)
    if device.type != "meta":
        with quiet():
            way = how_to_run(trunk)
        if not way.packed:
            raise NotSupported(
                f"A prefix needs a base whose attention can be reached, one that runs packed; "
                f"{type(trunk).__name__} runs padded ({way.reason}). Take `method: prompt` or `method: lora`."
            )
        if how != "random":
            start = _of_words(trunk, way, word_ids(trunk, n, text).to(device))
    trunk.requires_grad_(False)
    with torch.device(device):
        trunk.added = Prefix(start, n_layers, heads, hidden)


def shape_of(trunk: Any) -> tuple[int, int, int]:
    """Layers, heads of keys, width of a head."""
    config = trunk.config
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return int(config.num_hidden_layers), heads, width


def _of_words(trunk: nn.Module, way: Way, ids: Tensor) -> Tensor:
    """Keys and values that the base has for these words, (p, 2 layers K d)."""
    found: list[Tensor] = []

    def record(
        module: nn.Module,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: Layout,
        scale: float,
        dropout: float,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        found.append(torch.stack([k[0], v[0]]))  # (2, K, p, d)
        said = {"sliding_window": window, "is_causal": causal}
        out, _ = attend(module, q, k, v, None, scale, dropout, layout, **said)  # type: ignore[arg-type]
        return out[0]

    with evaluating(trunk), torch.no_grad():
        forward(trunk, way, ids, [len(ids)], instead=record)
    return torch.stack(found).permute(3, 0, 1, 2, 4).flatten(1).contiguous()
