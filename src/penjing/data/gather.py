"""From a table to rows: texts as strings, labels as shared tuples, rows that lack one of them told."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penjing.data.conll import joined
from penjing.data.labels import chosen, is_missing, label_names
from penjing.data.table import Table
from penjing.errors import DataError

Labels = tuple[str, ...]
MakeLabels = Callable[[Sequence[Any], int], Labels | None]


@dataclass
class Found:
    """What has been read so far. `known` holds one tuple a distinct label set: a row costs a pointer."""

    texts: list[str] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    file_of: array[int] = field(default_factory=lambda: array("i"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    notes: list[str] = field(default_factory=list)
    known: dict[Labels, Labels] = field(default_factory=dict)
    apart: bool = False  # labels came as lists or columns: no cell holds several in one text
    n_dropped: int = 0


def gather(
    table: Table,
    found: Found,
    *,
    text_columns: Sequence[str],
    label_columns: Sequence[str],
    drop_empty: bool,
    labelled: bool,
    multi_label: bool,
) -> None:
    """Add the table's rows to `found`.

    Raises:
        DataError: a text or label is empty (unless `drop_empty`), or is of a type that cannot be one.
    """
    make = _label_maker(table, label_columns, found, multi_label=multi_label)
    n_texts, first_file = len(text_columns), len(found.files)
    found.files += table.files
    lacking: dict[str, list[tuple[int, int, Any]]] = {"text": [], "label": []}
    n_rows = 0
    for line, cells in table.rows([*text_columns, *label_columns]):
        file = first_file + (n_rows if table.file_a_row else 0)
        n_rows += 1
        body = text_of(cells[0], table, line) if n_texts == 1 else _several(cells[:n_texts], table, line)
        labels = make(cells[n_texts:], line)
        if labels is None and not labelled:
            labels = found.known.setdefault((), ())
        if not body:
            lacking["text"].append((file, line, cells[0]))
        elif labels is None:
            lacking["label"].append((file, line, cells[n_texts]))
        else:
            found.texts.append(body)
            found.labels.append(labels)
            found.file_of.append(file)
            found.lines.append(line)
    if drop_empty:
        found.n_dropped += sum(map(len, lacking.values()))
        found.notes += [
            f"{table.name}: {len(rows):,} of {n_rows:,} rows left out, their {kind} is empty"
            for kind, rows in lacking.items()
            if rows
        ]
    elif any(lacking.values()):
        raise _empty(found, lacking, n_rows, multi_label=multi_label)


def _empty(
    found: Found, lacking: dict[str, list[tuple[int, int, Any]]], n_rows: int, *, multi_label: bool
) -> DataError:
    kind = min((k for k, rows in lacking.items() if rows), key=lambda k: lacking[k][0][:2])
    other = {"text": "label", "label": "text"}[kind]
    file, line, value = lacking[kind][0]
    n, n_other = len(lacking[kind]), len(lacking[other])
    spelled = f" (`{value}`)" if isinstance(value, str) and value.strip() else ""
    rename = " If that is the name of a class, rename it." if spelled and kind == "label" else ""
    if multi_label and kind == "label":
        rename += " `[]` says that a row has no label."
    also = f", {n_other:,} more {'has' if n_other == 1 else 'have'} no {other}" if n_other else ""
    return DataError(
        f"{found.files[file]}, line {line}: the {kind} is empty{spelled}. {n:,} of {n_rows:,} rows "
        f"{'is' if n == 1 else 'are'} so{also}; fill {'it' if n + n_other == 1 else 'them'}, or pass "
        f"`drop_empty: true` to leave "
        f"{'it' if n + n_other == 1 else 'them'} out.{rename}"
    )


def text_of(cell: Any, table: Table, line: int) -> str:
    """A cell as a text; empty where it is missing.

    Raises:
        DataError: it is of a type that is none.
    """
    if is_missing(cell, typed=table.typed):
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list) and all(isinstance(part, str) for part in cell):
        return joined(cell)
    if isinstance(cell, int | float):
        return str(cell)
    raise DataError(
        f"{table.name}, line {line}: the text is a {type(cell).__name__}: {str(cell)[:60]}. "
        f"Name a column of strings with `text:`. Columns: {', '.join(table.columns[:20])}."
    )


def _several(cells: Sequence[Any], table: Table, line: int) -> str:
    return "\n".join(part for part in (text_of(cell, table, line) for cell in cells) if part)


def _label_maker(table: Table, columns: Sequence[str], found: Found, *, multi_label: bool) -> MakeLabels:
    """A function from label cells and line to one shared tuple; None where the label is empty."""
    known = found.known
    if len(columns) > 1:
        if not multi_label:
            raise DataError(
                f"{table.name}: `label: {'+'.join(columns)}` names {len(columns)} columns; a row has one "
                f"label. Name "
                f"one column, or say that rows have several with `task: {{classify: {{multi_label: true}}}}`."
            )
        found.apart = True
        return lambda cells, line: _of_columns(cells, columns, table, line, known)
    if not columns:
        return lambda cells, line: None
    names, typed = table.names.get(columns[0]), table.typed
    seen: dict[Any, Labels | None] = {}

    def make(cells: Sequence[Any], line: int) -> Labels | None:
        value = cells[0]
        if isinstance(value, dict):
            raise DataError(
                f"{table.name}, line {line}: the label in `{columns[0]}` is an object: {str(value)[:60]}. A "
                f"name, a "
                f"number or a list of names was wanted. Name another column with `label:`."
            )
        if isinstance(value, list):
            _refuse_spans(value, table, columns[0], line)
            found.apart = True
            labels = label_names(value, names=names, typed=typed)
            return known.setdefault(labels, labels) if labels or (multi_label and not value) else None
        key = type(value), value  # 1 and True are equal, and two labels
        if key not in seen:
            labels = label_names(value, names=names, typed=typed)
            seen[key] = known.setdefault(labels, labels) if labels else None
        return seen[key]

    return make


def _refuse_spans(value: list[Any], table: Table, column: str, line: int) -> None:
    """Raises DataError where a list holds no names but places in the text."""
    if any(isinstance(one, dict | list) for one in value):
        raise DataError(
            f"{table.name}, line {line}: `{column}` holds {str(value)[:60]}; the name of a label was wanted. "
            "If these are entities of the text, say `task: tag`; else name another column with `label:`."
        )


def _of_columns(
    cells: Sequence[Any], columns: Sequence[str], table: Table, line: int, known: dict[Labels, Labels]
) -> Labels:
    labels = chosen(cells, columns)
    if labels is None:
        raise DataError(
            f"{table.name}, line {line}: columns {', '.join(columns)} were to hold 0 or 1, one column a "
            f"label; found "
            f"{', '.join(map(str, cells))[:60]}. Name only such columns with `label:`."
        )
    return known.setdefault(labels, labels)
