"""Questions about a text whose answers stand in it: SQuAD, CMRC and flat rows, read as they are.

| form | told by |
|---|---|
| SQuAD 1.1 and 2.0, CMRC 2018 in SQuAD's form | a key `paragraphs` in each article, `qas` in each paragraph |
| CMRC 2018's own | `context_text` and `qas` with `query_text` |
| a question a row | columns `question` and `context`; answers as `{text, answer_start}`, a list or a text |

An answer that does not stand where it is said to is moved to the nearest place where it does; one that stands
nowhere in the text cannot be learned, and is still scored with. Either is counted and named.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import named, one_named, simple
from penjing.data.entities import Place
from penjing.data.fields import as_object, given_rows
from penjing.data.labels import is_missing
from penjing.data.lists import literal
from penjing.data.sources import tables
from penjing.data.table import Table
from penjing.errors import DataError
from penjing.records import Rows

QUESTIONS = ("question", "query", "query_text", "q", "问题")
CONTEXTS = (
    "context", "passage", "context_text", "paragraph", "document", "article", "text",
    "原文", "上下文", "文章", "段落", "材料", "正文", "文本",
)  # fmt: skip
ANSWERS = ("answers", "answer", "answer_text", "answer_texts", "label", "答案", "回答")
STARTS = ("answer_start", "answer_starts", "start")


@dataclass(frozen=True)
class Answer:
    """A right answer: its text, and from which character of the context to before which it stands; -1 where
    it does not."""

    text: str
    start: int = -1
    end: int = -1


@dataclass(frozen=True)
class Question:
    """A question and the text that it is about. Without `answers` the text holds none."""

    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    name: str = ""  # its id, where it has one
    pieces: tuple[Place, ...] = ()  # where the context's tokens stand, once a tokenizer has read it


@dataclass
class _Found:
    items: list[Question] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)  # where, and what
    lost: list[str] = field(default_factory=list)
    unplaced: int = 0
    n_empty: int = 0
    placing: bool = True  # whether it matters where answers stand


def read(
    source: str | Path | Sequence[str | Path],
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
    placing: bool = True,
) -> Rows:
    """Rows with a `Question` each in `items`.

    Args:
        text: `question+context`, the two columns of flat rows. label: that of their answers.
        drop_empty: leave out rows whose question or context is empty. placing: find where answers stand.

    Raises:
        DataError: no known form, or a question or context is empty.
    """
    if delimiter is not None:
        raise DataError(
            "`data.delimiter` stands between labels of one cell; questions have none, so it would be "
            "ignored. Leave it out."
        )
    found = _Found(placing=placing)
    wanted = [*QUESTIONS, *CONTEXTS, *(text or "").split("+"), *([label] if label else [])]
    for table in tables(source, encoding=encoding, wanted=[name for name in wanted if name]):
        found.notes += table.notes
        file = len(found.files)
        found.files += table.files
        for line, one in _questions(table, text, label, labelled):
            _add(found, one, file, line, f"{table.name}, line {line}", drop_empty)
    if not found.items:
        raise DataError(f"{source}: no question is left of {found.n_empty:,} rows. Give some.")
    return Rows(
        [f"{one.question}\n{one.context}" for one in found.items],
        [()] * len(found.items),
        tuple(found.files),
        np.array([file for file, _ in found.places], dtype=np.int32),
        np.array([line for _, line in found.places], dtype=np.int64),
        tuple(dict.fromkeys([*found.notes, *_told(found)])),
        list(found.items),
    )


def asked(inputs: Sequence[Any]) -> Rows:
    """Rows of what somebody asks: `{question, context}`, or a question and a text.

    Raises:
        DataError: one is neither, or one of the two is empty.
    """
    items = []
    for i, given in enumerate(inputs):
        one = as_object(given)
        if isinstance(one, dict):
            one = [_under(one, QUESTIONS), _under(one, CONTEXTS)]
        if not isinstance(one, list | tuple) or len(one) != 2 or not all(isinstance(x, str) for x in one):
            raise DataError(
                f"`predict` takes a question and a text here; item {i + 1} of {len(inputs)} is "
                f'{str(given)[:60]!r}. Give {{"question": "…", "context": "…"}}, or a line with a tab.'
            )
        if not all(x.strip() for x in one):
            empty = "question" if not one[0].strip() else "context"
            raise DataError(
                f"Item {i + 1} of {len(inputs)}: a question and a text were wanted; the {empty} is empty "
                f"({str(given)[:60]!r}). Fill it or leave the item out."
            )
        items.append(Question(one[0].strip(), one[1]))
    return given_rows(items, [f"{one.question}\n{one.context}" for one in items])


# ---- forms


def _questions(
    table: Table, text: str | None, label: str | None, labelled: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, {question, context, answers, id}) of every question of a table."""
    nested = next((name for name in ("paragraphs", "qas") if name in table.columns), None)
    if nested is None:
        yield from _flat(table, text, label, labelled)
        return
    if text or label:
        key = "text" if text else "label"
        raise DataError(
            f"{table.name} holds `{nested}`, as SQuAD does: questions, texts and answers are where that form "
            f"has them, so `data.{key}` would be ignored. Leave it out."
        )
    columns = [name for name in table.columns if name in ("paragraphs", "qas", "context", "context_text")]
    for line, cells in table.rows(columns):
        row = dict(zip(columns, cells, strict=True))
        for paragraph in (row["paragraphs"] or []) if nested == "paragraphs" else [row]:
            context = _under(paragraph, ("context", "context_text"))
            for one in paragraph.get("qas") or []:
                none = bool(one.get("is_impossible"))
                answers = [] if none else one.get("answers")
                question = _under(one, ("question", "query_text"))
                name = _under(one, ("id", "query_id"))
                yield line, {"question": question, "context": context, "answers": answers, "id": name}


