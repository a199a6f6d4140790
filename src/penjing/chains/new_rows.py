"""What a round has to learn: rows of feedback and of files that no round has seen, the last word on each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.bundle import Bundle
from penjing.chains import rounds
from penjing.chains.update_spec import Update
from penjing.data.parts import rows_of
from penjing.errors import DataError
from penjing.jobs.prepare import rows_from
from penjing.plural import counted
from penjing.records import Rows
from penjing.serve.registry import Version
from penjing.serve.traffic import Kept, asked_of
from penjing.serve.traffic import opened as opened_traffic

NAME = "new"  # of the files that feedback is written to


def collect(asked: Update, live: Version, bundle: Bundle) -> tuple[Rows, int, list[str]]:
    """New rows, how far feedback was read, and what is to be told of them.

    Raises:
        DataError: the files of `new` cannot be read.
    """
    out = Path(asked.out)
    said, ended = rounds.cursor(out)
    lines: list[str] = []
    notes: list[str] = []
    if asked.traffic is not None:
        with opened_traffic(asked.traffic) as store:
            # Words on what was asked since then have later numbers, in the same store.
            since = store.rows(model=live.name, labelled=True, since=ended) if said else []
            other = any((one.said or 0) <= said for one in since)
            said = 0 if other else said
            kept = store.rows(model=live.name, labelled=True, after=said)
        kept.sort(key=lambda one: one.said or 0)
        said = max([said, *(one.said or 0 for one in kept)])
        lines, notes = _of_feedback(bundle, kept)
        if other:
            notes.append("the store is another one than in the round before: all of its feedback is read")
    rounds.write_lines(out, NAME, lines)
    parts = [rounds.read_rows(out, NAME, bundle)]
    if asked.new is not None:
        rows = rows_from(bundle.task, asked.new, text=asked.text, label=asked.label)
        fresh, seen = _unseen(asked, live, bundle, rows)
        parts.append(rows.take(np.array(fresh, dtype=np.int64)))
        notes += seen
    rows = rounds.joined(parts)
    latest = {key: i for i, key in enumerate(rounds.keys_of(bundle, rows))}
    if len(latest) < len(rows):
        are = counted(len(rows) - len(latest), "row was", "rows were")
        notes.append(f"{are} said again; the latest counts")
    return rows.take(np.array(sorted(latest.values()), dtype=np.int64)), said, notes


def _of_feedback(bundle: Bundle, kept: Sequence[Kept]) -> tuple[list[str], list[str]]:
    """A line a row of feedback that the task can learn from, and what is to be told of the others."""
    lines, bad = [], []
    for one in kept:
        try:
            lines.append(line_of(bundle, asked_of(one), one.truth))
        except DataError as error:
            bad.append(f"{one.id}: {error}")
    if not bad:
        return lines, []
    are = counted(len(bad), "row of feedback", "rows of feedback")
    return lines, [f"{are} cannot be learned and left out, such as {bad[0]}"]


def line_of(bundle: Bundle, asked: Any, truth: Any) -> str:
    """What was asked and what would have been right, as a line of a file of rows.

    Raises:
        DataError: the task takes no such input, or no such truth.
    """
    rows = (bundle.task.ask or rows_of)([asked])
    if not rows.texts[0].strip():
        raise DataError("A text was wanted; it is empty. Say nothing of it.")
    teach = rounds.teach_of(bundle)
    return rounds.line(teach.row(teach.asked(rows)[0], truth, bundle.labels))


def _unseen(asked: Update, live: Version, bundle: Bundle, rows: Rows) -> tuple[list[int], list[str]]:
    """Rows of files that the live version has not learned, none where all were refused, or rolled back, as
    they are; and what is to be told of the others."""
    out = Path(asked.out)

    def lines_of(number: int) -> set[str]:
        names = ("new_train", "new_test")
        return {line for name in names for line in rounds.read_lines(out / str(number), name)}

    stand = rounds.standing_rounds(out, live.number)
    learned = {
        key
        for number in stand
        for name in ("new_train", "new_test")
        for key in rounds.keys_of(bundle, rounds.read_rows(out / str(number), name, bundle))
    }
    keys, lines = rounds.keys_of(bundle, rows), rounds.lines_of(bundle, rows)
    fresh = [i for i, key in enumerate(keys) if key not in learned]
    fell = [line for line in rounds.history(out) if line["round"] not in stand]
    now = {lines[i] for i in fresh}
    notes = []
    if len(fresh) < len(rows):
        notes.append(f"{counted(len(rows) - len(fresh), 'row')} of `new` had a round before")
    before = next((line for line in fell if now and now <= lines_of(line["round"])), None)
    if before is None:
        return fresh, notes
    why = "were refused in" if before["what"] == "refused" else "went live and were rolled back with"
    notes.append(f"{counted(len(fresh), 'row')} of `new` {why} round {before['round']}, as they are")
    return [], notes
