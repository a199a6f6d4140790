"""Sentence embeddings without labels: a sentence is read twice, under other dropout, and finds itself among
the others of its step. Gao et al. 2021 (SimCSE, arXiv 2104.08821, section 3). The second reading says some
words twice, as otherwise its length alone would give it away: Wu et al. 2022 (ESimCSE, arXiv 2109.04380,
section 3.1).

With labelled pairs, `task: embed` does the same with given partners (supervised SimCSE).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data.masking import drawn, framed, placed
from penjing.errors import SpecError
from penjing.models.heads import pool
from penjing.models.load import Base
from penjing.models.queries import frame
from penjing.records import NO_ROWS, Batch, Loss, Part, Scores, Tokens
from penjing.task import Each, Feed, Task

# What `train` says where the spec says nothing.
TRAIN = {"batch": 64, "lr": 3e-5, "steps": 1000, "warmup": 0.1}
STILL, DROPPED = 20_011, 0.1  # validation: the second reading lacks a tenth of the tokens, the same each time


class SentenceHead(nn.Module):
    """Pooled states, and in training one more dense layer, which is left out afterwards (SimCSE, table 4)."""

    def __init__(self, width: int, pooling: str) -> None:
        super().__init__()
        self.pooling, self.dense = pooling, nn.Linear(width, width)

    def forward(self, hidden_TD: Tensor, lengths: Tensor) -> Tensor:
        """(T, D) -> (S, D), of length one."""
        x = pool(hidden_TD, lengths, self.pooling).float()
        return F.normalize(torch.tanh(self.dense(x)) if self.training else x, dim=-1)


def contrastive(
    *,
    temperature: float = 0.05,
    pooling: Literal["auto", "cls", "mean", "last"] = "auto",
    repeat: float = 0.32,
) -> Task:
    """Draw two readings of a sentence together and the sentences of a step apart.

    temperature: of the softmax over the step's sentences. pooling: how a sentence is summed up. The base's
    own dropout makes the two readings differ: with `train.dropout: 0` there would be little to learn.
    repeat: at most this share of the second reading's tokens (or 2 of them) is said twice; 0 is SimCSE as
    published. A step holds sentences of like length, so that length tells nothing apart.
    """
    if not temperature > 0:
        raise SpecError(f"`contrastive.temperature` must be above 0; it is {temperature}. 0.05 is usual.")
    if not 0 <= repeat <= 1:
        raise SpecError(
            f"`contrastive.repeat` is a share of a sentence's tokens, from 0 to 1; it is {repeat}. "
            "0.32 is usual."
        )

    def head(width: int, names: list[str], base_pooling: str, dense: nn.Linear | None) -> nn.Module:
        return SentenceHead(width, base_pooling if pooling == "auto" else pooling)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        found = model(batch)  # (2 S, D), the readings of a sentence side by side
        return Loss(_each(found[0::2], found[1::2], temperature).mean())

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        before, after = frame(base.tokenizer)
        room = base.limit - len(before) - len(after)

        def twice(part: Part, rows: np.ndarray, seed: int | None) -> Part:
            tokens = part.tokens
            both = np.repeat(rows, 2)
            places, lengths = placed(tokens.starts[both], tokens.starts[both + 1])
            generator = np.random.default_rng(seed)
            times = (
                _thinned(lengths, generator) if seed == STILL else _repeated(lengths, repeat, room, generator)
            )
            places, lengths = np.repeat(places, times), np.add.reduceat(times, np.cumsum(lengths) - lengths)
            ids, whole, _ = framed(np.asarray(tokens.ids[places], np.int64), lengths, before, after)
            parts = whole.reshape(-1, 2)
            starts = np.concatenate([[0], np.cumsum(parts.sum(1))])
            return Part(NO_ROWS, Tokens(ids, starts, parts=parts), part.targets[rows][:, 0])

        def infer(model: nn.Module, each: Each, part: Part) -> np.ndarray:
            shown = twice(part, np.arange(len(part)), STILL)
            return torch.stack(each(shown, lambda b: model(b).float().unflatten(0, (-1, 2)).cpu())).numpy()

        def score(
            found: np.ndarray, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
        ) -> Scores:
            return _score(found, temperature)

        return replace(
            task, vary=twice, infer=infer, score=score, feed=Feed("sentence", len(before) + len(after))
        )

    task = Task(
        name="contrastive",
        head=head,
        loss=loss,
        score=lambda *found: _score(found[0], temperature),
        best="loss",
        lower=True,
        untuned="own",
        bind=bind,
        feed=Feed("sentence"),
        joint=True,
    )
    return task


def _each(one_SD: Tensor, other_SD: Tensor, temperature: float) -> Tensor:
    """(S,) -log softmax over the step of cosine / temperature, at each sentence's own second reading."""
    cosines = one_SD @ other_SD.T
    return F.cross_entropy(
        cosines / temperature, torch.arange(len(cosines), device=cosines.device), reduction="none"
    )


def _repeated(lengths: np.ndarray, share: float, room: int, generator: np.random.Generator) -> np.ndarray:
    """(T,) how often each token is said. Of every second reading of n tokens, 0 up to max(2, share n) are
    drawn to be said twice, as far as there is room.
    """
    most = np.minimum(np.maximum(2, (share * lengths).astype(np.int64)), np.minimum(lengths, room - lengths))
    most = np.where((np.arange(len(lengths)) % 2 == 1) & (share > 0), np.maximum(most, 0), 0)
    return 1 + drawn(lengths, generator.integers(0, most, endpoint=True), generator)


def _thinned(lengths: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(T,) 1 at the tokens that stay: all of every first reading, nine tenths of the second."""
    second = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    kept = ~second | (generator.random(len(second)) >= DROPPED)
    kept[np.cumsum(lengths) - lengths] = True
    return kept.astype(np.int64)


def _score(found: np.ndarray, temperature: float, group: int = 64) -> Scores:
    """Loss in groups of 64, alignment and uniformity (Wang & Isola 2020, arXiv 2005.10242)."""
    losses, apart = [], []
    for start in range(0, len(found), group):
        piece = torch.from_numpy(found[start : start + group])
        losses.append(_each(piece[:, 0], piece[:, 1], temperature))
        if len(piece) > 1:
            apart.append(torch.pdist(piece[:, 0]).pow(2).mul(-2).exp().mean())
    alignment = float(np.square(found[:, 0] - found[:, 1]).sum(1).mean())
    uniformity = float(torch.stack(apart).mean().log()) if apart else 0.0
    return Scores({"loss": float(torch.cat(losses).mean()), "alignment": alignment, "uniformity": uniformity})
