"""Rows from wherever they are: `read` is the one door. Formats: `sources`; which column: `columns`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from penjing.data.columns import choose
from penjing.data.gather import Found, Labels, gather
from penjing.data.labels import LISTING, find_separator, split_label
from penjing.data.sources import tables
from penjing.data.table import opened
from penjing.errors import DataError
from penjing.records import Rows

_FEW = 10  # fewer rows of which none has several labels say nothing


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

    CSV, TSV, JSON, JSON lines, Parquet, CoNLL, fastText, plain text, a folder with a sub-folder a class, a
    folder that `datasets` saved; also packed (.gz, .bz2, .xz, a zip of one file). `data.json#test` takes one
    list of several.

    Args:
        text, label: column names, `a+b` for several: texts are joined by a line end; label columns of 0 and 1
            name the
            labels of a row. Guessed, and told in `notes`, when not given.
        delimiter: what stands between the labels of one cell; found out when `multi_label`.
        drop_empty: leave out rows without text or label, and count them in `notes`.
        labelled: without it, rows may have no label column and no label.

    Raises:
        DataError: what was asked for is not there, or rows cannot be used as they are; the text names file
            and line.
    """
    wanted = [name for given in (text, label) if given for name in (given, *given.split("+"))]
    found = Found()
    for table in map(opened, tables(source, encoding=encoding, wanted=wanted)):
        texts, labels, notes = choose(table, text=text, label=label, labelled=labelled)
        found.notes += [*table.notes, *notes]
        gather(
            table,
            found,
            text_columns=texts,
            label_columns=labels,
            drop_empty=drop_empty,
            labelled=labelled,
            multi_label=multi_label,
        )
    if not found.texts:
        raise DataError(
            f"{source}: all {found.n_dropped:,} rows lack text or label, and `drop_empty` left them out. "
            f"Fill some."
        )
    guessed = {}
    if delimiter is not None or multi_label:
        sign = _split_labels(found, delimiter)
        guessed = {"delimiter": sign} if sign is not None and delimiter is None else {}
    else:
        found.notes += _several_said(found)
    file_of = np.frombuffer(found.file_of, dtype=np.int32)
    lines = np.frombuffer(found.lines, dtype=np.int64)
    told = tuple(_merged(found.notes))
    return Rows(found.texts, found.labels, tuple(found.files), file_of, lines, told, guessed=guessed)


def _split_labels(found: Found, delimiter: str | None) -> str | None:
    """Take cells apart that hold several labels, one split a distinct cell; the sign between them."""
    whole = {labels[0] for labels in found.known if len(labels) == 1}
    sign = delimiter
    if sign is None and not found.apart:
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
    if len(found.labels) >= _FEW and max(map(len, known)) == 1:
        found.notes.append(
            "no row has several labels; if cells hold several, say what stands between them with `delimiter:`"
        )
    return sign


def _several_said(found: Found) -> list[str]:
    """A note where the cells of one label read like lists of labels."""
    if found.apart:
        return []
    cells = sorted(labels[0] for labels in found.known if len(labels) == 1)
    sign = find_separator(cells, signs=LISTING)
    if sign is None:
        return []
    joined = next(cell for cell in cells if sign in cell)
    return [
        f"labels such as `{joined}` read like several in one cell; if they are, say `task: {{classify: "
        "{multi_label: true}}`"
    ]


def _merged(notes: list[str]) -> list[str]:
    """Notes that say the same of several files become one."""
    said: dict[str, list[str]] = {}
    for note in notes:
        name, colon, words = note.partition(": ")
        said.setdefault(words if colon else note, []).append(name if colon else "")
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {words}" if names[0] else words
        for words, names in said.items()
    ]
