"""Rows with two marked entities and the relation between them: SemEval blocks, marked texts, spans, tokens.

| form | of |
|---|---|
| `1 "The <e1>audits</e1> were about <e2>waste</e2>."`, relation, comment, in blocks | SemEval-2010 task 8 |
| `{"text": "the <e1>…</e1> … <e2>…</e2>", "label": "…"}`, also CSV | marked texts |
| `{"text": …, "head": {"start", "end", "type"}, "tail": {…}, "relation": …}` | spans of characters |
| `{"token": […], "h": {"pos": [0, 2]}, "t": {…}, "relation": …}` | OpenNRE, spans of tokens |
| `{"token": […], "subj_start": 0, "subj_end": 1, "obj_start": …, "relation": …}` | TACRED, ends inclusive |
| documents with all their entities and relations | `linked.py` has them |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data import linked
from penjing.data.conll import laid_out
from penjing.data.entities import ENDS, LABELS, STARTS, Place
from penjing.data.labels import is_missing, label_names
from penjing.data.lists import with_lists
from penjing.data.sources import tables
from penjing.data.table import Table
from penjing.errors import DataError
from penjing.plural import counted
from penjing.records import Rows

TEXTS = ("text", "sentence", "tokens", "token", "words", "sent")
FIRST = ("head", "h", "e1", "subj", "subject", "entity1")
SECOND = ("tail", "t", "e2", "obj", "object", "entity2")
RELATIONS = ("relation", "label", "relation_type", "class", "rel", "关系")
_MARKS = re.compile(r"</?e[12]>")
_WANTED = "`<e1>…</e1>` and `<e2>…</e2>` in the text, or two spans (head and tail) beside it"


@dataclass(frozen=True)
class Related:
    """A text, where its two entities stand, and what they are where that is known (else empty)."""

    text: str
    first: Place
    second: Place
    types: tuple[str, str] = ("", "")

    @property
    def marked(self) -> str:
        """The text with both entities marked, as SemEval has it."""
        places = sorted([(*self.first, "e1"), (*self.second, "e2")], reverse=True)
        text = self.text
        for start, end, name in places:
            text = f"{text[:start]}<{name}>{text[start:end]}</{name}>{text[end:]}"
        return text


@dataclass
class _Found:
    """What has been read so far."""

    items: list[Related] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)  # file and line of each row
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_empty: int = 0


def read(
    source: str | Path | Sequence[str | Path],
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Rows with a `Related` each in `items`; `texts` are marked, `labels` hold the relation.

    Raises:
        DataError: a row lacks a mark or the relation, spans lie outside the text or overlap.
    """
    if delimiter is not None:
        raise DataError(
            "`data.delimiter` stands between labels of one cell; a pair has one relation, so it would be "
            "ignored. Leave it out."
        )
    found = _Found()
    wanted = [*TEXTS, *RELATIONS, *(name for name in (text, label) if name)]
    for table in map(with_lists, tables(source, encoding=encoding, wanted=wanted)):
        columns = (*table.columns, *table.lists)
        body = _column(table, columns, text, TEXTS, "text")
        lists = None if label is not None else linked.list_of(columns)
        relation = _column(table, columns, label, RELATIONS, "label") if labelled and not lists else None
        found.notes += table.notes
        if lists:
            _documents(table, body, lists, found, labelled=labelled, drop_empty=drop_empty)
        else:
            _pairs(table, body, relation, found, drop_empty=drop_empty)
        found.files += table.files
    found.notes += (
        [f"{found.n_empty:,} rows left out, their text or relation is empty"] if found.n_empty else []
    )
    if not found.items:
        raise DataError(f"{source}: no row is left. Give rows with {_WANTED}.")
    return _rows(
        found.items, found.labels, tuple(found.files), found.places, tuple(dict.fromkeys(found.notes))
    )


def _pairs(table: Table, body: str, relation: str | None, found: _Found, *, drop_empty: bool) -> None:
    """Add the pairs of a table with one a row."""
    for where, place, row in _told(table, found):
        names: tuple[str, ...] = ()
        if relation is not None:
            names = label_names(row[relation], names=table.names.get(relation), typed=table.typed)
        if _lacks(row[body], where, found, drop_empty, told=relation is None or bool(names)):
            continue
        found.items.append(related(row, row[body], where))
        if len(names) > 1:
            raise DataError(
                f"{where}: one relation was wanted in `{relation}`; it holds {len(names)} "
                f"({', '.join(names)[:60]}). Give each a row of its own."
            )
        found.labels.append(names)
        found.places.append(place)


def _documents(
    table: Table, body: str, lists: str, found: _Found, *, labelled: bool, drop_empty: bool
) -> None:
    """Add the pairs of a table whose rows are documents with all their relations."""
    told = linked.Told(table.name)
    for n, (where, place, row) in enumerate(_told(table, found)):
        if n in table.unlabelled or _lacks(row[body], where, found, drop_empty):
            continue
        text, pairs = linked.pairs_of_document(row, row[body], lists, where, told)
        found.items += [Related(text, a.place, b.place, (a.kind, b.kind)) for a, b, _ in pairs]
        found.labels += [(kind,) if labelled else () for *_, kind in pairs]
        found.places += [place] * len(pairs)
    found.notes += told.notes()
    n = len(table.unlabelled)
    found.notes += [f"{counted(n, 'row')} left out, nobody labelled them"] if n else []


def _told(table: Table, found: _Found) -> Iterator[tuple[str, tuple[int, int], dict[str, Any]]]:
    """(where it stands in words, file and line, cells by column) of each row."""
    columns = (*table.columns, *table.lists)
    for n, (line, cells) in enumerate(table.rows(columns)):
        file = n if table.file_a_row else 0
        name = table.files[n] if table.file_a_row else table.name
        yield f"{name}, line {line}", (len(found.files) + file, line), dict(zip(columns, cells, strict=True))


