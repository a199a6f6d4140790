"""A request under way: what its task wants of the model, computed a few sequences at a time, beside others.

A task says what it wants by calling `each(part, compute)` in `infer` (task.Task). Here `infer` is called
with an `each` that notes the question and stops it; when all sequences are computed, `infer` is called
again and `each` gives the items. So any task can be interrupted between two passes, and none knows of it.

Legend: T tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.data.batches import lengths_of, packed
from penjing.data.parts import rows_of
from penjing.engine.vectors import vector_tokens
from penjing.records import Batch, Part
from penjing.serve.opened import Opened

Compute = Callable[[Batch], Sequence[Any] | Tensor]
SWIFT = 4000.0  # tokens a second, until it was measured


class _Pause(Exception):
    """A task has asked, and its answer is not there yet."""


class Job:
    """One request for one bundle. `verb` is predict or embed; `deadline` and `arrived` are
    `time.monotonic()`.

    `future` gets (answers, tokens read, seconds waited for the first pass).
    """

    def __init__(self, opened: Opened, verb: str, inputs: Sequence[Any], deadline: float, size: int) -> None:
        self.opened, self.verb, self.inputs = opened, verb, inputs
        self.arrived, self.deadline, self.size = time.monotonic(), deadline, size
        self.future: Future[tuple[list[Any], int, float]] = Future()
        self.cost_s = 0.0  # of the passes so far, its share
        self.began: float | None = None
        self.n_tokens = 0
        self._got: list[list[Any]] = []  # what `each` gave, call by call
        self.part: Part | None = None
        self._compute: Compute | None = None
        self._items: list[Any] = []
        self._read: Part | None = None
        self.left = np.zeros(0, dtype=np.int64)  # sequences that are not computed yet
        self.lengths = np.zeros(0, dtype=np.int64)

    @property
    def turn(self) -> float:
        """Who comes first: a request is taken the later, the more it has had. So one of a thousand texts does
        not hold up one of one text that came just behind it, and is not starved by many of them either."""
        return self.arrived + self.cost_s

    @property
    def n_left(self) -> int:
        """Tokens that are not computed yet."""
        return int(self.lengths[self.left].sum())

    def begin(self) -> None:
        """Read the inputs as tokens, up to the task's first question.

        Raises:
            DataError: not what the task takes.
        """
        bundle = self.opened.bundle
        if self.verb == "embed":
            rows = rows_of(self.inputs)
            longest = bundle.card["max_length"]
            tokens = vector_tokens(bundle.model, bundle.tokenizer, rows.texts, longest, who=bundle.task.name)
            self._read = Part(rows, tokens, np.zeros(len(rows), dtype=np.int64))
        else:
            self._read = bundle.part((bundle.task.ask or rows_of)(self.inputs), labelled=False)
        self.n_tokens = int(lengths_of(self._read).sum())
        self._ask()

    def batch(self, which: np.ndarray) -> Batch:
        """Some of the sequences that are left."""
        assert self.part is not None
        return packed(self.part, which)

    def take(self, which: np.ndarray, batch: Batch) -> None:
        """Let the task compute these sequences; where they were the last, go on to its next question."""
        assert self._compute is not None
        for i, item in zip(which, self._compute(batch), strict=True):
            self._items[i] = item
        done = np.zeros(len(self.lengths), dtype=bool)
        done[which] = True
        self.left = self.left[~done[self.left]]
        if not len(self.left):
            self._got.append(self._items)
            self._ask()

    def _ask(self) -> None:
        """Up to the next question that has sequences, or to the answers."""
        known = iter(self._got)

        def each(part: Part, compute: Compute) -> list[Any]:
            for items in known:
                return items
            if not len(part):
                return []
            self.part, self._compute = part, compute
            raise _Pause

        try:
            answers = self._answers(each)
        except _Pause:
            assert self.part is not None
            self.lengths = lengths_of(self.part)
            self.left = np.argsort(-self.lengths, kind="stable")
            self._items = [None] * len(self.part)
        else:
            self.part = None
            now = time.monotonic()
            waited = (self.began or now) - self.arrived
            if not self.future.done() and self.future.set_running_or_notify_cancel():
                self.future.set_result((answers, self.n_tokens, waited))

    def _answers(self, each: Callable[[Part, Compute], list[Any]]) -> list[Any]:
        bundle, part = self.opened.bundle, self._read
        assert part is not None
        model: Any = bundle.model
        if self.verb == "embed":

            def vectors(batch: Batch) -> Tensor:
                made: Tensor = model.head.embed(model.states(batch), batch.lengths)
                return made.float().cpu()

            return [vector.numpy() for vector in each(part, vectors)]
        if bundle.task.infer:
            found = bundle.task.infer(model, each, part)
        else:
            found = bundle.task.probabilities(
                torch.stack(each(part, lambda batch: model(batch).float().cpu()))
            )
        return bundle.task.answers(found, bundle.labels, bundle.card["chosen"])
