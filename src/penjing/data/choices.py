"""Rows of multiple choice: what is asked, the choices, and which is right, from columns or by hand.

Choices stand in one column as a list or object (`choices`, `options`, `endings`), or in columns whose names
differ by a number or letter (`choice1`, `ending0`, `option_a`, `opa`, `A`). The right one is a
place (from 0 or 1), a letter, or the choice's own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from penjing.data.columns import NOT_TEXT, by_name, listed, named
from penjing.data.columns import simple as plain
from penjing.data.fields import Columns, as_object, flat, given_rows, read_fields
from penjing.data.table import Table
from penjing.errors import DataError
from penjing.records import Rows

LISTS = ("choices", "options", "endings", "candidates", "alternatives", "选项")
STEMS = (
    "choice", "choices", "option", "options", "ending", "answer", "alternative", "solution", "sol", "op",
    "选项", "",
)  # fmt: skip
CONTEXTS = tuple(
    """
    passage article content context ctx story premise sentence goal startphrase question question_stem stem
    prompt query text
    文章 正文 前提 背景 问题 题目 句子
    """.split()  # noqa: SIM905
)
LABELS = (
    "label",
    "answer",
    "answerkey",
    "answer_key",
    "correct",
    "gold",
    "target",
    "right",
    "cop",
    "标签",
    "答案",
)
# How COPA's questions are asked in words (Wang et al. 2019, SuperGLUE).
QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
_MARK = re.compile(r"_?(\d{1,2}|[a-j])$")
_PLACE = re.compile(r"\d+|[A-Za-z]")  # how labels name a place; `2` and `B` may be words of choices, too


def read_choices(
    source: Any,
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    drop_empty: bool = False,
    first: int | None = None,
    usual: int | None = None,
) -> Rows:
    """Rows whose `items` are (what is asked, the choices, place of the right one from 0, or None).

    first: as which number the first choice counts, 0 or 1; by the rows of each file where it is not given.
    usual: the same, for files whose rows do not tell.

    Raises:
        DataError: no choices are found, a row has fewer than two, its right one is none of them, or what
            numbers count from cannot be told.
    """
    widths: list[int] = []

    def find(table: Table) -> Columns:
        columns, n_asked = choice_columns(table, text=text, label=label, labelled=labelled)
        widths.append(n_asked)
        return columns

    found = read_fields(
        source, find, text=text, label=label, encoding=encoding, drop_empty=drop_empty, labelled=labelled
    )
    split = [_taken(item, widths[0]) for item in found.items or ()]
    labels = [own[0] if own else "" for own in found.labels]
    bases, notes = {}, list(found.notes)
    for file in dict.fromkeys(found.file_of.tolist()):  # each counts in its own way
        here = np.flatnonzero(found.file_of == file)
        said = [(labels[i], split[i][1]) for i in here]
        bases[file], told = _base(said, first, usual, found.files[file] if labelled else "")
        notes += told
    items = []
    for i, (asked, cells) in enumerate(split):
        choices = tuple(filter(None, cells))
        if len(choices) < 2:
            n = sum(len([*filter(None, c)]) < 2 for _, c in split)
            raise DataError(
                f"{found.where(i)}: at least two choices were wanted; the row has {len(choices)}. {n:,} of "
                f"{len(split):,} rows are so; add choices or leave them out."
            )
        own = found.labels[i]
        place = _place(own[0], cells, bases[int(found.file_of[i])], found, i) if own else None
        place = None if place is None else place - cells[:place].count("")  # empty ones are no choices
        items.append((asked, choices, place))
    texts = ["\n".join((asked, *choices)) for asked, choices, _ in items]
    return replace(
        found,
        texts=texts,
        items=items,
        labels=[()] * len(items),
        notes=tuple(dict.fromkeys(notes)),
        guessed=_guessed(bases.values()),
    )


def _guessed(bases: Iterable[int | None]) -> dict[str, int]:
    """What files that count alike say of others."""
    known = {base for base in bases if base is not None}
    return {"usual": known.pop()} if len(known) == 1 else {}


def choice_columns(
    table: Table, *, text: str | None, label: str | None, labelled: bool
) -> tuple[Columns, int]:
    """The columns of what is asked and of the choices, in this order, and how many the first are."""
    answers = named(table, label, key="label", must=labelled) if label is not None else []
    choices = _choice_columns([c for c in table.columns if c not in answers])
    if not choices:
        raise DataError(
            f"{table.name}: columns of choices were wanted; none is called {', '.join(LISTS[:3])}, or "
            f"choice1, choice2, …, or A, B, …. Columns: {', '.join(table.columns[:20])}. Rename them so."
        )
    rest = [c for c in table.columns if c not in choices and c not in answers]
    if text is not None:
        asked = named(table, text, key="text", must=True)
    else:
        asked = [c for name in CONTEXTS for c in rest if plain(c) == name]
    if not asked:
        likely = [c for c in rest if plain(c) not in NOT_TEXT] or rest or ["question"]
        raise DataError(
            f"{table.name}: a column of what is asked was wanted; none is called "
            f"{', '.join(CONTEXTS[6:13])}. Say which, such as `text: {likely[0]}`."
        )
    if label is None:
        hit = by_name([c for c in rest if c not in asked], LABELS)
        answers = [hit] if hit is not None else []
    if labelled and not answers:
        raise DataError(
            f"{table.name}: a column with the right choice was wanted; none is called "
            f"{', '.join(LABELS[:3])}. Say which with `label:`. Columns: {', '.join(table.columns[:20])}."
        )
    optional = frozenset(choices[2:]) if len(choices) > 1 else frozenset()
    note = (
        f"{table.name}: asked from {listed(asked)}, choices from {listed(choices)}"
        f"{f', the right one from {listed(answers)}' if answers else ''}"
    )
    columns = Columns((*asked, *choices), tuple(answers), (note,), frozenset(choices), optional)
    return columns, len(asked)


def asked_choices(inputs: Sequence[Any]) -> Rows:
    """What is asked and its choices, given by hand: an object, (what is asked, [choices]), or JSON of these.

    Raises:
        DataError: one is none of these, or has fewer than two choices.
    """
    items = []
    for i, given in enumerate(inputs):
        one = as_object(given)
        asked, choices = _of_object(one) if isinstance(one, dict) else _of_list(one)
        if not asked or len(choices) < 2 or not all(choices):
            raise DataError(
                f"`predict` takes what is asked and at least two choices here; item {i + 1} of {len(inputs)} "
                "is "
                f'{str(given)[:60]!r}. Give {{"question": "…", "choices": ["…", "…"]}}.'
            )
        items.append((asked, tuple(choices), None))
    return given_rows(items, ["\n".join((asked, *choices)) for asked, choices, _ in items])


def _of_object(one: dict[str, Any]) -> tuple[str, list[str]]:
    names = _choice_columns([*one])
    asked = [str(one[c]) for name in CONTEXTS for c in one if plain(c) == name and c not in names]
    values = [one[name] for name in names]
    if len(values) == 1 and isinstance(values[0], dict):  # {"A": "…", "B": "…"}, or ARC's {"text": […]}
        values = [values[0]["text"]] if "text" in values[0] else [*values[0].values()]
    flat_values = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
    return _said(asked), [str(value).strip() for value in flat_values]


def _of_list(one: Any) -> tuple[str, list[str]]:
    if not isinstance(one, list | tuple) or len(one) < 2 or not isinstance(one[0], str):
        return "", []
    rest = one[1] if len(one) == 2 and isinstance(one[1], list | tuple) else one[1:]
    return one[0].strip(), [str(value).strip() for value in rest]


def _choice_columns(columns: Sequence[str]) -> list[str]:
    whole = next((c for name in LISTS for c in columns if plain(c) == name), None)
    if whole is not None:
        return [whole]
    for stem in STEMS:
        found = [c for c in columns if plain(c).startswith(stem) and _MARK.fullmatch(plain(c)[len(stem) :])]
        if len(found) > 1:
            return sorted(found, key=lambda c: (len(plain(c)), plain(c)))  # choice10 behind choice9
    return []


def _taken(item: tuple[Any, ...], n_asked: int) -> tuple[str, tuple[str, ...]]:
    choices = tuple(one for cell in item[n_asked:] for one in flat(cell))
    return _said([one for cell in item[:n_asked] for one in flat(cell)]), choices


def _said(parts: Sequence[str]) -> str:
    return " ".join(QUESTIONS.get(part, part) for part in parts if part)


def _base(
    rows: Sequence[tuple[str, tuple[str, ...]]], first: int | None, usual: int | None, file: str
) -> tuple[int | None, tuple[str, ...]]:
    """Whether places are counted from 0 or 1, and what is told of that; None where labels are words.

    Numbers and letters that are choices of their rows are words only where all labels are: `2` of 3, 2, 1, 0
    is the third, `A` of B, A, O the first.

    Raises:
        DataError: numbers are neither 0 nor that of a last choice, and `file` is to say which is right.
    """
    if all(not own or own in row for own, row in rows):
        return None, ()
    numbers = [(int(own), len(row)) for own, row in rows if own.isdecimal()]
    if first is not None:
        return first, ()
    base = 0 if not numbers or any(place == 0 for place, _ in numbers) else 1
    if usual is not None and base and all(place < last for place, last in numbers):
        return usual, (f"{file}: right choices are told by numbers from {usual}, as in the train rows",)
    if file and base and all(place < last for place, last in numbers):
        raise DataError(
            f"{file}: the right choices were to be told by numbers from 0 or from 1; the {len(numbers):,} "
            "there are say neither 0 nor the number of a last choice, so which it is cannot be known. Say "
            "`task: {choose: {first: 0}}`, or 1."
        )
    return base, (f"the right choice is counted from {base}",) * bool(numbers)


def _place(own: str, choices: tuple[str, ...], base: int | None, rows: Rows, i: int) -> int:
    is_place = _PLACE.fullmatch(own) is not None
    if own in choices and (base is None or not is_place):
        return choices.index(own)
    place = -1
    if is_place:
        place = int(own) - (base or 0) if own.isdecimal() else ord(own.upper()) - ord("A")
    if not (0 <= place < len(choices) and choices[place]):
        raise DataError(
            f"{rows.where(i)}: one of {len([*filter(None, choices)])} choices was to be right; the row "
            f"says `{own}`, which is none of them (places are counted from {base or 0}). Mend it: a place, a "
            "letter or the choice's words."
        )
    return place
