"""Heads over texts that are read apart: their vectors, how near two of them are, and classes of two.

Legend: n sequences, S rows of two sequences each, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.dropout import fast_dropout
from penjing.models.heads import new_linear, pool


class Vectors(nn.Module):
    """The pooled state of every sequence, of length one; of its first `dimensions` where these are given."""

    def __init__(self, pooling: str, dimensions: int | None = None) -> None:
        super().__init__()
        self.pooling, self.dimensions = pooling, dimensions

    def embed(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
        """(T, D) -> (n, D), fp32."""
        return F.normalize(pool(hidden_TD, lengths, self.pooling).float()[:, : self.dimensions], dim=-1)

    def forward(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
        """As `embed`."""
        return self.embed(hidden_TD, lengths)


class Nearness(nn.Module):
    """The cosine of a row's two sequences."""

    def __init__(self, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling

    def embed(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
        """(T, D) -> (n, D) pooled states of length one, fp32."""
        return F.normalize(pool(hidden_TD, lengths, self.pooling).float(), dim=-1)

    def forward(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
        """(T, D) -> (S,) in -1..1."""
        first, second = self.embed(hidden_TD, lengths).unflatten(0, (-1, 2)).unbind(1)
        near: Tensor = (first * second).sum(-1)
        return near


class Towers(nn.Module):
    """Classes of a row's two sequences from [u, v, |u - v|] (Reimers & Gurevych 2019, arXiv 1908.10084)."""

    def __init__(self, width: int, n_classes: int, *, pooling: str, dropout: float) -> None:
        super().__init__()
        self.pooling, self.dropout = pooling, dropout
        self.out = new_linear(3 * width, n_classes)

    def embed(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
        """(T, D) -> (n, D) pooled states of length one, fp32."""
        return F.normalize(pool(hidden_TD, lengths, self.pooling).float(), dim=-1)

    def forward(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
        """(T, D) -> (S, C) logits, fp32."""
        u, v = pool(hidden_TD, lengths, self.pooling).float().unflatten(0, (-1, 2)).unbind(1)
        x = torch.cat([u, v, (u - v).abs()], dim=-1)
        if self.training:
            x = fast_dropout(x, self.dropout)
        found: Tensor = self.out(x)
        return found