def _flat(
    table: Table, text: str | None, label: str | None, labelled: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    if text is not None:
        both = named(table, text, key="text", must=True)
    else:
        hits = [_column(table, names) for names in (QUESTIONS, CONTEXTS)]
        both = [name for name in hits if name]
    if len(both) != 2:
        raise DataError(
            f"{table.name}: a question and the text that it is about were wanted; columns are "
            f"{', '.join(table.columns[:12])}. Name both with `text: question+context`, or give SQuAD's form."
        )
    answers = one_named(table, label, key="label", must=labelled) if label else _column(table, ANSWERS)
    if answers is None and labelled:
        raise DataError(
            f"{table.name}: right answers were wanted; no column of {', '.join(table.columns[:12])} reads "
            "like them. Name it with `label:`; an empty list says that the text holds no answer."
        )
    starts = _column(table, STARTS)
    columns = [*both, *(name for name in (answers, starts, _column(table, ("id",))) if name)]
    for line, cells in table.rows(columns):
        row = dict(zip(columns, cells, strict=True))
        cell = row.get(answers or "")
        if starts and not isinstance(cell, dict):
            cell = {"text": cell, "answer_start": row[starts]}
        yield line, {"question": row[both[0]], "context": row[both[1]], "answers": cell, "id": row.get("id")}


def _column(table: Table, names: Sequence[str]) -> str | None:
    plain = {simple(name): name for name in reversed(table.columns)}
    return next((plain[name] for name in names if name in plain), None)


def _under(one: Any, keys: Sequence[str]) -> Any:
    return next((one[key] for key in keys if key in one), None) if isinstance(one, dict) else None


# ---- rows


def _add(found: _Found, one: dict[str, Any], file: int, line: int, where: str, drop_empty: bool) -> None:
    question, context = (str(one[key] or "") for key in ("question", "context"))
    name = "" if one["id"] is None else str(one["id"])
    place = f"{where}, question {name}" if name else where
    if not question.strip() or not context.strip():
        if not drop_empty:
            empty = "question" if not question.strip() else "context"
            raise DataError(
                f"{place}: a question and a text were wanted; the {empty} is empty. Fill it, or pass "
                "`drop_empty: true` to leave such rows out."
            )
        found.n_empty += 1
        return
    try:
        given = list(_answers(one["answers"]))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{place}: answers were wanted as [{{text, answer_start}}], {{text: […], answer_start: […]}} or "
            f"texts; {str(one['answers'])[:60]!r} stands ({error}). Write them so."
        ) from error
    answers = tuple(
        _placed(text, start, context, place, found) if found.placing else Answer(text)
        for text, start in given
    )
    found.items.append(Question(question.strip(), context, answers, name))
    found.places.append((file, line))


