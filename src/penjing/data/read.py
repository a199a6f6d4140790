"""Rows from wherever they are: `read` is the one door. Formats are told apart in `sources`, columns in `columns`."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import choose
from penjing.data.conll import joined
from penjing.data.labels import chosen, find_separator, is_missing, label_names, split_label
from penjing.data.sources import tables
from penjing.data.table import Table
from penjing.errors import DataError
from penjing.records import Rows

Labels = tuple[str, ...]


def read(
    source: str | Path | Sequence[str | Path],
    *,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
    labelled: bool = True,
    multi_label: bool = False,
) -> Rows:
    """The rows of a file, folder, glob, `hf:name:config:split` or a list of these, in order.

    CSV, TSV, JSON, JSON lines, Parquet, CoNLL, fastText, plain text, a folder with a sub-folder a class, a folder that
    `datasets` saved; also packed (.gz, .bz2, .xz, a zip of one file). `data.json#test` takes one list of several.

    Args:
        text, label: column names, `a+b` for several: texts are joined by a line end; label columns of 0 and 1 name the
            labels of a row. Guessed, and told in `notes`, when not given.
        delimiter: what stands between the labels of one cell; found out when `multi_label`.
        drop_empty: leave out rows without text or label, and count them in `notes`.
        labelled: without it, rows may have no label column and no label.

    Raises:
        DataError: what was asked for is not there, or rows cannot be used as they are; the text names file and line.
    """
    wanted = [name for given in (text, label) if given for name in (given, *given.split("+"))]
    found = _Found()
    for table in tables(source, encoding=encoding, wanted=wanted):
        texts, labels, notes = choose(table, text=text, label=label, labelled=labelled)
        found.notes += [*table.notes, *notes]
        make = _label_maker(table, labels, found.known, labelled=labelled, multi_label=multi_label)
        _gather(table, texts, labels, make, found, drop_empty=drop_empty, may_lack=not labelled)
    if not found.texts:
        raise DataError(
            f"{source}: all {found.n_dropped:,} rows lack text or label, and `drop_empty` left them out. Fill some."
        )
    if delimiter is not None or multi_label:
        _split_labels(found, delimiter)
    file_of = np.frombuffer(found.file_of, dtype=np.int32)
    lines = np.frombuffer(found.lines, dtype=np.int64)
    return Rows(found.texts, found.labels, tuple(found.files), file_of, lines, tuple(_merged(found.notes)))


@dataclass
class _Found:
    """What has been read so far. `known` holds one tuple object a distinct label set, so that a row costs a pointer."""

    texts: list[str] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    file_of: array[int] = field(default_factory=lambda: array("i"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    notes: list[str] = field(default_factory=list)
    known: dict[Labels, Labels] = field(default_factory=dict)
    n_dropped: int = 0


def _label_maker(
    table: Table, columns: list[str], known: dict[Labels, Labels], *, labelled: bool, multi_label: bool
) -> Callable[[Sequence[Any]], Labels | None]:
    """A function from label cells to one shared tuple; None where the label is missing."""
    if len(columns) > 1:
        if not multi_label:
            raise DataError(
                f"{table.name}: `label: {'+'.join(columns)}` names {len(columns)} columns, and a row has one label. Name one "
                f"column, or say that rows have several labels with `task: {{classify: {{multi_label: true}}}}`."
            )
        return lambda cells: _shared(chosen(cells, columns), known)
    if not columns:
        return lambda cells: ()
    names, typed = table.names.get(columns[0]), table.typed
    seen: dict[Any, Labels | None] = {}

    def make(cells: Sequence[Any]) -> Labels | None:
        value = cells[0]
        if isinstance(value, list):
            labels = label_names(value, names=names, typed=typed)
            return _shared(labels, known) if labels or (multi_label and value == []) else None
        if isinstance(value, dict):
            return None
        if value not in seen:
            seen[value] = _shared(label_names(value, names=names, typed=typed) or None, known)
        return seen[value]

    return make


def _shared(labels: Labels | None, known: dict[Labels, Labels]) -> Labels | None:
    return None if labels is None else known.setdefault(labels, labels)


def _gather(
    table: Table, text_columns: list[str], label_columns: list[str], make: Callable[[Sequence[Any]], Labels | None], found: _Found,
    *, drop_empty: bool, may_lack: bool,
) -> None:  # fmt: skip
    n_texts = len(text_columns)
    first_file = len(found.files)
    found.files += table.files
    lacking: dict[str, list[tuple[int, int, Any]]] = {"text": [], "label": []}
    n_rows = 0
    for line, cells in table.rows([*text_columns, *label_columns]):
        file = first_file + (n_rows if table.file_a_row else 0)
        n_rows += 1
        body = _text(cells[0], table, line) if n_texts == 1 else _joined(cells[:n_texts], table, line)
        labels = make(cells[n_texts:])
        if labels is None and may_lack:
            labels = found.known.setdefault((), ())
        if not body or labels is None:
            kind = "label" if body else "text"
            lacking[kind].append((file, line, cells[n_texts] if body else cells[0]))
            continue
        found.texts.append(body)
        found.labels.append(labels)
        found.file_of.append(file)
        found.lines.append(line)
    _tell_lacking(table, found, lacking, n_rows, drop_empty=drop_empty)


def _text(cell: Any, table: Table, line: int) -> str:
    if isinstance(cell, str) and not is_missing(cell, typed=table.typed):
        return cell
    if is_missing(cell, typed=table.typed):
        return ""
    if isinstance(cell, list) and all(isinstance(part, str) for part in cell):
        return joined(cell)
    if isinstance(cell, int | float):
        return str(cell)
    raise DataError(
        f"{table.name}, line {line}: the text is a {type(cell).__name__}: {str(cell)[:60]}. Name a column of strings with `text:`."
    )


def _joined(cells: Sequence[Any], table: Table, line: int) -> str:
    return "\n".join(part for part in (_text(cell, table, line) for cell in cells) if part)


def _tell_lacking(
    table: Table,
    found: _Found,
    lacking: dict[str, list[tuple[int, int, Any]]],
    n_rows: int,
    *,
    drop_empty: bool,
) -> None:
    for kind, rows in lacking.items():
        if not rows:
            continue
        if drop_empty:
            found.n_dropped += len(rows)
            found.notes.append(
                f"{table.name}: {len(rows):,} of {n_rows:,} rows left out, their {kind} is empty"
            )
            continue
        file, line, value = rows[0]
        if isinstance(value, dict) or (
            kind == "label"
            and isinstance(value, str)
            and value.strip() not in ("", "nan", "NaN", "None", "null", "NULL", "<NA>")
        ):
            raise DataError(
                f"{found.files[file]}, line {line}: the label is {str(value)[:60]!r}, and a name, a number or a list of names was "
                f"wanted. {len(rows):,} of {n_rows:,} rows are so. Name another column with `label:`."
            )
        other = {"text": "label", "label": "text"}[kind]
        also = f", {len(lacking[other]):,} more have no {other}" if lacking[other] else ""
        spelled = f" (`{value}`)" if isinstance(value, str) and value.strip() else ""
        hint = " If that is the name of a class, rename it." if spelled and kind == "label" else ""
        raise DataError(
            f"{found.files[file]}, line {line}: the {kind} is empty{spelled}. {len(rows):,} of {n_rows:,} rows are so{also}; fill them, or "
            f"pass `drop_empty: true` to leave them out.{hint}"
        )


def _split_labels(found: _Found, delimiter: str | None) -> None:
    """Take cells apart that hold several labels, one split a distinct cell."""
    whole = {labels[0] for labels in found.known if len(labels) == 1}
    sign = delimiter
    if sign is None and not any(len(labels) > 1 for labels in found.known):
        sign = find_separator(sorted(cell for cell in whole if not cell.startswith("[")))
        if sign is not None:
            found.notes.append(
                f"labels of one cell are split at `{sign}` (found out; say `delimiter:` to be sure)"
            )
    known: dict[Labels, Labels] = {}
    new = {}
    for labels in found.known:
        parts = tuple(dict.fromkeys(part for cell in labels for part in split_label(cell, sign)))
        new[labels] = known.setdefault(parts, parts)
    found.labels[:] = [new[labels] for labels in found.labels]


def _merged(notes: list[str]) -> list[str]:
    """Notes that say the same of several files become one."""
    said: dict[str, list[str]] = {}
    for note in notes:
        name, colon, words = note.partition(": ")
        said.setdefault(words if colon else note, []).append(name if colon else "")
    for words, names in said.items():
        if not names[0]:
            continue
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {words}" if names[0] else words
        for words, names in said.items()
    ]
