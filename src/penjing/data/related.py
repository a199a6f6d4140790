"""Rows of texts that belong together: an anchor, what belongs to it, and what only seems to.

| form | told by |
|---|---|
| an anchor and what belongs to it | two columns of texts; negatives in columns called so |
| several that belong to one | a list in the second column, as in `query`, `pos`, `neg` |
| pairs that people judged | a column of relevance: 0 is a negative, all else the grade of a positive |
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from penjing.data.columns import filled, listed, one_named
from penjing.data.columns import simple as plain
from penjing.data.fields import Columns, flat, read_fields
from penjing.data.table import Table, sample
from penjing.data.text_pairs import MORE_LABELS, pair_of
from penjing.errors import DataError
from penjing.plural import counted
from penjing.records import Rows

NEGATIVES = ("negative", "negatives", "neg", "negs", "hard_negative", "hard_negatives", "负例")
RELEVANCE = ("relevance", "relevant", "rel", "qrel", "grade", "相关性", "相关度")  # grades from 0
JUDGED = ("label", "labels", "标签", *MORE_LABELS, "is_match")  # where they are 0 and 1 alone
_GRADE = re.compile(r"[0-5](\.0+)?$")
_WORDS = {"true": 1.0, "false": 0.0}


def read_related(
    source: Any,
    *,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Rows whose `items` are (anchor, positive, negatives); `labels` hold the positive's grade where rows
    have a relevance.

    `text: a+b` names anchor and positive, `label` the relevance; negatives stand in columns called so
    (`negative`, `neg_1`, a list).

    Raises:
        DataError: no two columns of texts, an empty anchor or positive, a relevance that is no number of at
            least 0, or nothing belongs to any anchor.
    """

    def find(table: Table) -> Columns:
        negatives = tuple(c for c in table.columns if plain(c).rstrip("0123456789").rstrip("_") in NEGATIVES)
        rest = replace(table, columns=tuple(c for c in table.columns if c not in negatives))
        pair = pair_of(rest, text, besides=label)
        grade, aside = _relevance(rest, pair, label)
        told = [f"the pair from {listed(pair)}"] if text is None else []
        told += [f"relevance from {listed([grade])}"] if grade and label is None else []
        told += [f"all are taken to belong together, whatever `{aside}` says"] if aside else []
        sure = "(guessed; say `text:` and `label:` to be sure)"
        notes: tuple[str, ...] = (f"{table.name}: {', '.join(told)} {sure}",) if told else ()
        notes += (f"{table.name}: negatives from {listed(negatives)}",) if negatives else ()
        lists = frozenset((pair[1], *negatives))
        return Columns((*pair, *negatives), (grade,) if grade else (), notes, lists, frozenset(negatives))

    found = read_fields(source, find, text=text, label=label, encoding=encoding, drop_empty=drop_empty)
    return _apart(found)


def _relevance(table: Table, pair: list[str], label: str | None) -> tuple[str | None, str | None]:
    """The column that says how much the second text belongs to the first, and one that is called as if it
    did; None where there is none."""
    if label is not None:
        return one_named(table, label, key="label", must=True, why="relevance has one"), None
    free = [c for c in table.columns if c not in pair]
    hit = next((c for name in (*RELEVANCE, *JUDGED) for c in free if plain(c) == name), None)
    if hit is None:
        return None, None
    values = {value.strip().lower() for value in filled(sample(table), table.columns.index(hit))}
    grades = {_WORDS.get(value, float(value) if _GRADE.match(value) else None) for value in values}
    fits = None not in grades and (plain(hit) in RELEVANCE or grades <= {0.0, 1.0})
    return (hit, None) if fits else (None, hit)


def _apart(found: Rows) -> Rows:
    """A row for each positive, the negatives of its anchor shared among them."""
    rows: list[tuple[int, str, str, list[str]]] = []
    judged: defaultdict[str, list[str]] = defaultdict(list)  # what people said does not belong to an anchor
    belongs: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for i, (anchor, positive, *rest) in enumerate(found.items or ()):
        texts, negatives = flat(positive), [one for cell in rest for one in flat(cell) if one]
        if found.labels[i] and not _grade(found, i):
            judged[anchor] += texts
            continue
        for k, one in enumerate(texts):
            rows.append((i, anchor, one, negatives[k :: len(texts)]))
            belongs[anchor].setdefault(one, rows[-1][3])
    for anchor in judged.keys() & belongs.keys():
        shares = [*belongs[anchor].values()]
        for k, one in enumerate(one for one in judged[anchor] if one not in belongs[anchor]):
            shares[k % len(shares)].append(one)
    if not rows:
        raise DataError(
            f"{found.where(0)}: pairs of which some belong together were wanted; all {len(found):,} rows "
            "have the relevance 0. Name another column with `label:`, or add pairs that do."
        )
    alone = sum(anchor not in belongs for anchor in judged)
    notes = [f"{sum(map(len, judged.values())):,} pairs of relevance 0 are negatives of their anchor"]
    notes += [f"{counted(alone, 'anchor')} to which nothing belongs left out"] if alone else []
    kept = found.take(np.array([i for i, *_ in rows], dtype=np.int64))
    items = [(anchor, one, tuple(negatives)) for _, anchor, one, negatives in rows]
    return replace(
        kept,
        items=items,
        texts=[f"{a}\n{b}" for a, b, _ in items],
        labels=[(f"{_grade(found, i):g}",) if found.labels[i] else () for i, *_ in rows],
        notes=(*found.notes, *(notes if judged else ())),
    )


def _grade(rows: Rows, i: int) -> float:
    said = rows.labels[i][0]
    try:
        grade = _WORDS[said.lower()] if said.lower() in _WORDS else float(said)
    except ValueError:
        grade = -1.0
    if not 0 <= grade < math.inf:
        raise DataError(
            f"{rows.where(i)}: a relevance was wanted, a number of at least 0; it is `{said}`. Mend it, or "
            "name another column with `label:`."
        )
    return grade
