"""Rows of several fields: a task says which columns they are (`Columns`), and each row keeps its cells apart.

`text_pairs`, `numbers` and `choices` say which columns are meant.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import simple
from penjing.data.gather import text_of
from penjing.data.labels import is_missing, label_names
from penjing.data.lists import literal
from penjing.data.sources import tables
from penjing.data.table import Table, opened
from penjing.errors import DataError
from penjing.plural import counted
from penjing.records import Rows

Cell = str | tuple[str, ...]
GOLD, UNDECIDED = "gold_label", "-"


@dataclass(frozen=True)
class Columns:
    """Which columns are a row's texts and which its labels, in order, and what was guessed.

    lists: texts that may be lists of texts. optional: texts that may be empty.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lists: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


@dataclass
class _Found:
    items: list[tuple[Cell, ...]] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    file_of: array[int] = field(default_factory=lambda: array("i"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    notes: list[str] = field(default_factory=list)
    n_rows: int = 0
    n_undecided: int = 0
    lacking: list[tuple[int, int, str]] = field(default_factory=list)  # file, line, what is empty


def read_fields(
    source: str | Path | Sequence[str | Path],
    find: Callable[[Table], Columns],
    *,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    drop_empty: bool = False,
    labelled: bool = True,
) -> Rows:
    """The rows of a source, in order, with their cells in `items`: a text, or a tuple of texts, a column.

    `texts` are the cells joined by line ends, `labels` one name a label column.

    Raises:
        DataError: what `find` refuses; a text or label is empty (unless `drop_empty`); a cell is no text.
    """
    wanted = [name for given in (text, label) if given for name in (given, *given.split("+"))]
    found = _Found()
    for table in map(opened, tables(source, encoding=encoding, wanted=wanted)):
        columns = find(table)
        found.notes += [*table.notes, *columns.notes]
        _gather(table, columns, found, labelled=labelled)
    if found.n_undecided:
        found.notes.append(
            f"{found.n_undecided:,} of {counted(found.n_rows, 'row')} left out, unlabelled: `{GOLD}` is "
            f"`{UNDECIDED}`, as people did not agree"
        )
    if found.lacking and not drop_empty:
        raise _empty(found)
    if found.lacking:
        found.notes.append(
            f"{len(found.lacking):,} of {found.n_rows:,} rows left out, one of their fields is empty"
        )
    if not found.items:
        raise DataError(
            f"{source}: all {found.n_rows:,} rows lack a text or a label, and are left out. Fill some."
        )
    return Rows(
        ["\n".join(each for cell in item for each in flat(cell) if each) for item in found.items],
        found.labels,
        tuple(found.files),
        np.frombuffer(found.file_of, dtype=np.int32),
        np.frombuffer(found.lines, dtype=np.int64),
        tuple(dict.fromkeys(found.notes)),
        list(found.items),
    )


def flat(cell: Cell) -> tuple[str, ...]:
    """The texts of a cell."""
    return (cell,) if isinstance(cell, str) else cell


def given_rows(items: Sequence[Any], texts: Sequence[str]) -> Rows:
    """Rows that somebody gives by hand, without labels."""
    n = len(items)
    files = ("the rows given",)
    return Rows(list(texts), [()] * n, files, np.zeros(n, np.int32), np.arange(1, n + 1), (), list(items))


def as_object(given: Any) -> Any:
    """What is given by hand; a string that is JSON is opened, one with tabs is taken apart."""
    if isinstance(given, str) and given.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(given)
        except ValueError:
            return given
    return given.split("\t") if isinstance(given, str) and "\t" in given else given


def _gather(table: Table, columns: Columns, found: _Found, *, labelled: bool) -> None:
    n_texts, first_file = len(columns.texts), len(found.files)
    found.files += table.files
    for n, (line, cells) in enumerate(table.rows([*columns.texts, *columns.labels])):
        file = first_file + (n if table.file_a_row else 0)
        found.n_rows += 1
        if labelled and any(map(_is_undecided, columns.labels, cells[n_texts:])):
            found.n_undecided += 1
            continue
        item = tuple(
            _cell(cell, table, line, lists=name in columns.lists)
            for name, cell in zip(columns.texts, cells[:n_texts], strict=True)
        )
        labels = tuple(
            name
            for column, cell in zip(columns.labels, cells[n_texts:], strict=True)
            for name in _labels(cell, table, column, line)
        )
        lack = next(
            (
                f"the text in `{name}`"
                for name, cell in zip(columns.texts, item, strict=True)
                if name not in columns.optional and not (cell and all(flat(cell)))
            ),
            "",
        )
        if not lack and labelled and len(labels) < len(columns.labels):
            lack = f"the label in `{'`, `'.join(columns.labels)}`"
        if lack:
            found.lacking.append((file, line, lack))
            continue
        found.items.append(item)
        found.labels.append(labels if len(labels) == len(columns.labels) else ())
        found.file_of.append(file)
        found.lines.append(line)


def _cell(cell: Any, table: Table, line: int, *, lists: bool) -> Cell:
    if lists:
        if isinstance(cell, str) and cell.strip()[:1] == "[":
            try:
                cell = literal(cell.strip())
            except (ValueError, SyntaxError):
                return text_of(cell, table, line).strip()
        if isinstance(cell, dict) and isinstance(cell.get("text"), list):  # ARC: {"text": […], "label": […]}
            cell = cell["text"]
        if isinstance(cell, list | tuple):
            return tuple(text_of(one, table, line).strip() for one in cell)
    return text_of(cell, table, line).strip()


def _is_undecided(column: str, cell: Any) -> bool:
    """Whether a label is that of SNLI and MultiNLI for rows without a majority."""
    return simple(column) == GOLD and isinstance(cell, str) and cell.strip() == UNDECIDED


def _labels(cell: Any, table: Table, column: str, line: int) -> tuple[str, ...]:
    if is_missing(cell, typed=table.typed):
        return ()
    if isinstance(cell, dict):
        raise DataError(
            f"{table.name}, line {line}: the label in `{column}` is an object: {str(cell)[:60]}. A name or a "
            f"number was wanted. Name another column with `label:`."
        )
    found = label_names(cell, names=table.names.get(column), typed=table.typed)
    if len(found) > 1:
        raise DataError(
            f"{table.name}, line {line}: one label was wanted in `{column}`; it holds {len(found)} "
            f"({', '.join(found)[:60]}). Keep one, or name another column with `label:`."
        )
    return found


def _empty(found: _Found) -> DataError:
    file, line, what = found.lacking[0]
    n = len(found.lacking)
    return DataError(
        f"{found.files[file]}, line {line}: {what} is empty. {n:,} of {found.n_rows:,} rows "
        f"{'lacks' if n == 1 else 'lack'} a text or a label; fill {'it' if n == 1 else 'them'}, or pass "
        f"`drop_empty: true` to leave {'it' if n == 1 else 'them'} out."
    )
