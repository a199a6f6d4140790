"""Which rows make which step: a pure function of seed, epoch and lengths, so a run resumes from a number.

A step is a list of micro-batches; how rows are cut into micro-batches changes nothing but memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from penjing.records import Batch, Part, Side, Tokens

WINDOW = 50  # batches whose rows are sorted by length together, as transformers' length grouping does


def order(lengths: np.ndarray, *, batch: int, seed: int, epoch: int, group: bool = True) -> list[np.ndarray]:
    """The rows of each step of one epoch: every row once, in steps of `batch` rows (the last may be smaller).

    With `group`, rows of like length share a step: random windows of 50 batches are sorted by length and
    cut, and the steps are then shuffled.
    """
    generator = np.random.default_rng([seed, epoch])
    rows = generator.permutation(len(lengths))
    if not group:
        return [rows[i : i + batch] for i in range(0, len(rows), batch)]
    sorted_rows = np.concatenate(
        [
            w[np.argsort(lengths[w], kind="stable")]
            for w in np.split(rows, range(WINDOW * batch, len(rows), WINDOW * batch))
        ]
    )
    steps = [sorted_rows[i : i + batch] for i in range(0, len(sorted_rows), batch)]
    return [steps[i] for i in generator.permutation(len(steps))]


def steps(
    lengths: np.ndarray,
    *,
    batch: int,
    seed: int,
    group: bool,
    start: int = 0,
    deal: Callable[[int], list[np.ndarray]] | None = None,
) -> Iterator[np.ndarray]:
    """The rows of step `start`, `start + 1`, … over endless epochs; `deal` gives those of an epoch in another
    order than `order` would."""
    per_epoch = -(-len(lengths) // batch)
    epoch, inside = divmod(start, per_epoch)
    while True:
        dealt = deal(epoch) if deal else order(lengths, batch=batch, seed=seed, epoch=epoch, group=group)
        yield from dealt[inside:]
        epoch, inside = epoch + 1, 0


def in_pairs(part: Part, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each step of one epoch: every row once, rows of a class two by two, the pairs of all
    classes shuffled; so a step holds classes evenly, and hardly a row without another of its class."""
    targets = part.targets
    generator = np.random.default_rng([seed, epoch])
    pairs = []
    for label in np.unique(targets):
        members = generator.permutation(np.flatnonzero(targets == label))
        pairs += np.split(members, range(2, len(members), 2))
    rows = np.concatenate([pairs[i] for i in generator.permutation(len(pairs))])
    return [rows[i : i + batch] for i in range(0, len(rows), batch)]


def shuffled(part: Part, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each step of one epoch by chance alone, whatever their length: where a step's rows are
    compared with each other, those of one length would be compared with their like only."""
    return order(np.zeros(len(part)), batch=batch, seed=seed, epoch=epoch, group=False)


def cut(rows: np.ndarray, lengths: np.ndarray, *, tokens: int) -> list[np.ndarray]:
    """Rows, longest first, in pieces of at most `tokens` tokens (one longer row makes its own piece)."""
    ordered = rows[np.argsort(-lengths[rows], kind="stable")]
    ends = np.cumsum(lengths[ordered])
    pieces: list[np.ndarray] = []
    begin, base = 0, 0
    while begin < len(ordered):
        end = max(begin + 1, int(np.searchsorted(ends, base + tokens, side="right")))
        pieces.append(ordered[begin:end])
        base, begin = int(ends[end - 1]), end
    return pieces


def pack(
    tokens: Tokens,
    rows: np.ndarray,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    answers: Tokens | None = None,
    images: np.ndarray | None = None,
    marks: np.ndarray | None = None,
    kind: int = 0,
) -> Batch:
    """The sequences end to end, with what is kept of them. `labels`, `weights` and `marks` are indexed by
    sequence; labels a token, which the tokens bring themselves, come before them.
    """
    places, lengths = _places(tokens, rows)
    own_labels = None if labels is None else torch.from_numpy(labels[rows])
    if tokens.labels is not None:
        own_labels = torch.from_numpy(tokens.labels[places].astype(np.int64))
    own_weights = None if weights is None else torch.from_numpy(weights[rows])
    answer = None if answers is None else _side(answers, rows)
    parts, counts = lengths, None
    if tokens.parts is not None:
        there = tokens.parts[rows] > 0
        parts = tokens.parts[rows][there]
        counts = None if there.all() else torch.from_numpy(there.sum(1))
    segments = None if tokens.segments is None else torch.from_numpy(tokens.segments[places].astype(np.int64))
    kept = None if tokens.kept is None else tokens.kept.of(rows)
    pooled = tokens.kept is not None and tokens.kept.pooled
    return Batch(
        ids=torch.from_numpy(tokens.ids[places].astype(np.int64)),
        lengths=torch.from_numpy(parts.astype(np.int64)),
        labels=own_labels,
        weights=own_weights,
        n_targets=count_targets(len(rows), own_labels, own_weights, answer),
        rows=tuple(int(r) for r in rows),
        segments=segments,
        states=None if pooled else kept,
        vectors=kept if pooled else None,
        answer=answer,
        images=None if images is None else torch.from_numpy(images[rows]),
        marks=None if marks is None else torch.from_numpy(marks[rows]),
        counts=counts,
        kind=kind,
    )


def packed(part: Part, rows: np.ndarray) -> Batch:
    """A batch of these sequences of a part, with all that belongs to them."""
    numbers = part.targets if part.targets.dtype != object and len(part.targets) == len(part) else None
    return pack(part.tokens, rows, numbers, part.weights, part.answers, part.images, part.marks, part.kind)


def lengths_of(part: Part) -> np.ndarray:
    """(n,) tokens a sequence costs, its answer's too."""
    return part.tokens.lengths + (0 if part.answers is None else part.answers.lengths)


def _places(tokens: Tokens, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lengths = tokens.starts[rows + 1] - tokens.starts[rows]
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1])) + np.repeat(tokens.starts[rows] - (ends - lengths), lengths), lengths


