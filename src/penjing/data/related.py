"""Rows of texts that belong together: an anchor, what belongs to it, and what only seems to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from penjing.data.columns import listed
from penjing.data.columns import simple as plain
from penjing.data.fields import Columns, flat, read_fields
from penjing.data.table import Table
from penjing.data.text_pairs import pair_columns
from penjing.records import Rows

NEGATIVES = ("negative", "negatives", "neg", "negs", "hard_negative", "hard_negatives", "负例")


def read_related(
    source: Any,
    *,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Rows whose `items` are (anchor, positive, negatives).

    `text: a+b` names anchor and positive; negatives stand in columns called so (`negative`, `neg_1`, a list).

    Raises:
        DataError: no two columns of texts, or an empty anchor or positive.
    """

    def find(table: Table) -> Columns:
        negatives = tuple(c for c in table.columns if plain(c).rstrip("0123456789").rstrip("_") in NEGATIVES)
        rest = replace(table, columns=tuple(c for c in table.columns if c not in negatives))
        pair = pair_columns(text=text, label=label, labelled=False)(rest)
        notes = pair.notes
        if negatives:
            notes = (*notes, f"{table.name}: negatives from {listed(negatives)}")
        return Columns((*pair.texts, *negatives), (), notes, frozenset(negatives), frozenset(negatives))

    found = read_fields(source, find, text=text, encoding=encoding, drop_empty=drop_empty, labelled=False)
    items = [
        (a, b, tuple(one for cell in rest for one in flat(cell) if one)) for a, b, *rest in found.items or ()
    ]
    return replace(found, items=items, texts=[f"{a}\n{b}" for a, b, _ in items])
