"""From rows to parts: what batches are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from penjing.data.tokenize import tokenize
from penjing.errors import DataError, NotSupported, SpecError
from penjing.models.load import Base
from penjing.records import Part, Rows
from penjing.task import Task


def part_of(
    task: Task,
    base: Base,
    rows: Rows,
    names: list[str],
    max_length: int,
    *,
    labelled: bool = True,
    weigh: bool = False,
    cache: bool = False,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Part:
    """Tokens and targets of rows, as the task reads them. Without `labelled`, targets stand for nothing."""
    if task.part:
        part = task.part(base, rows, names, max_length, labelled=labelled)
        assert isinstance(part, Part)
        for note in part.rows.notes[len(rows.notes) :]:  # what reading them as tokens showed
            if tell:
                tell(note)
        weights = task.weigh(part.targets, names) if weigh and labelled and part.weights is None else None
        return part if weights is None else replace(part, weights=weights)
    if task.read:
        tokens = task.read(rows.texts, max_length)
    else:
        tokens = tokenize(
            base.tokenizer, rows.texts, max_length=max_length, cache=cache, progress=progress, tell=tell
        )
    if not labelled:
        return Part(rows, tokens, np.zeros(len(rows), dtype=np.int64))
    targets = task.encode(rows, names)
    return Part(rows, tokens, targets, task.weigh(targets, names) if weigh else None)


def rows_of(texts: Sequence[Any]) -> Rows:
    """Texts that somebody gives by hand as rows.

    Raises:
        DataError: one is not a text.
    """
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"`predict` takes a list of texts; item {i + 1} of {len(texts)} is {type(text).__name__} "
                f"{str(text)[:60]!r}. Make it a string."
            )
    n = len(texts)
    return Rows(list(texts), [()] * n, ("the texts given",), np.zeros(n, np.int32), np.arange(1, n + 1))


def formed(task: Task, form: Any) -> Task:
    """A bound task whose answers have a form (models/forms.py).

    Raises:
        NotSupported: its answers are no texts. SpecError: the form cannot be kept to.
    """
    if task.formed is None:
        raise NotSupported(
            f"Answers of a given form were wanted; `{task.name}` answers by no text that its model says. "
            "Take a bundle of `generate`, `translate`, `summarize` or `chat`, or leave the form out."
        )
    return task.formed(form)


def refuse_unseen(task: Task, base: Base) -> None:
    """A task of images needs a base that reads them, one of texts a base that reads those.

    Raises:
        SpecError: it is the other kind.
    """
    if task.sees != (base.way.sight is not None):
        theirs, ours = ("images", "texts") if task.sees else ("texts", "images")
        advice = "Take a ViT: `base: vit-tiny`" if task.sees else "Take `task: see`, or a base of texts"
        raise SpecError(f"`task: {task.name}` reads {theirs}; the base `{base.name}` reads {ours}. {advice}.")