def _side(answers: Tokens, rows: np.ndarray) -> Side:
    places, lengths = _places(answers, rows)
    labels = None if answers.labels is None else torch.from_numpy(answers.labels[places].astype(np.int64))
    ids = torch.from_numpy(answers.ids[places].astype(np.int64))
    return Side(ids, torch.from_numpy(lengths.astype(np.int64)), labels)


def count_targets(
    n_sequences: int, labels: Tensor | None, weights: Tensor | None, answer: Side | None = None
) -> float:
    """What a mean loss divides by: the sum of weights; else an answer's tokens that are learned; else
    whole-number labels not -100; else sequences."""
    if weights is not None:
        return float(weights.sum())
    if answer is not None:
        return float(len(answer.ids) if answer.labels is None else (answer.labels != -100).sum())
    if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
        return float((labels != -100).sum())
    return float(n_sequences)


def halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """A batch cut in two by rows; None when it is one row."""
    n = len(batch.rows)
    return None if n < 2 else (between(batch, 0, n // 2), between(batch, n // 2, n))


def between(batch: Batch, first: int, last: int) -> Batch:
    """Rows `first` up to `last` (not with it) of a batch, counted from 0 within the batch."""
    n, ends = len(batch.rows), batch.ends()
    begin, end = ends[first], ends[last]  # its sequences
    low = int(batch.lengths[:begin].sum())
    high = low + int(batch.lengths[begin:end].sum())

    def own(x: Tensor | None) -> Tensor | None:
        return None if x is None else (x[first:last] if len(x) == n else x[low:high])

    labels, weights = own(batch.labels), own(batch.weights)
    answer = None if batch.answer is None else _of_side(batch.answer, first, last)
    return Batch(
        ids=batch.ids[low:high],
        lengths=batch.lengths[begin:end],
        labels=labels,
        weights=weights,
        n_targets=count_targets(last - first, labels, weights, answer),
        rows=batch.rows[first:last],
        segments=None if batch.segments is None else batch.segments[low:high],
        states=None if batch.states is None else batch.states[low:high],
        vectors=None if batch.vectors is None else batch.vectors[begin:end],
        answer=answer,
        images=None if batch.images is None else batch.images[first:last],
        marks=None if batch.marks is None else batch.marks[first:last],
        counts=None if batch.counts is None else batch.counts[first:last],
        kind=batch.kind,
    )


def _of_side(side: Side, first: int, last: int) -> Side:
    low, high = int(side.lengths[:first].sum()), int(side.lengths[:last].sum())
    labels = None if side.labels is None else side.labels[low:high]
    return Side(side.ids[low:high], side.lengths[first:last], labels)


def divide(batches: Sequence[Batch], ways: int) -> list[list[Batch]]:
    """The rows of a step dealt `ways` ways, in their order, each with as even a share of the tokens as whole
    rows allow: a row goes where its middle token lies. With few rows a share may be empty.
    """
    costs = [_costs(batch) for batch in batches]
    total = sum(cost.sum() for cost in costs)
    shares: list[list[Batch]] = [[] for _ in range(ways)]
    before = 0
    for batch, cost in zip(batches, costs, strict=True):
        ends = before + np.cumsum(cost)
        cuts = np.searchsorted((ends - cost / 2) * ways // total, np.arange(ways + 1))
        for share, first, last in zip(shares, cuts[:-1], cuts[1:], strict=True):
            if first < last:
                whole = last - first == len(batch.rows)
                share.append(batch if whole else between(batch, int(first), int(last)))
        before = int(ends[-1])
    return shares


def _costs(batch: Batch) -> np.ndarray:
    """(rows,) tokens of each row and its answer; an image is one."""
    tokens: np.ndarray = np.add.reduceat(batch.lengths.numpy(), batch.ends()[:-1])
    if batch.answer is not None:
        tokens = tokens + batch.answer.lengths.numpy()
    return tokens.clip(min=1)
