"""Columns of numbers: which they are, and their cells as floats."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from penjing.data.columns import LABEL_NAMES, NOT_TEXT, by_name, choose, filled, listed, named, unclear
from penjing.data.fields import Columns
from penjing.data.table import Table, sample
from penjing.errors import DataError
from penjing.records import Rows

NUMBER_NAMES = tuple(
    """
    score scores similarity relatedness_score relatedness rating stars value target grade price label labels
    y gold mean 分数 评分 得分 相似度 数值 价格
    """.split()  # noqa: SIM905
)
COMMA = re.compile(r"\s*[+-]?\d+(,\d+)?\s*")
THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*")


def number_columns(*, text: str | None, label: str | None, labelled: bool) -> Callable[[Table], Columns]:
    """A function that finds the text of a table and its column (`a+b`: columns) of numbers."""

    def find(table: Table) -> Columns:
        if label is not None:
            labels = named(table, label, key="label", must=labelled)
        else:
            labels = number_column(table, besides=(text or "").split("+"), must=labelled)
        texts, _, _ = choose(table, text=text, label="+".join(labels) or None, labelled=False)
        guessed = [f"text from {listed(texts)}"] if text is None else []
        guessed += [f"numbers from {listed(labels)}"] if label is None and labels else []
        sure = " and ".join(f"`{k}:`" for k, given in (("text", text), ("label", label)) if given is None)
        note = f"{table.name}: {', '.join(guessed)} (guessed; say {sure} to be sure)"
        return Columns(tuple(texts), tuple(labels), (note,) if guessed else ())

    return find


def number_column(table: Table, *, besides: Sequence[str], must: bool) -> list[str]:
    """The column of numbers by its usual name, else the only one that holds numbers alone.

    Raises:
        DataError: there is not just one, and there must be.
    """
    rest = [c for c in table.columns if c not in besides]
    hit = by_name(rest, NUMBER_NAMES) or (None if must else by_name(rest, LABEL_NAMES))
    if hit is not None:
        return [hit]
    if not must:
        return []
    cells = sample(table)
    found = [
        c
        for i, c in enumerate(table.columns)
        if c in rest and c.lower() not in NOT_TEXT and filled(cells, i) and _is_numbers(filled(cells, i))
    ]
    if len(found) != 1:
        raise unclear(table, cells, "label")
    return found


def pointed(rows: Rows) -> Rows:
    """The rows with `3.5` for `3,5` where all numbers of a label column are written so, told in a note.

    `1,234` may be a thousand: a column that has commas only so stays as it is, and `numbers_of` refuses it.
    """
    if len({len(own) for own in rows.labels}) != 1:
        return rows
    turned = [_has_decimal_commas(column) for column in zip(*rows.labels, strict=True)]
    if not any(turned):
        return rows
    labels = [
        tuple(cell.replace(",", ".") if turn else cell for cell, turn in zip(own, turned, strict=True))
        for own in rows.labels
    ]
    old, new = next((a, b) for a, b in zip(rows.labels, labels, strict=True) if a != b)
    note = f"numbers have a decimal comma: `{'` and `'.join(old)}` is read as `{'` and `'.join(new)}`"
    return replace(rows, labels=labels, notes=(*rows.notes, note))


def numbers_of(
    rows: Rows, labels: Sequence[Sequence[str]], *, low: float | None, high: float | None
) -> np.ndarray:
    """(n, K) float32 of the labels' texts.

    Raises:
        DataError: one is no finite number, or lies outside `low` to `high`.
    """
    found = np.empty((len(labels), len(labels[0]) if labels else 1), np.float32)
    for i, row in enumerate(labels):
        for k, text in enumerate(row):
            value = float(text) if _reads(text) else math.nan
            if not math.isfinite(value):
                n = sum(not all(map(_is_finite, one)) for one in labels)
                comma = " Decimals are written with a point, thousands without a sign." if "," in text else ""
                raise DataError(
                    f"{rows.where(i)}: a finite number was wanted as label; it is `{text}`. {n:,} of "
                    f"{len(labels):,} rows have none.{comma} Mend or drop them, or name another column with "
                    f"`label:`."
                )
            if (low is not None and value < low) or (high is not None and value > high):
                wanted = " and ".join(
                    f"at {side} {end:g}" for side, end in (("least", low), ("most", high)) if end is not None
                )
                raise DataError(
                    f"{rows.where(i)}: a number of {wanted} was wanted; it is {value:g}. Mend the row, or "
                    f"set the task's `low` and `high` to the true range."
                )
            found[i, k] = value
    return found


def _is_numbers(cells: Sequence[str]) -> bool:
    return all(map(_reads, cells)) or _has_decimal_commas(cells)


def _has_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether all are whole numbers or have a decimal comma, at least one of which parts no thousands."""
    return all(map(COMMA.fullmatch, cells)) and any("," in c and not THOUSANDS.fullmatch(c) for c in cells)


def _reads(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python takes for a thousands' sign


def _is_finite(text: str) -> bool:
    return _reads(text) and math.isfinite(float(text))