def _lacks(body: Any, where: str, found: _Found, drop_empty: bool, *, told: bool = True) -> bool:
    """Whether a row is to be left out, as its text is empty or its relation is not told."""
    empty = body in ("", []) or is_missing(body, typed=True)
    if (empty or not told) and not drop_empty:
        raise DataError(
            f"{where}: the {'text' if empty else 'relation'} is empty. Fill it, or pass `drop_empty: true` "
            "to leave such rows out."
        )
    found.n_empty += empty or not told
    return empty or not told


def asked(inputs: Sequence[Any]) -> Rows:
    """Rows of what somebody asks about: texts with marks, or objects with a text and two spans.

    Raises:
        DataError: one is neither.
    """
    items = []
    for i, one in enumerate(inputs):
        where = f"item {i + 1} of {len(inputs)}"
        if isinstance(one, Related):
            items.append(one)
        elif isinstance(one, dict):
            items.append(related(one, next((one[key] for key in TEXTS if key in one), ""), where))
        else:
            items.append(related({}, one, where))
    places = [(0, i + 1) for i in range(len(items))]
    return _rows(items, [()] * len(items), ("the texts given",), places, ())


def _rows(
    items: list[Related],
    labels: list[tuple[str, ...]],
    files: tuple[str, ...],
    places: list[tuple[int, int]],
    notes: tuple[str, ...],
) -> Rows:
    file_of = np.array([file for file, _ in places], dtype=np.int32)
    lines = np.array([line for _, line in places], dtype=np.int64)
    return Rows([item.marked for item in items], labels, files, file_of, lines, notes, list(items))


def _column(table: Table, columns: Sequence[str], given: str | None, known: Sequence[str], key: str) -> str:
    hit = given if given in columns else next((name for name in known if name in columns), None)
    if hit is None or (given and given not in columns):
        raise DataError(
            f"{table.name}: which column holds the {'relation' if key == 'label' else key} could not be "
            f"found. Columns: {', '.join(columns) or 'none'}. Say which with `{key}:`."
        )
    return hit


def related(row: dict[str, Any], body: Any, where: str) -> Related:
    """A row's text and its two entities.

    Raises:
        DataError: in none of the known forms, or spans that cannot be.
    """
    if isinstance(body, str) and _MARKS.search(body):
        return _marked(body, where)
    tokens = [str(token) for token in body] if isinstance(body, list) else None
    whole, words = laid_out(tokens) if tokens else (str(body or ""), ())
    found = []
    for keys in (FIRST, SECOND):
        try:
            span = _span(row, keys)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{where}: whole numbers were wanted as the ends of `{keys[0]}` ({error}). Mend the row."
            ) from error
        if span is None:
            raise DataError(
                f"{where}: two entities were wanted, {_WANTED}; found {str(body)[:60]!r}. Mark them so."
            )
        start, end, kind = span
        size = len(words) if tokens else len(whole)
        if not 0 <= start < end <= size:
            raise DataError(
                f"{where}: the entity at {start}–{end} lies outside the text, which has {size} "
                f"{'tokens' if tokens else 'characters'}. Mend the row; the end is the place after the last."
            )
        found.append((((words[start][0], words[end - 1][1]) if tokens else (start, end)), kind))
    (first, one), (second, two) = found
    return _checked(Related(whole, first, second, (one, two)), where)


def _marked(body: str, where: str) -> Related:
    """A text with <e1>…</e1> and <e2>…</e2>, without them."""
    at: dict[str, int] = {}
    plain, last = "", 0
    for mark in _MARKS.finditer(body):
        plain += body[last : mark.start()]
        last = mark.end()
        at[mark[0]] = len(plain)
    plain += body[last:]
    lacking = next((m for m in ("<e1>", "</e1>", "<e2>", "</e2>") if m not in at), None)
    if lacking:
        raise DataError(f"{where}: `{lacking}` is missing in {body[:80]!r}. Wanted are {_WANTED}.")
    return _checked(Related(plain, (at["<e1>"], at["</e1>"]), (at["<e2>"], at["</e2>"])), where)


def _checked(item: Related, where: str) -> Related:
    (a, b), (c, d) = item.first, item.second
    if not (item.text[a:b].strip() and item.text[c:d].strip()):
        raise DataError(f"{where}: an entity is empty in {item.marked[:80]!r}. Mark at least a character.")
    if a < d and c < b:
        raise DataError(
            f"{where}: the two entities overlap (`{item.text[a:b]}` and `{item.text[c:d]}`). Mark two that "
            "stand apart."
        )
    return item


def _span(row: dict[str, Any], keys: Sequence[str]) -> tuple[int, int, str] | None:
    """(start, the place after the end, type) of one entity of a row."""
    for key in keys:
        if f"{key}_start" in row and f"{key}_end" in row:  # TACRED: the end is inclusive
            return int(row[f"{key}_start"]), int(row[f"{key}_end"]) + 1, str(row.get(f"{key}_type") or "")
        one = row.get(key)
        if isinstance(one, dict):
            kind = next((str(one[name]) for name in LABELS if one.get(name)), "")
            if isinstance(one.get("pos"), list) and len(one["pos"]) == 2:
                return int(one["pos"][0]), int(one["pos"][1]), kind
            start = next((one[name] for name in STARTS if name in one), None)
            end = next((one[name] for name in ENDS if name in one), None)
            if start is not None and end is not None:
                return int(start), int(end), kind
        if isinstance(one, list) and len(one) in (2, 3) and all(isinstance(x, int) for x in one[:2]):
            return one[0], one[1], str(one[2]) if len(one) == 3 else ""
    return None
