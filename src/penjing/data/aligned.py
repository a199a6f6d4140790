"""Rows of a source and what is to be said of it: two columns, or two files whose lines belong together.

A guess is always told. To know one more usual pair of names, add it to `PAIRS`, the likeliest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import is_language, listed, named, one_named
from penjing.data.columns import simple as plain
from penjing.data.encoding import find_encoding, open_text
from penjing.data.fields import Columns, as_object, read_fields
from penjing.data.table import Table
from penjing.errors import DataError
from penjing.records import Rows

PAIRS = (
    ("source", "target"), ("src", "tgt"), ("source", "translation"), ("dialogue", "summary"),
    ("article", "highlights"), ("document", "summary"), ("article", "summary"), ("text", "summary"),
    ("text", "headline"), ("content", "title"), ("input", "output"), ("prompt", "completion"),
    ("instruction", "output"), ("prompt", "response"), ("question", "answer"), ("text", "target"),
    ("原文", "译文"), ("原文", "摘要"), ("正文", "摘要"), ("正文", "标题"), ("问题", "回答"),
)  # fmt: skip


def read_aligned(
    source: Any,
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Rows whose `items` are (source, target, or None where not labelled).

    `text` and `label` name the two columns; a source may be several (`instruction+input`), of which all but
    the first may be empty. `a.en+a.de` are two files, line by line.

    Raises:
        DataError: no two such columns, several for the target, files of unequal length, an empty text.
    """
    if delimiter is not None:
        raise DataError(
            f"`data.delimiter` is {delimiter!r}; sources and targets stand in columns or in two files, and "
            "it would be ignored. Leave it out."
        )
    both = _two_files(source)
    if both:
        return _lines(both, encoding=encoding, drop_empty=drop_empty)

    def find(table: Table) -> Columns:
        return _columns(table, text, label, labelled)

    given = [name for name in (text, label) if name]
    found = read_fields(
        source,
        find,
        text="+".join(given) or None,
        encoding=encoding,
        drop_empty=drop_empty,
        labelled=False,
    )
    items = [_item([str(cell) for cell in item], labelled) for item in found.items or ()]
    return _rows(items, found)


def _item(cells: list[str], labelled: bool) -> tuple[str, str | None]:
    """Source and target of a row's cells, of which the last is the target where rows are labelled."""
    sources = cells[:-1] if labelled else cells
    return "\n".join(filter(None, sources)), cells[-1] if labelled else None


def asked_sources(inputs: Sequence[Any]) -> Rows:
    """Sources given by hand as rows: texts, or objects with one under a known name.

    Raises:
        DataError: one is neither, or empty.
    """
    items: list[tuple[str, str | None]] = []
    known = dict.fromkeys(first for first, _ in PAIRS)
    for i, given in enumerate(inputs):
        one = as_object(given) if isinstance(given, str) and given.lstrip()[:1] == "{" else given
        if isinstance(one, dict):
            name = next((name for name in known if name in one), "")
            found = [one[each] for each in _with_instruction([name], [*one]) if one.get(each)]
            one = "\n".join(map(str, found)) if len(found) > 1 else found[0] if found else one
        if not isinstance(one, str) or not one.strip():
            raise DataError(
                f"`predict` takes texts here; item {i + 1} of {len(inputs)} is {str(given)[:60]!r}. Give a "
                'text with words in it, or an object such as {"source": "…"}.'
            )
        items.append((one.strip(), None))
    n = len(items)
    files, lines = np.zeros(n, np.int32), np.arange(1, n + 1)
    return Rows([a for a, _ in items], [()] * n, ("the texts given",), files, lines, (), list(items))


def _rows(items: list[tuple[str, str | None]], found: Rows) -> Rows:
    texts = [a if b is None else f"{a}\n{b}" for a, b in items]
    return Rows(texts, [()] * len(items), found.files, found.file_of, found.lines, found.notes, list(items))


