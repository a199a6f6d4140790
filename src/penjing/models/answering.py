"""Sources and answers as a base reads them: a side each for an encoder-decoder, one row for a decoder.

Legend: n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from penjing.data.feed import ends_of
from penjing.data.tokenize import tokenize
from penjing.models.load import Base
from penjing.records import Part, Rows, Tokens


def part_of_both(
    base: Base,
    rows: Rows,
    sources: Sequence[str],
    behind: Sequence[str],
    answers: Sequence[str] | None,
    longest: int,
    most: int,
) -> Part:
    """Sources of at most `longest` tokens and answers of at most `most`, cut ones counted and told. Without
    answers there is nothing to learn.

    behind: what a decoder reads between source and answer. Of a source that is too long the end is cut, and
    what is behind it stays.
    """
    if base.kind == "encoder-decoder":
        tokens = tokenize(base.tokenizer, sources, max_length=longest, cache=False)
        said = None if answers is None else _answers(base.tokenizer, answers, most)
        return Part(_told(rows, said.cut if said else 0, most), tokens, _wanted(answers, rows), answers=said)
    return _in_one(base, rows, sources, behind, answers, longest, most)


def _answers(tokenizer: Any, answers: Sequence[str], most: int) -> Tokens:
    return tokenize(tokenizer, answers, max_length=most, cache=False, said=True)


def _wanted(answers: Sequence[str] | None, rows: Rows) -> np.ndarray:
    found = np.empty(len(rows), dtype=object)
    found[:] = list(answers) if answers is not None else [""] * len(rows)
    return found


def _told(rows: Rows, cut: int, most: int) -> Rows:
    if not cut:
        return rows
    note = f"{cut:,} of {len(rows):,} answers are longer than {most} tokens; their ends are cut"
    return replace(rows, notes=(*rows.notes, note))


def _in_one(
    base: Base,
    rows: Rows,
    sources: Sequence[str],
    behind: Sequence[str],
    answers: Sequence[str] | None,
    longest: int,
    most: int,
) -> Part:
    """Each source with its answer behind it. What is learned is the answer and its end; `marks` (n, 1) say
    where it begins."""
    first, last = ends_of(base.tokenizer)
    encode = lambda texts: base.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]  # noqa: E731
    room = longest - most
    cut = answers_cut = 0
    ids, labels, lengths, marks = [], [], [], []
    tails = encode(answers) if answers is not None else [[]] * len(rows)
    wholes = encode([source + asks for source, asks in zip(sources, behind, strict=True)])
    for row, (whole, tail) in enumerate(zip(wholes, tails, strict=True)):
        head = [*first, *whole]
        if len(head) > room:
            cut += 1
            source, asks = encode([sources[row], behind[row]])
            asks = asks[max(0, len(first) + len(asks) - room) :]
            head = [*first, *source[: room - len(first) - len(asks)], *asks]
        own = [*tail, *last] if answers is not None else []
        answers_cut += len(own) > most
        own = own[:most]
        ids += [*head, *own]
        labels += [*[-100] * (len(head) - 1), *own, -100] if own else [-100] * len(head)
        lengths.append(len(head) + len(own))
        marks.append([len(head)])
    kind = np.uint16 if len(base.tokenizer) < 65536 else np.int32
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = Tokens(np.array(ids, kind), starts, cut, labels=np.array(labels, np.int64))
    return Part(
        _told(rows, answers_cut, most), tokens, _wanted(answers, rows), marks=np.array(marks, np.int64)
    )
