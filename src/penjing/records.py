"""The small frozen records that travel between functions (design, section 2).

Shape suffixes: S sequences, T tokens, C classes, D width. Importing this file imports torch; `spec`, `plugin`
and `errors` do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rows:
    """Rows as read: texts, their labels, and where each stands, so that any complaint can name file and line.

    `labels` holds one tuple of label names a row (one name when single-label, empty when unlabelled).
    `files[file_of[i]]`, line `lines[i]` (1-based) is the origin of row i.
    """

    texts: list[str]
    labels: list[tuple[str, ...]]
    files: tuple[str, ...]
    file_of: np.ndarray  # (n,) int32
    lines: np.ndarray  # (n,) int64
    notes: tuple[str, ...] = ()  # what was guessed or left out, in words for the user

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, row: int) -> str:
        """`tickets.csv, line 812`."""
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
        )


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
    parts: np.ndarray | None = None  # (n, Q) int64: each row is read as Q sequences of these lengths
    segments: np.ndarray | None = None  # (total,) uint8, token types
    kept: Kept | None = None  # for the model they were made with, and no other

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
        return Tokens(self.ids[places], starts, self.cut, parts, segments, kept)


@dataclass(frozen=True)
class Batch:
    """One forward pass, packed: sequences lie end to end and no padding exists.

    `labels` belongs to the task: first dimension S (one a sequence) or T (one a token). `n_targets` is what
    the mean loss divides by (a sum of weights where targets are weighted). `rows` says which rows these are.
    Where a row is read as Q sequences (`Tokens.parts`), they follow one another: `lengths` is (S * Q,).
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

    @property
    def n_tokens(self) -> int:
        return int(self.ids.shape[0])

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
Over = Callable[[Tokens, Callable[[Batch], Tensor]], Tensor]
Fit = Callable[[nn.Module, Over, Tokens, np.ndarray], None]


class Stateful(Protocol):
    """Anything whose state an exact resume needs. Tensors and JSON values only."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Technique:
    """All that one idea changes in a training step; each place may be empty (design, section 3).

    `loss` receives the model, the batch and the loss so far and returns the new one. `backward` replaces how
    gradients are made: it gets the model, the batch and a function that computes the loss, must leave
    gradients of `share * loss.mean` added to the parameters, and returns the clean loss; at most one
    technique of a run may have it. `plan` is told the run's optimizer steps before the first. Inside
    `weights(model)` the model's weights are those to validate and save, such as an average; at most one
    technique of a run may have it, too.
    """

    name: str
    stream: Callable[[Iterator[list[Batch]]], Iterator[list[Batch]]] | None = None
    loss: Callable[[nn.Module, Batch, Loss], Loss] | None = None
    backward: Callable[[nn.Module, Batch, Callable[[Batch], Loss], float], Loss] | None = None
    edit_grads: Callable[[nn.Module], None] | None = None
    after_update: Callable[[nn.Module, int], None] | None = None
    finish: Callable[[nn.Module, Any], None] | None = None
    plan: Callable[[int], None] | None = None
    weights: Callable[[nn.Module], AbstractContextManager[None]] | None = None
    state: Stateful | None = None


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
    """

    name: str
    apply: Callable[[Any], nn.Module]
    lr: float
    saves: str
    keeps_start: bool = True
    techniques: Callable[[nn.Module, int], Sequence[Technique]] | None = None
    virtual: int = 0


@dataclass(frozen=True)
class Task:
    """What a model is asked to do: rows to targets to loss to predictions to scores, and which score picks
    the best.

    label_names(rows) -> names in order.
    encode(rows, names) -> targets, first dimension the rows.
    weigh(targets, names) -> weights like the targets' first dimension, or None.
    head(width, names, pooling, dense) -> module.
    loss(model, batch) -> Loss with outputs.
    probabilities(outputs) -> (S, C).
    tune(probabilities, targets) -> what is chosen on validation rows (thresholds).
    score(probabilities, targets, names, chosen, seed) -> Scores.
    answers(probabilities, names, chosen) -> one dict a row.
    decide(probabilities, chosen), marks(targets, n_classes) -> (S, C) bool: what is answered, what is true.
    baseline(texts, targets, n_classes, seed) -> function from texts to probabilities; where it left something
    out, its `notes` say so.

    Some tasks fill more places:
    draw(rows, valid, names, share, seed) -> train rows, validation rows and notes, where not all rows are
    taken or others are added; `valid` are those that the spec names, `share` is what else it would hold out.
    bind(base, names, weights) -> the same task for one base, where head and reading depend on it; `settled`
    are the settings that this decided (they go on the card), `notes` say so. Without `weights` the head has
    shapes only. read(texts, max_length) -> Tokens, where texts are not read as they are. fit(model, over,
    tokens, targets): solve for the head on the train rows, before each validation; `over(tokens, compute)`
    gives `compute(batch)` of all rows, in order. order(targets, batch, seed, epoch) -> rows of each step,
    where chance and length do not decide. Such a step is one forward pass, as its loss compares rows with
    each other. learns: without it a run makes no steps.
    """

    name: str
    label_names: Callable[[Rows], list[str]]
    encode: Callable[[Rows, list[str]], np.ndarray]
    weigh: Callable[[np.ndarray, list[str]], np.ndarray | None]
    head: Callable[..., nn.Module]
    loss: LossFunction
    probabilities: Callable[[Tensor], np.ndarray]
    tune: Callable[[np.ndarray, np.ndarray], dict[str, Any]]
    score: Callable[..., Scores]
    answers: Callable[..., list[dict[str, Any]]]
    decide: Callable[[np.ndarray, dict[str, Any]], np.ndarray]
    marks: Callable[[np.ndarray, int], np.ndarray]
    baseline: Callable[..., Callable[[Sequence[str]], np.ndarray]]
    best: str  # the score that picks the best, higher is better
    multi_label: bool = False
    draw: Callable[..., tuple[Rows, Rows, tuple[str, ...]]] | None = None
    bind: Callable[..., Task] | None = None
    settled: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    read: Callable[[Sequence[str], int], Tokens] | None = None
    fit: Fit | None = None
    order: Callable[[np.ndarray, int, int, int], list[np.ndarray]] | None = None
    learns: bool = True
