"""The small frozen records that travel between functions (design, section 2).

Shape suffixes: S sequences, T tokens, C classes, D width. Importing this file imports torch; `spec`, `plugin`
and `errors` do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rows:
    """Rows as read: texts, their labels, and where each stands, so that any complaint can name file and line.

    `labels` holds one tuple of label names a row (one name when single-label, empty when unlabelled).
    `files[file_of[i]]`, line `lines[i]` (1-based) is the origin of row i. A task that reads more than a text
    and labels keeps its own record of each row in `items`; `texts` are then what rows are told apart by.
    """

    texts: list[str]
    labels: list[tuple[str, ...]]
    files: tuple[str, ...]
    file_of: np.ndarray  # (n,) int32
    lines: np.ndarray  # (n,) int64
    notes: tuple[str, ...] = ()  # what was guessed or left out, in words for the user
    items: list[Any] | None = None
    guessed: Mapping[str, Any] = field(default_factory=dict)  # by which other files of a run are read, too

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, row: int) -> str:
        """`tickets.csv, line 812`; a file that is one row whole has line 0, and its name says all."""
        if not self.lines[row]:
            return str(self.files[self.file_of[row]])
        return f"{self.files[self.file_of[row]]}, line {self.lines[row]}"

    def take(self, index: Sequence[int] | np.ndarray) -> Rows:
        """The rows at these positions, in this order."""
        chosen = np.asarray(index, dtype=np.int64)
        return Rows(
            [self.texts[i] for i in chosen],
            [self.labels[i] for i in chosen],
            self.files,
            self.file_of[chosen],
            self.lines[chosen],
            self.notes,
            None if self.items is None else [self.items[i] for i in chosen],
        )


NO_ROWS = Rows([], [], (), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))


class Kept(Protocol):
    """What a model's frozen layers made of rows, kept beside their tokens (engine/trunk.py)."""

    @property
    def pooled(self) -> bool: ...  # one vector a row; else one a token
    def of(self, rows: np.ndarray) -> Tensor: ...  # (S, D) when pooled, else (T, D)
    def take(self, rows: np.ndarray) -> Kept: ...


