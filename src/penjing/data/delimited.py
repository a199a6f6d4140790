"""CSV and TSV to a table: RFC 4180 quoting, delimiter and header found out, uneven rows named."""

from __future__ import annotations

import csv
import functools
import itertools
import operator
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penjing.data.columns import is_known, is_language, is_like_known, is_role
from penjing.data.encoding import find_encoding, open_text
from penjing.data.table import Cells, Table
from penjing.errors import DataError
from penjing.plural import counted

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_ONE_COLUMN = "\x1f"  # a delimiter that no text holds
_HEAD_ROWS = 300
_SEP = re.compile(r"\ufeff?sep=(.)\r?\n", re.IGNORECASE)  # Excel's own first line, which names the delimiter


@dataclass(frozen=True)
class _Survey:
    """What one reading of the whole file found."""

    width: int
    n_rows: int  # header included
    n_blank: int  # rows of empty cells only
    n_uneven: int
    trailing: bool  # every row but the first ends with a delimiter more, after which nothing stands
    uneven: tuple[int, int] | None  # line and width of the first uneven row
    folded: bool  # some cell holds a line end
    failed: tuple[int, str] | None  # line of the row where the quotes do not close


def read_delimited(path: Path, *, name: str, encoding: str | None, wanted: Sequence[str] = ()) -> Table:
    """The table of a CSV or TSV file. `wanted` are column names that would prove the first row a header.

    Raises:
        DataError: nothing but a header, rows with too many or too few cells, quotes that never close, bad
            bytes.
    """
    codec, note = find_encoding(path, encoding=encoding)
    notes = [note] if note else []
    with open_text(path, codec) as stream:
        delimiter = find_delimiter(
            list(itertools.islice(stream, 4 * _HEAD_ROWS)), tabbed=".tsv" in path.name.lower()
        )
    quoted, survey = True, _survey(path, codec, delimiter, quoted=True)
    if survey.failed or survey.n_uneven or survey.folded:
        bare = _survey(path, codec, delimiter, quoted=False)
        # Where every physical line has all its cells, quotes are plain signs: joining lines would be wrong.
        if not bare.n_uneven and bare.width > 1 and (survey.failed or bare.width == survey.width):
            quoted, survey = False, bare
            notes.append(f"{name}: quotation marks are taken as they stand, each line is a row")
    _refuse(name, survey, delimiter)
    rows = functools.partial(_records, path, codec, delimiter, quoted)
    head = [cells for _, cells in itertools.islice(rows(), _HEAD_ROWS)]
    headed = has_header(head, wanted)
    columns = _column_names(head[0]) if headed else tuple(str(i + 1) for i in range(survey.width))
    if again := sorted({*columns} - {_named(cell, i) for i, cell in enumerate(head[0])}) if headed else []:
        notes.append(f"{name}: columns of one name are told apart by their places: {', '.join(again)}")
    if headed and survey.n_rows == 1:
        raise DataError(
            f"{name} has a header ({', '.join(columns)}) and no rows. Add rows below it, or give another "
            f"file."
        )
    if survey.n_blank:
        notes.append(
            f"{name}: {counted(survey.n_blank, 'row holds', 'rows hold')} empty cells only: passed over"
        )
    if survey.trailing:
        notes.append(f"{name}: all rows but the first end with a delimiter more: what it ends is no cell")
    if not headed and survey.width > 1:
        notes.append(f"{name}: no header was seen; columns are numbered 1 to {survey.width}")
    picked = functools.partial(_picked, rows, columns, headed)
    return Table(name, columns, picked, (name,), tuple(notes), headed=headed)


def find_delimiter(lines: Sequence[str], *, tabbed: bool = False) -> str:
    """The delimiter under which the most rows have as many cells as the first; none found: one column."""
    if lines and (named := _SEP.match(lines[0])):
        return named[1]
    best, best_share = _ONE_COLUMN, 0.0
    order = ["\t", ",", ";", "|"] if tabbed else [",", "\t", ";", "|"]
    for delimiter in order:
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)
            head = [row for row in itertools.islice(rows, _HEAD_ROWS) if row]
            if not head or len(head[0]) < 2:
                continue
            widths = [_width(row, len(head[0])) for row in head]
            # The last row may be cut off where the lines were.
            share = Counter(widths[:-1] or widths)[widths[0]] / max(1, len(widths[:-1]))
            if share > best_share + 0.02:
                best, best_share = delimiter, share
    return best


def _records(
    path: Path, codec: str, delimiter: str, quoted: bool, *, strict: bool = False, blank: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """(first physical line, cells) of every row, of those with empty cells only where `blank`."""
    csv.field_size_limit(
        min(sys.maxsize, 2**31 - 1)
    )  # the standard limit of 131,072 signs stops at long documents
    with open_text(path, codec) as stream:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=strict)
        line = 1
        for cells in reader:
            named = line == 1 and len(cells) == 2 and cells[0].lower() == "sep=" and not cells[1]
            if cells and not named and (any(map(str.strip, cells)) or (blank and len(cells) > 1)):
                yield line, cells
            line = reader.line_num + 1


