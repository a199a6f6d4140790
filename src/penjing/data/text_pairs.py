"""Which two columns are a pair of texts, and pairs that somebody gives by hand.

A guess is always told. To know one more usual pair of names, add it to `PAIRS`, the likeliest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penjing.data.columns import (
    LABEL_NAMES,
    NOT_TEXT,
    by_name,
    filled,
    label_by_content,
    listed,
    named,
    wordy,
)
from penjing.data.columns import simple as plain
from penjing.data.fields import Columns, as_object, given_rows
from penjing.data.numbers import number_column
from penjing.data.table import Table, sample
from penjing.errors import DataError
from penjing.records import Rows

# Beside these, names that differ by a mark alone: sentence1 and sentence2, text_a and text_b, `#1 String`.
PAIRS = (
    ("premise", "hypothesis"), ("anchor", "positive"), ("query", "positive"), ("query", "pos"),
    ("query", "passage"),
    ("query", "document"), ("query", "doc"), ("query", "title"), ("query", "text"), ("query", "answer"),
    ("query", "response"), ("question", "sentence"), ("question", "answer"), ("question", "passage"),
    ("question", "context"), ("question", "document"), ("claim", "evidence"), ("context", "response"),
    ("title", "body"), ("前提", "假设"), ("问题", "答案"), ("查询", "文档"),
    ("问题", "回答"),
)  # fmt: skip
MARKS = (
    ("1", "2"),
    ("0", "1"),
    ("a", "b"),
    ("first", "second"),
    ("left", "right"),
    ("一", "二"),
    ("甲", "乙"),
)
_NO_TEXT = NOT_TEXT | {"score", "scores", "rating", "label", "labels"}  # `id1`, `sentence1_id`
MORE_LABELS = ("quality", "is_duplicate", "duplicate", "paraphrase", "entailment", "gold_label", "match")


def pair_columns(
    *, text: str | None, label: str | None, labelled: bool, scores: bool = False
) -> Callable[[Table], Columns]:
    """A function that finds the two texts of a table and its label, which are numbers where `scores`."""

    def find(table: Table) -> Columns:
        labels = named(table, label, key="label", must=labelled) if label is not None else []
        texts = pair_of(table, text, besides=label)
        if label is None:
            labels = _label(table, texts, labelled=labelled, scores=scores)
        return Columns(tuple(texts), tuple(labels), _told(table, texts, labels, text, label))

    return find


def pair_of(table: Table, text: str | None, *, besides: str | None = None) -> list[str]:
    """The two columns of texts of a table: those that `text` names (`a+b`), else by names, else by content.

    Raises:
        DataError: there are not just two.
    """
    if text is None:
        return _by_names(table, besides) or _by_content(table, besides)
    texts = named(table, text, key="text", must=True)
    if len(texts) != 2:
        raise DataError(
            f"{table.name}: `text: {text}` names {len(texts)} column{'s' * (len(texts) != 1)}; a pair has "
            f"two. Name both, such as `text: sentence1+sentence2`. Columns: {', '.join(table.columns[:20])}."
        )
    return texts


def asked_pairs(inputs: Sequence[Any]) -> Rows:
    """Pairs given by hand as rows: two texts, an object with two, or a line of JSON or TSV with such.

    Raises:
        DataError: one is none of these, or one of its texts is empty.
    """
    pairs = []
    for i, given in enumerate(inputs):
        one = as_object(given)
        if isinstance(one, dict):
            both = _named_pair([*map(str, one)])
            one = [one[name] for name in both] if both else one
        if not isinstance(one, list | tuple) or len(one) != 2 or not all(isinstance(x, str) for x in one):
            raise DataError(
                f"`predict` takes pairs of texts here; item {i + 1} of {len(inputs)} is {str(given)[:60]!r}. "
                f'Give two texts: ["a", "b"], {{"text_a": "a", "text_b": "b"}}, or a line with a tab between.'
            )
        if not all(x.strip() for x in one):
            place = 1 if not one[0].strip() else 2
            raise DataError(
                f"Pair {i + 1} of {len(inputs)}: two texts were wanted; text {place} is empty "
                f"({str(given)[:60]!r}). Fill it or leave the pair out."
            )
        pairs.append((one[0].strip(), one[1].strip()))
    return given_rows(pairs, [f"{a}\n{b}" for a, b in pairs])


def _by_names(table: Table, label: str | None) -> list[str]:
    taken = (label or "").split("+")
    return list(_named_pair([c for c in table.columns if c not in taken]) or ())


def _named_pair(columns: Sequence[str]) -> tuple[str, str] | None:
    """Two columns whose names say that they are a pair."""
    usable = [c for c in columns if not _no_text(plain(c).split("_")[-1].rstrip("0123456789"))]
    bare = {c: plain(c).replace("_", "") for c in usable}
    for first, second in MARKS:
        for a in usable:
            for b in usable:
                if a != b and _differ_by(bare[a], bare[b], first, second):
                    return a, b
    for first, second in PAIRS:
        hits = [next((c for c in usable if plain(c) == name), None) for name in (first, second)]
        if hits[0] is not None and hits[1] is not None:
            return hits[0], hits[1]
    return None


def _no_text(word: str) -> bool:
    """Whether a column whose name ends so holds no text; `qid` and `docid` are ids, too."""
    return word in _NO_TEXT or (word.endswith("id") and len(word) <= 5)


def _differ_by(a: str, b: str, first: str, second: str) -> bool:
    """Whether b is a with one `first` exchanged for `second`, at either end of the name."""
    ends = a.endswith(first) and b == a[: -len(first)] + second
    return (ends or (a.startswith(first) and b == second + a[len(first) :])) and len(a) > 1


def _by_content(table: Table, label: str | None) -> list[str]:
    cells = sample(table)
    besides = (label or "").split("+")
    lengths = wordy(table, cells, besides=besides)
    found = [c for c in table.columns if c in lengths and plain(c) not in LABEL_NAMES]
    if len(found) != 2:
        shown = ", ".join(f"`{c}` ({(filled(cells, i) or ['empty'])[0][:30]!r})"
                          for i, c in enumerate(table.columns[:12]))  # fmt: skip
        raise DataError(
            f"{table.name}: two columns of texts were wanted; which they are could not be guessed "
            f"({len(found)} read like texts). Columns: {shown}. Say which, such as "
            f"`text: {'+'.join(found[:2]) if len(found) > 1 else 'a+b'}`."
        )
    return found


def _label(table: Table, texts: Sequence[str], *, labelled: bool, scores: bool) -> list[str]:
    if scores:
        return number_column(table, besides=texts, must=labelled)
    rest = [c for c in table.columns if c not in texts]
    hit = by_name(rest, (*MORE_LABELS, *LABEL_NAMES))
    if hit is not None:
        return [hit]
    return label_by_content(table, sample(table), texts) if labelled else []


def _told(
    table: Table, texts: Sequence[str], labels: Sequence[str], text: str | None, label: str | None
) -> tuple[str, ...]:
    """What was guessed, in a sentence."""
    guessed = [f"the pair from {listed(texts)}"] if text is None else []
    guessed += [f"label from {listed(labels)}"] if label is None and labels else []
    if not guessed:
        return ()
    sure = " and ".join(f"`{key}:`" for key, given in (("text", text), ("label", label)) if given is None)
    return (f"{table.name}: {', '.join(guessed)} (guessed; say {sure} to be sure)",)
