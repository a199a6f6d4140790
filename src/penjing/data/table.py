"""What every format becomes on the way to rows: named columns, and their cells one row at a time.

Nothing is held: `rows` reads the file anew each time, so a million rows cost no more than the columns that
are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Cells = Iterator[tuple[int, Sequence[Any]]]


@dataclass(frozen=True)
class Table:
    """One source of rows.

    `rows(names)` yields for each row its first physical line (1-based) and the cells of these columns, in
    this order. `typed` says that cells have types of their own, so that the string "None" is a string.
    `names` gives the label names of integer columns. With `file_a_row`, row i is the whole of `files[i]`.
    `lists` are further columns, of a list a cell, which only tasks that tag tokens ask for: `tokens`, `tags`.
    `unlabelled` are numbers of rows, from 0, that nobody labelled: that is not to say that they hold nothing.
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
    unlabelled: frozenset[int] = frozenset()


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


MOST_INNER = 32  # more names than this in the objects of a column are data, not fields


def opened(table: Table) -> Table:
    """The table with the fields of nested objects as columns of their own, named by their path
    (`payload.text`), in the place of the column that holds them; itself where there are none.

    Fields are texts, numbers and truth values; a column whose objects hold none, or ever other names, stays.
    """
    if not table.typed or not table.columns:
        return table
    cells = [row for _, row in itertools.islice(table.rows(table.columns), 200)]
    paths: dict[str, dict[str, None]] = {}
    for i, name in enumerate(table.columns):
        found = dict.fromkeys(path for row in cells for path in _paths(row[i], name))
        if 0 < len(found) <= MOST_INNER:
            paths[name] = found
    if not paths:
        return table
    columns = tuple(path for name in table.columns for path in paths.get(name, (name,)))
    outer = {path: name for name, inner in paths.items() for path in inner}

    def rows(names: Sequence[str]) -> Cells:
        held = list(dict.fromkeys(outer.get(name, name) for name in names))
        at = [(held.index(outer.get(name, name)), name) for name in names]
        for line, row in table.rows(held):
            yield line, [_inside(row[i], name, held[i]) for i, name in at]

    return replace(table, columns=columns, rows=rows)


def _paths(cell: Any, name: str) -> Iterator[str]:
    """The paths of the fields of an object; none of any other cell."""
    if isinstance(cell, dict):
        for key, inner in cell.items():
            if isinstance(inner, dict):
                yield from _paths(inner, f"{name}.{key}")
            elif isinstance(inner, str | int | float):
                yield f"{name}.{key}"


def _inside(cell: Any, path: str, outer: str) -> Any:
    """What stands at a path that begins with `outer`, whose cell is given."""
    if path == outer:
        return cell
    rest = path[len(outer) + 1 :]
    while rest and isinstance(cell, dict):
        # A key may hold a dot itself, so the longest that fits is taken.
        key = max((k for k in cell if rest == k or rest.startswith(f"{k}.")), key=len, default=None)
        if key is None:
            return None
        cell, rest = cell[key], rest[len(key) + 1 :]
    return None if rest else cell
