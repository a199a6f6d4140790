"""What every format becomes on the way to rows: named columns, and their cells one row at a time.

Nothing is held: `rows` reads the file anew each time, so a million rows cost no more than the columns that
are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Cells = Iterator[tuple[int, Sequence[Any]]]


@dataclass(frozen=True)
class Table:
    """One source of rows.

    `rows(names)` yields for each row its first physical line (1-based) and the cells of these columns, in
    this order. `typed` says that cells have types of their own, so that the string "None" is a string.
    `names` gives the label names of integer columns. With `file_a_row`, row i is the whole of `files[i]`.
    `lists` are further columns, of a list a cell, which only tasks that tag tokens ask for: `tokens`, `tags`.
    """

    name: str
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Cells]
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    typed: bool = False
    headed: bool = True
    file_a_row: bool = False
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lists: tuple[str, ...] = ()


def sample(table: Table, *, n_rows: int = 2000) -> list[Sequence[Any]]:
    """At most this many rows, evenly from the whole table: a file sorted by label shows all its labels."""
    kept: list[Sequence[Any]] = []
    stride = 1
    for i, (_, cells) in enumerate(table.rows(table.columns)):
        if i % stride == 0:
            kept.append(cells)
            if len(kept) >= 2 * n_rows:
                kept = kept[::2]
                stride *= 2
    return kept[:: max(1, len(kept) // n_rows)] if len(kept) > n_rows else kept
