"""Lists that a CSV file holds as text, as pandas writes them: `['EU', 'rejects']`, `[{"start": 0, …}]`."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from penjing.data.schemes import OUTSIDE, taken_apart
from penjing.data.table import Cells, Table, sample
from penjing.errors import DataError

_ARRAY = re.compile(r"""['"]\s+['"]""")  # numpy's ['EU' 'rejects'], which Python would read as one string


def with_lists(table: Table) -> Table:
    """The table with the columns that hold a list or object as text, or a tag a word (`B-PER O O`), opened;
    itself where it has none. Of cells that have types of their own only tags are taken apart.

    Raises:
        DataError: a cell of such a column cannot be read as the others; with its line.
    """
    if not table.columns:
        return table
    first = itertools.islice(table.rows(table.columns), 200)
    cells = [row for _, row in first] if table.typed else sample(table, n_rows=200)
    ways: dict[str, Any] = {}
    for i, name in enumerate(table.columns):
        held = [row[i] for row in cells if row[i]]
        full = [cell.strip() for cell in held if isinstance(cell, str)]
        if len(full) < len(held) or not full:
            continue
        if (
            not table.typed
            and _is_list(full[0])
            and all(one[:1] + one[-1:] in ("[]", "{}", "") for one in full)
        ):
            ways[name] = literal
        elif _all_tags(full):
            ways[name] = str.split
    if not ways:
        return table

    def rows(names: Sequence[str]) -> Cells:
        for line, row in table.rows(names):
            yield line, [_opened(table, line, n, ways, cell) for n, cell in zip(names, row, strict=True)]

    return replace(table, rows=rows, typed=True)


def _is_list(cell: str) -> bool:
    """Whether a cell is a list or object as text; an array of numpy's counts, so that it will be named."""
    try:
        return isinstance(literal(cell), list | dict)
    except (ValueError, SyntaxError):
        return bool(_ARRAY.search(cell)) and cell[:1] == "["


def _all_tags(cells: Sequence[str]) -> bool:
    """Whether cells are tags of words, some of them with a prefix."""
    found = {tag for cell in cells for tag in cell.split()}
    return all(tag in OUTSIDE or taken_apart(tag) for tag in found) and not found <= {*OUTSIDE}


def _opened(table: Table, line: int, name: str, ways: dict[str, Any], cell: Any) -> Any:
    if name not in ways or not isinstance(cell, str) or not cell.strip():
        return cell
    try:
        return ways[name](cell.strip())
    except (ValueError, SyntaxError) as error:
        raise DataError(
            f"{table.name}, line {line}: a list was wanted in `{name}`, as in other rows; it is "
            f'{cell.strip()[:60]!r} ({error}). Write it as JSON, such as ["EU", "rejects"].'
        ) from error


def literal(cell: str) -> Any:
    """What JSON, or a value of Python written out, stands for.

    Raises:
        ValueError, SyntaxError: it is neither, or an array as numpy prints it.
    """
    try:
        return json.loads(cell)
    except ValueError:
        if _ARRAY.search(cell):
            raise ValueError("its parts have no commas between them, as numpy prints them") from None
        return ast.literal_eval(cell)
