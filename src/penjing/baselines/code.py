"""A cheap baseline of code: the line, or the solution, that followed the nearest lines of the train rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penjing.baselines.said import nearest
from penjing.coding import Answer
from penjing.data.code import Problem
from penjing.models.completing import hole_of
from penjing.records import Rows
from penjing.task import Fitted


def what_followed(
    rows: Rows, targets: np.ndarray, names: list[str], seed: int
) -> Callable[[Rows], list[Answer]]:
    """What followed the nearest lines of the train rows."""
    pairs = [pair for one in targets for pair in _lines(one)]
    says, note = nearest([a for a, _ in pairs], [b for _, b in pairs], seed)

    def predict(rows: Rows) -> list[Answer]:
        asked = [hole_of(one, True).before for i, one in enumerate(rows.items or ())]
        return [Answer((text,), True) for text in says([_tail(before) for before in asked])]

    return Fitted(predict, (note.replace("train source", "lines before"),))


def _tail(before: str) -> str:
    return "\n".join(before.rstrip("\n").split("\n")[-3:]) or " "


def _lines(one: Problem) -> list[tuple[str, str]]:
    if not one.whole:
        return [(_tail(one.prompt), one.completion or "")]
    lines = (one.completion or "").split("\n")
    return [
        ("\n".join(lines[max(0, i - 3) : i]) or " ", line) for i, line in enumerate(lines) if line.strip()
    ]
