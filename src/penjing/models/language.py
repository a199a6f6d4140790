"""What all objectives of saying words share: the loss and what is judged of each piece.

Legend: S sequences, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.records import Batch, Loss, Part
from penjing.task import Each, Feed, Task


def language_task(name: str, bind: Callable[..., Task], score: Callable[..., Any]) -> Task:
    """A task that says words; what it says, `bind` decides for a base."""
    return Task(
        name=name,
        head=_unbound,
        loss=word_loss,
        score=score,
        best="loss",
        lower=True,
        untuned="own",
        bind=bind,
        feed=Feed(),
    )


def _unbound(*shape: Any) -> nn.Module:
    raise AssertionError("the head of a language model comes with its base")


def word_loss(model: nn.Module, batch: Batch) -> Loss:
    """Cross-entropy of the tokens whose label is not -100, the mean over them."""
    inner: Any = model
    return Loss(inner.head.loss(inner.states(batch), asked(batch)[0]) / batch.n_targets)


def asked(batch: Batch) -> tuple[Tensor, Tensor]:
    """What each state is asked for, -100 for nothing, and the lengths of the sequences that states are of:
    the batch's own, or of an encoder-decoder the answers'."""
    if batch.answer is not None:
        own = batch.answer
        return own.ids if own.labels is None else own.labels, own.lengths
    assert batch.labels is not None
    return batch.labels, batch.lengths


def judged(model: nn.Module, each: Each, part: Part) -> np.ndarray:
    """(n, 3) of each piece: summed loss, tokens asked for, those answered rightly."""
    inner: Any = model

    def rows(batch: Batch) -> list[list[float]]:
        labels, lengths = asked(batch)
        losses, hits = inner.head.judged(inner.states(batch), labels)
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(losses.device)
        owner = owner[labels != -100]
        columns = torch.stack([losses.double(), torch.ones_like(losses).double(), hits.double()], 1)
        sums = columns.new_zeros(len(lengths), 3).index_add(0, owner, columns)
        found: list[list[float]] = sums.tolist()
        return found

    return np.array(each(part, rows), np.float64).reshape(-1, 3)
