"""From hidden states to one vector a sequence, and from that to scores a class.

Legend: S sequences, T tokens, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penjing.models.dropout import fast_dropout

AVERAGES = ("mean", "mean_sqrt_len_tokens", "weightedmean")  # taken in fp32
POOLINGS = ("cls", "last", "max", *AVERAGES)


def pool(hidden_TD: Tensor, lengths: Sequence[int] | Tensor, how: str) -> Tensor:
    """(T, D) packed states -> (S, D): the first token (`cls`), the last one (`last`), the mean of all, or
    what else sentence-transformers has: the greatest of each column (`max`), the sum by the square root of
    the length (`mean_sqrt_len_tokens`), the mean with weights 1, 2, … (`weightedmean`)."""
    size = torch.as_tensor(lengths, device=hidden_TD.device)
    ends = size.cumsum(0)
    if how == "cls":
        return hidden_TD.index_select(0, ends - size)
    if how == "last":
        return hidden_TD.index_select(0, ends - 1)
    if how not in POOLINGS:
        raise ValueError(f"pooling is one of {', '.join(POOLINGS)}, not {how!r}")
    owner = torch.repeat_interleave(torch.arange(len(size), device=size.device), size)
    if how == "max":
        none = hidden_TD.new_full((len(size), hidden_TD.shape[1]), float("-inf"))
        return none.scatter_reduce(0, owner[:, None].expand_as(hidden_TD), hidden_TD, "amax")
    shares, parts = hidden_TD.float(), size[:, None]
    if how == "weightedmean":
        place = torch.arange(1, len(owner) + 1, device=size.device) - (ends - size)[owner]
        shares, parts = shares * place[:, None], parts * (parts + 1) / 2
    total = hidden_TD.new_zeros(len(size), hidden_TD.shape[1], dtype=torch.float32)
    return total.index_add(0, owner, shares) / (parts.sqrt() if how == "mean_sqrt_len_tokens" else parts)


def new_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer that begins from nothing, known by its parameters' `fan_in`."""
    made = nn.Linear(n_in, n_out)
    nn.init.normal_(made.weight, std=0.02)
    nn.init.zeros_(made.bias)
    for parameter in made.parameters():
        parameter.fan_in = n_in  # type: ignore[attr-defined]
    return made


class ClassHead(nn.Module):
    """Pool, the family's dense tanh layer where it has one, dropout and one linear layer, in fp32."""

    def __init__(
        self, width: int, n_classes: int, *, pooling: str, dropout: float, dense: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.pooling, self.dropout = pooling, dropout
        self.dense = dense
        self.out = new_linear(width, n_classes)

    def forward(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
        """(T, D) -> (S, C) logits, fp32."""
        x = pool(hidden_TD, lengths, self.pooling).float()
        if self.dense is not None:
            x = torch.tanh(self.dense(x))
        if self.training:
            x = fast_dropout(x, self.dropout)
        return self.out(x)  # type: ignore[no-any-return]


class TagHead(nn.Module):
    """Dropout and one linear layer over every token's state, in fp32; with `crf`, scores of transitions; with
    `whole`, a head of the whole sequence beside it."""

    RATE = 100.0  # transitions learn as fast as if their rate were so many times the trunk's

    def __init__(
        self, width: int, n_outputs: int, *, dropout: float, crf: bool = False, whole: ClassHead | None = None
    ) -> None:
        super().__init__()
        self.dropout, self.whole = dropout, whole
        self.out = new_linear(width, n_outputs)
        self.moves = nn.Parameter(torch.zeros(n_outputs, n_outputs)) if crf else None

    @property
    def dense(self) -> nn.Linear | None:
        """The dense layer of the family that the head of the whole sequence took over."""
        return None if self.whole is None else self.whole.dense

    @property
    def transitions(self) -> Tensor | None:
        """(C, C) score of each tag (column) behind each other (row); None without a CRF."""
        return None if self.moves is None else self.RATE * self.moves

    def forward(self, hidden_TD: Tensor, lengths: Sequence[int] | Tensor) -> tuple[Tensor, Tensor | None]:
        """(T, D) -> (T, C) logits of every token, and (S, K) of every sequence where it is asked for."""
        x = hidden_TD.float()
        if self.training:
            x = fast_dropout(x, self.dropout)
        return self.out(x), None if self.whole is None else self.whole(hidden_TD, lengths)


class RelationHead(nn.Module):
    """The pooled sequence and the mean states of two entities, each through a tanh layer (both entities
    through the same), side by side into one linear layer, in fp32 (R-BERT, Wu & He 2019)."""

    def __init__(self, width: int, n_classes: int, *, dropout: float, pool: str) -> None:
        super().__init__()
        self.dropout, self.pool = dropout, pool
        self.whole, self.entity = new_linear(width, width), new_linear(width, width)
        self.out = new_linear(3 * width, n_classes)

    def forward(self, hidden_TD: Tensor, lengths: Tensor, spans_S4: Tensor) -> Tensor:
        """(T, D) -> (S, C) logits; `spans_S4` are first and last + 1 of both entities in each sequence."""
        starts = (lengths.cumsum(0) - lengths).to(hidden_TD.device)[:, None]
        places_S4 = spans_S4.to(hidden_TD.device) + starts
        hidden = hidden_TD.float()
        whole = torch.tanh(self.whole(self._drop(pool(hidden, lengths, self.pool))))
        entities = [
            torch.tanh(self.entity(self._drop(_mean(hidden, places_S4[:, k : k + 2])))) for k in (0, 2)
        ]
        return self.out(self._drop(torch.cat([whole, *entities], dim=1)))  # type: ignore[no-any-return]

    def _drop(self, x: Tensor) -> Tensor:
        return fast_dropout(x, self.dropout) if self.training else x


def _mean(hidden_TD: Tensor, spans_S2: Tensor) -> Tensor:
    """(S, D) mean state of each span, (first, the one after the last)."""
    sizes = spans_S2[:, 1] - spans_S2[:, 0]
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    inside = torch.arange(int(sizes.sum()), device=sizes.device) - (sizes.cumsum(0) - sizes)[owner]
    total = hidden_TD.new_zeros(len(sizes), hidden_TD.shape[1])
    return total.index_add(0, owner, hidden_TD[spans_S2[owner, 0] + inside]) / sizes[:, None]