def _columns(table: Table, text: str | None, label: str | None, labelled: bool) -> Columns:
    first = named(table, text, key="text", must=True) if text else []
    target = one_named(table, label, key="label", must=labelled, why="a target has one") if label else None
    second = [target] if target else []
    guessed = _guess([c for c in table.columns if c not in (*first, *second)], first, second)
    sources = first or _with_instruction(guessed[:1], table.columns)
    targets = second or guessed[1:]
    if not sources and not targets and not labelled and len(table.columns) == 1:
        sources = list(table.columns)
    if not sources or (labelled and not targets):
        raise DataError(
            f"{table.name}: a column of sources and one of targets were wanted; which they are could not be "
            f"guessed. Columns: {', '.join(table.columns[:20])}. Say which, such as `text: "
            f"{table.columns[0]}` and `label: {table.columns[-1]}`."
        )
    wanted = [*sources, *targets] if labelled else sources
    sure = [key for key, given in (("`text:`", text), ("`label:`", label)) if not given]
    told = f"{table.name}: source and target from {listed(wanted)} (guessed"
    told += f"; say {' and '.join(sure)} to be sure)"
    notes = (told,) if sure and labelled else ()
    return Columns(tuple(wanted), (), notes, optional=frozenset(sources[1:]))


def _with_instruction(sources: list[str], columns: Sequence[str]) -> list[str]:
    """Alpaca's rows ask by an instruction and an input that may be empty: neither says enough alone."""
    alpaca = {plain(c): c for c in columns if plain(c) in ("instruction", "input")}
    asked = len(alpaca) == 2 and sources[:1] and sources[0] in alpaca.values()
    return [alpaca["instruction"], alpaca["input"]] if asked else sources


def _guess(columns: list[str], first: list[str], second: list[str]) -> list[str]:
    """Source and target among the columns that were not named; what is missing of two where one was."""
    for one, other in PAIRS:
        hits = [next((c for c in columns if plain(c) == name), None) for name in (one, other)]
        if first and hits[1]:
            return ["", hits[1]]
        if second and hits[0]:
            return [hits[0]]
        if hits[0] and hits[1]:
            return [hits[0], hits[1]]
    spoken = [c for c in columns if is_language(c)]
    if len(spoken) > 2:  # `id` is Indonesian, too
        spoken = [c for c in spoken if c != "id"]
    if len(spoken) == 2 and not first and not second:
        return spoken
    rest = columns if len(columns) == (1 if first or second else 2) else []
    return ["", *rest] if first else rest


def _two_files(source: Any) -> tuple[Path, Path] | None:
    """`a.en+a.de` as two files that are there."""
    one = source[0] if isinstance(source, list) and len(source) == 1 else source
    if not isinstance(one, str | Path) or "+" not in str(one) or Path(one).exists():
        return None
    parts = [Path(part.strip()).expanduser() for part in str(one).split("+")]
    if len(parts) != 2:
        return None
    missing = next((part for part in parts if not part.is_file()), None)
    if missing is not None:
        raise DataError(
            f"`{one}` was read as two files, sources and targets line by line; there is no file {missing}. "
            "Mend the path."
        )
    return parts[0], parts[1]


def _lines(files: tuple[Path, Path], *, encoding: str | None, drop_empty: bool) -> Rows:
    sides = []
    for path in files:
        codec, _ = find_encoding(path, encoding=encoding)
        with open_text(path, codec) as stream:
            sides.append([line.strip() for line in stream])  # not splitlines: U+2028 ends no line of a file
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{files[0]} and {files[1]} must have as many lines, source and target side by side; they have "
            f"{len(sides[0]):,} and {len(sides[1]):,}. Align them anew."
        )
    pairs = list(zip(*sides, strict=True))
    lacking = [i for i, (a, b) in enumerate(pairs) if not a or not b]
    if lacking and not drop_empty:
        side = files[0] if not pairs[lacking[0]][0] else files[1]
        raise DataError(
            f"{side}, line {lacking[0] + 1}: the text is empty. {len(lacking):,} of {len(pairs):,} rows "
            "lack one; fill them, or pass `drop_empty: true` to leave them out."
        )
    kept = [i for i, (a, b) in enumerate(pairs) if a and b]
    notes = (
        (f"{len(lacking):,} of {len(pairs):,} rows left out, one of their texts is empty",) if lacking else ()
    )
    items: list[tuple[str, str | None]] = [pairs[i] for i in kept]
    like = Rows(
        [], [], (str(files[0]),), np.zeros(len(kept), np.int32), np.array(kept, np.int64) + 1, notes
    )  # fmt: skip
    return _rows(items, like)