def _answers(cell: Any) -> Iterator[tuple[str, int | None]]:
    """(text, start or None) of each answer of a cell."""
    if isinstance(cell, str) and cell.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, SyntaxError):
            cell = literal(cell)
        if isinstance(cell, str) and cell.lstrip()[:2] in ("{'", '{"'):
            raise ValueError("an object that is neither JSON nor Python's")
    if is_missing(cell, typed=True):
        return
    if isinstance(cell, str | int | float) and not isinstance(cell, bool):
        yield str(cell), None
    elif isinstance(cell, dict):
        texts, starts = cell.get("text"), cell.get("answer_start", cell.get("start"))
        if texts is None or is_missing(texts, typed=True):
            return
        texts = [texts] if isinstance(texts, str | int | float) else [*texts]
        starts = [None] * len(texts) if is_missing(starts, typed=False) else starts
        starts = [*starts] if isinstance(starts, list | tuple) else [starts]
        yield from ((str(text), _whole(start)) for text, start in zip(texts, starts, strict=True) if text)
    elif isinstance(cell, list | tuple):
        for one in cell:
            yield from _answers(one)
    else:
        raise TypeError(f"{type(cell).__name__} is no answer")


def _whole(start: Any) -> int | None:
    """A place; `177.0`, as pandas writes it in a column where some are missing, is 177.

    Raises:
        ValueError: it is no whole number.
    """
    if is_missing(start, typed=False):
        return None
    if float(start) != int(float(start)):
        raise ValueError(f"{start!r} is no place")
    return int(float(start))


def _placed(text: str, start: int | None, context: str, where: str, found: _Found) -> Answer:
    """The answer where it is said to stand, else at the nearest place where it does: to the letter, or but
    for blanks and marks."""
    if start is not None and start >= 0 and context.startswith(text, start):
        return Answer(text, start, start + len(text))
    near = _nearest(text, context, start or 0)
    place = (near, near + len(text)) if near >= 0 else _but_for_marks(text, context, start or 0)
    if place is None:
        found.lost.append(f"{where}: {text[:40]!r}")
        return Answer(text)
    if start is None and near >= 0:
        found.unplaced += 1
    else:
        found.moved.append(f"{where}: {text[:40]!r} from {start} to {place[0]}")
    return Answer(text, *place)


def _but_for_marks(text: str, context: str, start: int) -> Place | None:
    """Where the letters and digits of `text` stand, whatever blanks and marks are between them."""
    places = [i for i, sign in enumerate(context) if sign.isalnum()]
    bare = "".join(context[i] for i in places)
    wanted = "".join(sign for sign in text if sign.isalnum())
    near = _nearest(wanted, bare, bisect_left(places, start)) if wanted else -1
    return None if near < 0 else (places[near], places[near + len(wanted) - 1] + 1)


def _nearest(text: str, context: str, start: int) -> int:
    """The place nearest to `start` at which `text` begins; -1 where there is none."""
    before = context.rfind(text, 0, max(0, start) + len(text))
    after = context.find(text, max(0, start))
    if before < 0 or after < 0:
        return max(before, after)
    return before if start - before <= after - start else after


def _told(found: _Found) -> list[str]:
    """What was mended or left out, in words."""
    n = len(found.items)
    n_none = sum(not one.answers for one in found.items)
    notes = [f"{n_none:,} of {n:,} questions have no answer in their text"] if 0 < n_none < n else []
    if found.n_empty:
        notes.append(f"{found.n_empty:,} rows left out, their question or text is empty")
    if found.unplaced:
        notes.append(f"{found.unplaced:,} answers came without a place: the first where they stand is taken")
    for flaws, what in (
        (
            found.moved,
            "do not stand where they are said to: moved to the nearest place where they do",
        ),
        (found.lost, "stand nowhere in their text: they are scored with, and not learned from"),
    ):
        if flaws:
            notes.append(f"{len(flaws):,} answers {what} ({'; '.join(flaws[:2])}{' …' * (len(flaws) > 2)})")
    return notes