def _width(cells: Sequence[str], most: int) -> int:
    """How many cells a row has; empty ones beyond `most`, which delimiters at a line's end make, are none."""
    return most if len(cells) > most and not any(map(str.strip, cells[most:])) else len(cells)


def _survey(path: Path, codec: str, delimiter: str, *, quoted: bool) -> _Survey:
    width = n_rows = n_blank = n_uneven = n_trailing = line = 0
    failed: tuple[int, str] | None = None
    uneven: tuple[int, int] | None = None
    folded = False
    try:
        for line, cells in _records(path, codec, delimiter, quoted, strict=True, blank=True):
            if not any(map(str.strip, cells)):
                n_blank += 1
                continue
            n_rows += 1
            width = width or len(cells)
            if len(cells) != width:
                n_uneven += 1
                n_trailing += _width(cells, width) == width
                uneven = uneven or (line, len(cells))
            folded = folded or any("\n" in cell or "\r" in cell for cell in cells)
    except csv.Error as error:
        failed = line + 1, str(error)
    # One row alone that ends so may be one whose label is missing, with a delimiter in its text.
    trailing = n_trailing == n_rows - 1 > 1
    if trailing:
        n_uneven, uneven = 0, None
    return _Survey(width, n_rows, n_blank, n_uneven, trailing, uneven, folded, failed)


def _refuse(name: str, survey: _Survey, delimiter: str) -> None:
    if survey.failed:
        line, reason = survey.failed
        raise DataError(
            f"{name}, line {line}: the quotation marks of the row that begins about here do not close "
            f"({reason}). "
            f'Write a quotation mark inside a quoted cell twice (""), or save the file anew as CSV.'
        )
    if survey.n_rows == 0:
        raise DataError(f"{name} was to hold rows; it is empty. Give a file with at least a text a row.")
    if survey.uneven:
        line, cells = survey.uneven
        sign = DELIMITERS.get(delimiter, "delimiter")
        raise DataError(
            f"{name}, line {line}: the row has {cells} cell{'s' * (cells != 1)}, the first row has "
            f"{survey.width}. "
            f"{survey.n_uneven:,} of {survey.n_rows:,} rows "
            f"{'is' if survey.n_uneven == 1 else 'are'} so. Put double quotes around cells that hold "
            f"a {sign} or "
            f"a line end, and leave no cell out."
        )


def has_header(head: Sequence[Sequence[str]], wanted: Iterable[str] = ()) -> bool:
    """Whether the first row names the columns: by known or wanted names, or by being unlike the rest."""
    first, rest = head[0], head[1:]
    likely = [bool(re.match(r"[#\w][\w .#/:()\-]{0,39}$", cell.strip())) for cell in first]
    if {cell.strip().lstrip("\ufeff") for cell in first} & set(wanted):
        return True
    if not all(ok or not cell.strip() for ok, cell in zip(likely, first, strict=True)) or not any(likely):
        return False
    if any(is_known(cell) for cell in first) or sum(is_like_known(cell) for cell in first) > 1:
        return True
    if sum(map(is_language, first)) > 1 or sum(map(is_role, first)) > 1:
        return True
    if len(set(first)) < len(first) or len(rest) < 2 or any(_is_number(cell) for cell in first):
        return False
    for i, cell in enumerate(first):
        values = [row[i] for row in rest if i < len(row)]
        if all(_is_number(value) for value in values):
            return True
        repeats = len(set(values)) * 2 <= len(values)
        if repeats and cell not in values and (" " not in cell.strip() and len(rest) >= 10):
            return all(" " not in other.strip() or len(other) < 25 for other in first)
    return False


def _is_number(cell: str) -> bool:
    return bool(re.match(r"\s*[-+]?\d+(\.\d+)?\s*$", cell))


def _column_names(first: Sequence[str]) -> tuple[str, ...]:
    names: list[str] = []
    for i, cell in enumerate(first):
        name = _named(cell, i)
        while name in names:
            name += f"_{i + 1}"
        names.append(name)
    return tuple(names)


def _named(cell: str, i: int) -> str:
    return cell.strip().lstrip("\ufeff") or str(i + 1)


def _picked(
    rows: functools.partial[Iterator[tuple[int, list[str]]]],
    columns: Sequence[str],
    headed: bool,
    names: Sequence[str],
) -> Cells:
    at = [columns.index(name) for name in names]
    pick = operator.itemgetter(*at) if len(at) > 1 else None
    for line, cells in itertools.islice(rows(), int(headed), None):
        yield line, (pick(cells) if pick else [cells[i] for i in at])
