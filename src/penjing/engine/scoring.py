"""Outputs of many rows: sorted by length over the whole queue, packed, no gradients.

Legend: S sequences (rows), C classes, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.data.batches import cut, lengths_of, packed
from penjing.engine.ranks import ALONE, Ranks
from penjing.models.ensemble import Ensemble
from penjing.models.heads import pool
from penjing.models.model import Model
from penjing.models.modes import evaluating
from penjing.models.packing import alone
from penjing.records import NO_ROWS, Batch, Part, Tokens
from penjing.task import Task


def predictions(
    task: Task, model: Model | Ensemble, part: Part, *, tokens: int = 8192, ranks: Ranks = ALONE
) -> Any:
    """What the model predicts of a part, as the task sees it (task.Task: `found`)."""
    if task.infer:
        return task.infer(model, partial(each, model, tokens=tokens, ranks=ranks), part)
    return task.probabilities(outputs(model, part.tokens, tokens=tokens, ranks=ranks))


def outputs(model: Model | Ensemble, rows: Tokens, *, tokens: int = 8192, ranks: Ranks = ALONE) -> Tensor:
    """The head's output of every row, in the rows' order: (S, C) fp32 on the CPU."""
    return over(model, rows, model, tokens=tokens, ranks=ranks)


def embed(model: Model, rows: Tokens, pooling: str, *, tokens: int = 8192) -> Tensor:
    """Pooled trunk states of every row, of length one: (S, D) fp32 on the CPU."""

    def compute(batch: Batch) -> Tensor:
        return F.normalize(pool(model.states(batch), batch.lengths, pooling).float(), dim=1)

    return over(model, rows, compute, tokens=tokens)


def nearest_name(
    model: Model, rows: Tokens, names: Tokens, pooling: str, *, tokens: int = 8192
) -> np.ndarray:
    """Zero-shot probabilities by the nearest label name: softmax over cosine / 0.05, (S, C).

    They are the base's own: a prompt, a prefix or a side network is left out.
    """
    with alone(model.trunk):
        cosine = embed(model, rows, pooling, tokens=tokens) @ embed(model, names, pooling, tokens=tokens).T
    return (cosine / 0.05).softmax(1).double().numpy()


def over(
    model: Model | Ensemble,
    rows: Tokens,
    compute: Callable[[Batch], Tensor],
    *,
    tokens: int = 8192,
    ranks: Ranks = ALONE,
) -> Tensor:
    """What `compute` gives of every row, in the rows' order, on the CPU; at most `tokens` at once."""
    part = Part(NO_ROWS, rows, np.zeros(0, dtype=np.int64))
    found = each(model, part, lambda batch: compute(batch).float().cpu(), tokens=tokens, ranks=ranks)
    return torch.stack(found) if found else torch.empty(0, 0)


def each(
    model: Model | Ensemble,
    part: Part,
    compute: Callable[[Batch], Sequence[Any] | Tensor],
    *,
    tokens: int = 8192,
    ranks: Ranks = ALONE,
) -> list[Any]:
    """One item a sequence, in the part's order, of what `compute` gives of batches of at most `tokens`,
    without gradients; the model is in evaluation mode meanwhile.

    Several processes take the batches in turn, and all get the whole. Where weights are sharded all of them
    run every batch, as no pass can be made by one: `compute` may make any number of passes.
    """
    device = next(model.parameters()).device
    pieces = cut(np.arange(len(part)), lengths_of(part), tokens=tokens)
    step = 1 if ranks.sharded else ranks.world
    own = pieces if ranks.sharded else pieces[ranks.rank :: step]
    # Weights put together of shares live on into training, where inference tensors may not be.
    quiet = torch.no_grad() if ranks.sharded else torch.inference_mode()
    with evaluating(model), quiet:
        ours = [[*compute(packed(part, piece).to(device))] for piece in own]
        if ranks.sharded:  # what lies beside the layers is whole after a forward without a backward
            model.reshard()  # type: ignore[operator]
    theirs = [ours] if ranks.sharded else ranks.gather(ours)
    found: list[Any] = [None] * len(part)
    for number, piece in enumerate(pieces):
        for row, item in zip(piece, theirs[number % step][number // step], strict=True):
            found[row] = item
    return found