@dataclass(frozen=True)
class Tokens:
    """Token ids of many rows, end to end: row i is `ids[starts[i]:starts[i + 1]]`, with special tokens."""

    ids: np.ndarray  # (total,) uint16 or int32, possibly memory-mapped
    starts: np.ndarray  # (n + 1,) int64
    cut: int = 0  # rows that were longer than the limit and lost their end
    parts: np.ndarray | None = None  # (n, Q) int64: a row is up to Q sequences, of these lengths; 0: none
    segments: np.ndarray | None = None  # (total,) uint8, token types
    kept: Kept | None = None  # for the model they were made with, and no other
    labels: np.ndarray | None = None  # (total,) int64, what each token's state is asked for; -100: nothing
    heads: np.ndarray | None = None  # (total,) uint8, 1 where a token begins a word

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64, tokens a row."""
        return np.diff(self.starts)

    def take(self, index: np.ndarray) -> Tokens:
        """The rows at these positions, copied end to end."""
        lengths = self.lengths[index]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        from_here = np.repeat(self.starts[:-1][index] - starts[:-1], lengths)
        places = np.arange(starts[-1]) + from_here
        parts = None if self.parts is None else self.parts[index]
        segments = None if self.segments is None else self.segments[places]
        kept = None if self.kept is None else self.kept.take(index)
        labels = None if self.labels is None else self.labels[places]
        heads = None if self.heads is None else self.heads[places]
        return Tokens(self.ids[places], starts, self.cut, parts, segments, kept, labels, heads)


@dataclass(frozen=True)
class Part:
    """One split, ready for batches. What is batched together are its sequences: one a row, or several windows
    of a long one, where `owners` says whose.

    `targets` belong to the task, first dimension the sequences (or the rows, where the task's own records are
    kept for scoring). `answers` are what an encoder-decoder is to say; `images` (n, C, H, W) what a model
    sees in place of ids. `marks` are what a task knows of each sequence beside labels: places in it that its
    head reads, or a label of the whole beside labels a token. `members`: of several tasks, each one's own
    part, in whose order the sequences follow; targets are then one array a member.
    """

    rows: Rows
    tokens: Tokens
    targets: np.ndarray
    weights: np.ndarray | None = None
    answers: Tokens | None = None
    images: np.ndarray | None = None
    owners: np.ndarray | None = None  # (n,) int64, the row of each sequence
    marks: np.ndarray | None = None  # (n, …) int64
    kind: int = 0  # which of several tasks it is for
    members: tuple[Part, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: np.ndarray) -> Part:
        """The sequences at these positions; only for parts of one sequence a row."""
        assert self.owners is None, "windows of rows are taken with their rows"
        own = lambda x: None if x is None else x[index]  # noqa: E731
        answers = None if self.answers is None else self.answers.take(index)
        return Part(
            self.rows.take(index),
            self.tokens.take(index),
            self.targets[index],
            own(self.weights),
            answers,
            own(self.images),
            marks=own(self.marks),
            kind=self.kind,
        )


@dataclass(frozen=True)
class Side:
    """What an encoder-decoder is to say of each sequence of a batch, packed."""

    ids: Tensor  # (U,) int64
    lengths: Tensor  # (S,) int64, on the CPU
    labels: Tensor | None = None  # (U,) int64, -100 where nothing is learned; the ids themselves when None


@dataclass(frozen=True)
class Batch:
    """One forward pass, packed: sequences lie end to end and no padding exists.

    `labels` belongs to the task: first dimension S (one a sequence) or T (one a token). `n_targets` is what
    the mean loss divides by (a sum of weights where targets are weighted). `rows` says which sequences of the
    part these are. Where a row is read as Q sequences (`Tokens.parts`), they follow one another: `lengths` is
    (S * Q,), or fewer where rows have unequal numbers of them, which `counts` says.
    """

    ids: Tensor  # (T,) int64
    lengths: Tensor  # (S,) int64, on the CPU
    labels: Tensor | None
    n_targets: float
    rows: tuple[int, ...]
    segments: Tensor | None = None  # (T,) int64, token types
    weights: Tensor | None = None  # like labels' first dimension; weights of the targets in the mean
    states: Tensor | None = None  # (T, D) what the model's frozen layers make of the ids, where it was kept
    vectors: Tensor | None = None  # (S, D) the same, pooled, where the whole trunk is frozen
    answer: Side | None = None
    images: Tensor | None = None  # (S, C, H, W); `ids` then only hold the places
    marks: Tensor | None = None  # (S, …) int64, what the task knows of each sequence beside labels
    counts: Tensor | None = None  # (S,) int64, on the CPU: sequences of each row, where they are not as many
    kind: int = 0  # which of several tasks it is for; below 0: none, its labels stand for nothing

    def ends(self) -> list[int]:
        """S + 1 places in `lengths`: row i's sequences are those from the i-th to the next."""
        n = max(1, len(self.rows))
        counts = [len(self.lengths) // n] * n if self.counts is None else self.counts.tolist()
        return [0, *accumulate(counts)]

    @property
    def n_tokens(self) -> int:
        return int(self.ids.shape[0]) + (0 if self.answer is None else int(self.answer.ids.shape[0]))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on a device; lengths stay on the CPU, where layouts are made."""
        move = lambda x: None if x is None else x.to(device, non_blocking=True)  # noqa: E731
        return replace(
            self,
            ids=self.ids.to(device, non_blocking=True),
            labels=move(self.labels),
            segments=move(self.segments),
            weights=move(self.weights),
            states=move(self.states),
            vectors=move(self.vectors),
            images=move(self.images),
            marks=move(self.marks),
            answer=None
            if self.answer is None
            else Side(self.answer.ids.to(device), self.answer.lengths, move(self.answer.labels)),
        )


@dataclass(frozen=True)
class Loss:
    """A loss: the mean over targets with its graph, its named parts as floats, and the task's outputs."""

    mean: Tensor  # ()
    parts: Mapping[str, float] = field(default_factory=dict)
    outputs: Tensor | None = None  # for classify (S, C) logits, fp32


@dataclass(frozen=True)
class Step:
    """What the loop yields after each optimizer step. Losses and norms are those before the update."""

    step: int  # 1-based: how many updates have been made
    loss: float
    parts: Mapping[str, float]
    lr: float
    grad_norm: float
    n_targets: float
    n_tokens: int
    n_rows: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """What an evaluation found. `values` are plain floats; `tables` and `curves` feed the report."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, bootstrap
    tables: dict[str, Any] = field(default_factory=dict)


LossFunction = Callable[[nn.Module, Batch], Loss]


class Stateful(Protocol):
    """Anything whose state an exact resume needs. Tensors and JSON values only."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Outset:
    """A run before its first step, as a technique is shown it.

    The model may be given modules of its own to train; a bundle keeps trunk and head alone. `train` are the
    train rows as the model reads them, `tokens` how many may be computed at once.
    open(name) -> a bundle (a run's best), or a bare base as one without task and labels; None: that which
    the run's base was taken from. read(source) -> the Part of rows without labels. outputs(bundle, rows) ->
    (n, C) what its head gives of rows that it reads for itself. each(model, part, compute) -> one item a
    sequence of what `compute(batch)` gives, without gradients. tell(sentence): for the user.
    """

    model: Any  # models.model.Model
    base: Any  # models.load.Base
    task: Any  # task.Task
    labels: Sequence[str]
    train: Part
    seed: int
    batch: int  # rows a step
    tokens: int
    grouped: bool  # steps are of rows of like length
    open: Callable[[str | None], Any]
    read: Callable[[str | list[str]], Part]
    outputs: Callable[[Any, Rows], Tensor]
    each: Callable[[nn.Module, Part, Callable[[Batch], Sequence[Any]]], list[Any]]
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Beside:
    """What a technique holds beside the model, for a forecast: bundles or bases by their names (None: that
    which the run's base was taken from), whether they read the rows of each step or all rows once before the
    first, and `more` rows that a step has of the technique, as a share of its own."""

    names: tuple[str | None, ...]
    each_step: bool
    more: float = 0.0


@dataclass(frozen=True)
class Technique:
    """All that one idea changes in a training step; each place may be empty (design, section 3).

    `begin` is called once before all others, when the model is made and its optimizer is not. `loss` receives
    the model, the batch and the loss so far and returns the new one. `backward` replaces how gradients are
    made: it gets the model, the batch and a function that computes the loss, must leave gradients of `share *
    loss.mean` added to the parameters, and returns the clean loss; at most one technique of a run may have
    it. `plan` is told the run's optimizer steps before the first. Inside `weights(model)` the model's weights
    are those to validate and save, such as an average; at most one technique of a run may have it, too.
    `beside`: what it holds beside the model.
    """

    name: str
    begin: Callable[[Outset], None] | None = None
    stream: Callable[[Iterator[list[Batch]]], Iterator[list[Batch]]] | None = None
    loss: Callable[[nn.Module, Batch, Loss], Loss] | None = None
    backward: Callable[[nn.Module, Batch, Callable[[Batch], Loss], float], Loss] | None = None
    edit_grads: Callable[[nn.Module], None] | None = None
    after_update: Callable[[nn.Module, int], None] | None = None
    finish: Callable[[nn.Module, Any], None] | None = None
    plan: Callable[[int], None] | None = None
    weights: Callable[[nn.Module], AbstractContextManager[None]] | None = None
    state: Stateful | None = None
    beside: Beside | None = None


@dataclass(frozen=True)
class Method:
    """How a model becomes trainable.

    `apply(trunk)` returns the trunk to train (perhaps wrapped) with `requires_grad` set; the task's head
    always trains.
    `saves` says what a bundle holds of the trunk: `full` (all weights), `changed` (only what was trained,
    over a referenced base), `added` (only what `apply` put in; opening the bundle calls it again) or `peft`
    (an adapter in peft's format). `keeps_start`: step 0 equals the base.
    `techniques(trunk, steps)` gives what the method itself changes in a training step, such as AdaLoRA's
    budget, planned over the run's optimizer steps; they come before the spec's.
    `virtual`: positions that the method takes of each sequence for itself.
    `lr`: the peak rate with AdamW, at a hidden size of 384; it goes with (384 / width) ** `by_width`.
    """

    name: str
    apply: Callable[[Any], nn.Module]
    lr: float
    saves: str
    by_width: float = 0.0
    keeps_start: bool = True
    techniques: Callable[[nn.Module, int], Sequence[Technique]] | None = None
    virtual: int = 0
