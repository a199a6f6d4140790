"""The peer of `bench/grow.py shakespeare`: a GPT and its loop by nanoGPT's published settings.

Written after its description (github.com/karpathy/nanoGPT, README and config/train_shakespeare_char.py): no
biases, GELU, torch's causal attention, tied words, residual projections scaled by depth, AdamW (fused, .9,
.99, decay .1 on matrices), warm-up of 100 steps, cosine to a tenth, clipping at 1, random windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Setting:
    """A published setting."""

    layers: int
    heads: int
    width: int
    context: int
    batch: int
    steps: int
    dropout: float = 0.0
    lr: float = 1e-3
    warmup: int = 100
    floor: float = 0.1


CPU = Setting(4, 4, 128, 64, 12, 2000)
GPU = Setting(6, 6, 384, 256, 64, 5000, dropout=0.2)


class Block(nn.Module):
    """Attention and MLP, norms before."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.s, width = s, s.width
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.drop = nn.Dropout(s.dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        parts = self.qkv(self.norms[0](x)).split(width, 2)
        q, k, v = (p.view(n, t, self.s.heads, -1).transpose(1, 2) for p in parts)
        p = self.s.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + self.drop(self.out(seen.transpose(1, 2).reshape(n, t, width)))
        return x + self.drop(self.down(F.gelu(self.up(self.norms[1](x)))))


class Nano(nn.Module):
    """`model(x, y)` -> mean loss of predicting y."""

    def __init__(self, s: Setting, n_words: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(n_words, s.width), nn.Embedding(s.context, s.width)
        self.drop = nn.Dropout(s.dropout)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.width, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * s.layers) if deep else 0.02)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.drop(self.words(x) + self.places(torch.arange(x.shape[1], device=x.device)))
        for block in self.blocks:
            hidden = block(hidden)
        logits = F.linear(self.norm(hidden), self.words.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.reshape(-1))


def rate(s: Setting, step: int) -> float:
    """Warm-up, then cosine down to a tenth."""
    if step < s.warmup:
        return s.lr * step / s.warmup
    done = (step - s.warmup) / (s.steps - s.warmup)
    return s.lr * (s.floor + (1 - s.floor) * 0.5 * (1 + math.cos(math.pi * done)))


def steps(model: Nano, s: Setting, data: np.ndarray, seed: int) -> Iterator[float]:
    """The loop: yields each step's loss."""
    device = model.words.weight.device
    generator = torch.Generator().manual_seed(seed)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, 0.99), fused=True)
    for step in range(s.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(s, step)
        at = torch.randint(len(data) - s.context, (s.batch,), generator=generator).numpy()
        rows = torch.from_numpy(np.stack([data[i : i + s.context + 1] for i in at]).astype(np.int64)).to(
            device
        )
        loss = model(rows[:, :-1], rows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield float(loss.detach())


@torch.no_grad()
def held_out(model: Nano, s: Setting, data: np.ndarray) -> float:
    """Mean loss over the whole of a text, window by window."""
    model.eval()
    n = (len(data) - 1) // s.context
    x = torch.from_numpy(data[: n * s.context].astype(np.int64)).view(n, -1)
    y = torch.from_numpy(data[1 : n * s.context + 1].astype(np.int64)).view(n, -1)
    device = model.words.weight.device
    total = sum(
        float(model(a.to(device), b.to(device))) * len(a)
        for a, b in zip(x.split(64), y.split(64), strict=True)
    )
    model.train()
    return total / n
