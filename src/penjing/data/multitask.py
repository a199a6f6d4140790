"""Rows of several tasks as one table: each row holds what it is to each task that reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.records import Rows

APART = "/"  # between a task's name and a label of it


@dataclass(frozen=True)
class Slot:
    """What a row is to one task: its labels there, and the task's own record of it."""

    labels: tuple[str, ...] = ()
    item: Any = None


def together(found: Mapping[str, Rows], *, shared: bool) -> Rows:
    """Rows of tasks, by the tasks' names, as one table, whose items are one Slot (or None) a task.

    `shared`: all of them read the same source; what stands in one place of a file is then one row, and where
    a task finds several rows in one place (the questions of an article), the tasks' first ones are one row,
    and so on. Labels are named by task, `intent/refund`, so that a split keeps the shares of each.
    """
    files: dict[str, int] = {}
    texts: list[str] = []
    labels: list[tuple[str, ...]] = []
    places: list[tuple[int, int]] = []
    slots: list[list[Slot | None]] = []
    known: dict[tuple[int, int, int], int] = {}
    for k, (name, rows) in enumerate(found.items()):
        seen = Counter[tuple[int, int]]()
        own = [files.setdefault(file, len(files)) for file in rows.files]
        for i in range(len(rows)):
            place = own[rows.file_of[i]], int(rows.lines[i])
            key = *place, seen[place]
            seen[place] += 1
            at = known.get(key, -1) if shared else -1
            if at < 0:
                at = len(texts)
                texts.append(rows.texts[i])
                labels.append(())
                places.append(place)
                slots.append([None] * len(found))
                known[key] = at
            slots[at][k] = Slot(rows.labels[i], None if rows.items is None else rows.items[i])
            labels[at] = (*labels[at], *(name + APART + label for label in rows.labels[i]))
    file_of, lines = (np.array([place[j] for place in places], dtype=np.int64) for j in (0, 1))
    notes = [f"{name}: {note}" for name, rows in found.items() for note in rows.notes]
    items = [tuple(row) for row in slots]
    return Rows(texts, labels, tuple(files), file_of.astype(np.int32), lines, tuple(notes), items)


def own_places(rows: Rows, number: int) -> np.ndarray:
    """Where the rows that the task of this number reads stand among all."""
    assert rows.items is not None
    return np.array([i for i, row in enumerate(rows.items) if row[number] is not None], dtype=np.int64)


def own_rows(rows: Rows, number: int) -> tuple[Rows, np.ndarray]:
    """The rows that the task of this number reads, as it reads them, and where they stand among all."""
    assert rows.items is not None
    there = own_places(rows, number)
    taken = rows.take(there)
    slots: list[Slot] = [rows.items[i][number] for i in there]
    items = [slot.item for slot in slots]
    plain = all(item is None for item in items)
    return (
        Rows(
            taken.texts,
            [slot.labels for slot in slots],
            taken.files,
            taken.file_of,
            taken.lines,
            (),
            None if plain else items,
        ),
        there,
    )


def own_names(names: Sequence[str], task: str) -> list[str]:
    """The labels of one task among those of all."""
    return [name[len(task) + 1 :] for name in names if name.startswith(task + APART)]


def shares(sizes: Sequence[int], temperature: float) -> np.ndarray:
    """(m,) each task's share of the steps: its rows to the power 1 / temperature, over their sum.

    1: by size. Larger: nearer to even, so that small sets are not drowned (Raffel et al. 2020, section
    3.5.2).
    """
    raised = np.asarray(sizes, dtype=np.float64) ** (1 / temperature)
    return np.asarray(raised / raised.sum())


def dealt(sizes: Sequence[int], parts: np.ndarray, *, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each step of one epoch, as places in all tasks' rows end to end; a step is one task's.

    As many steps as all rows fill are shared out by `parts`, at least one a task; each task goes on in its
    rows where its last epoch ended, in an order drawn anew for each pass over them.
    """
    n_steps, n_tasks = -(-sum(sizes) // batch), len(sizes)
    if n_steps < n_tasks:  # tiny sets: tasks take turns over the epochs
        turns = [divmod(step, n_tasks)[::-1] for step in range(epoch * n_steps, (epoch + 1) * n_steps)]
    else:
        counts = _shared_out(n_steps, parts)
        turns = [(k, epoch * n + i) for k, n in enumerate(counts) for i in range(n)]
    begins = np.concatenate([[0], np.cumsum(sizes)])
    steps = [begins[k] + _taken(sizes[k], min(batch, sizes[k]), turn, [seed, k]) for k, turn in turns]
    return [steps[i] for i in np.random.default_rng([seed, epoch]).permutation(len(steps))]


def _shared_out(n_steps: int, parts: np.ndarray) -> list[int]:
    """Whole steps by shares, one each at least: what is left over goes where most is wanting."""
    counts = np.maximum(np.floor(parts * n_steps).astype(int), 1)
    while counts.sum() != n_steps:
        more = 1 if counts.sum() < n_steps else -1
        wanting = np.where((counts > 1) | (more > 0), (parts * n_steps - counts) * more, -np.inf)
        counts[int(wanting.argmax())] += more
    return [int(count) for count in counts]


def _taken(size: int, width: int, turn: int, seed: list[int]) -> np.ndarray:
    """The rows of a task's step number `turn`: it goes through them again and again, each time anew."""
    passes, places = np.divmod(np.arange(turn * width, (turn + 1) * width), size)
    orders = {int(n): np.random.default_rng([*seed, int(n)]).permutation(size) for n in np.unique(passes)}
    return np.array([orders[int(n)][place] for n, place in zip(passes, places, strict=True)])
