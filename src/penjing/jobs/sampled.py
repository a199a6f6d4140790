"""What a run will be fed, from some of its rows or documents: for forecasts before it begins."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.data.feed import Document, feed_of, pieces_of
from penjing.data.pixels import image_tokens
from penjing.data.tokenize import tokenize
from penjing.data.vocab.segment import words as segmented
from penjing.jobs.feeding import Texts
from penjing.jobs.prepare import Data, max_length
from penjing.models.load import Base
from penjing.records import Part, Tokens
from penjing.spec import Spec
from penjing.task import Task

SAMPLED = 2000  # rows whose tokens are counted
READ = 2_000_000  # characters of a corpus that are tokenized
TURNS = 4  # steps of a corpus that are looked at, in each of which another objective may have its turn


@dataclass(frozen=True)
class Sample:
    """Tokens of some of `n_rows` rows, as steps see them; `asked`: share of them asked for a word."""

    tokens: Tokens
    n_rows: int
    asked: float = 0.0


def of_rows(spec: Spec, task: Task, base: Base, data: Data) -> Sample:
    """Of labelled rows."""
    rows, n_rows, longest = data.train, len(data.train), max_length(spec, base)
    some = rows.take(np.arange(0, n_rows, max(1, n_rows // SAMPLED)))
    if base.way.sight:
        return Sample(image_tokens(len(some), longest), n_rows)
    if task.part:
        part = task.part(base, some, data.names, longest, labelled=True)
        return Sample(part.tokens, n_rows, asked_of(part))
    return Sample(tokenize(base.tokenizer, some.texts, max_length=longest, cache=False), n_rows)


def of_corpus(spec: Spec, task: Task, base: Base, texts: Texts) -> Sample:
    """Of a corpus: documents drawn evenly, cut into pieces as the objective wants them.

    Raises:
        DataError: the corpus cannot be read, or holds no text.
    """
    assert task.feed is not None
    whole = max(1, sum(sum(one.characters.values()) for one in texts.corpora))
    share = min(1.0, READ / whole)

    def documents() -> Iterator[Document]:
        for one in texts.train():
            if share == 1.0 or zlib.crc32(one.text.encode("utf-8", "replace")) < share * 2**32:
                yield one

    words: Any = (lambda text: [first for first, _ in segmented(text)]) if task.feed.heads else None
    stream = feed_of(documents, base.tokenizer, task.feed, key="", words=words, cache=False)
    part = pieces_of(stream, task.feed, max_length(spec, base))
    tokens, asked = as_seen(task, part, spec.train.batch)
    return Sample(tokens, round(len(part) / share), asked)


def as_seen(task: Task, part: Part, batch: int) -> tuple[Tokens, float]:
    """The tokens of some steps of a corpus as the objective shows them, and the share asked for a word."""
    if task.vary is None:
        return part.tokens, asked_of(part)
    rows = np.linspace(0, len(part) - 1, min(len(part), max(batch, SAMPLED // TURNS))).astype(np.int64)
    shown = [task.vary(part, rows, seed) for seed in range(TURNS)]
    lengths = np.concatenate([one.tokens.lengths for one in shown])
    tokens = Tokens(np.zeros(0, np.int64), np.concatenate([[0], np.cumsum(lengths)]))
    return tokens, float(np.mean([asked_of(one) for one in shown]))


def asked_of(part: Part) -> float:
    """Of the tokens that are read, the share that is asked for a word, or that is to be said."""
    n_tokens = max(1, int(part.tokens.starts[-1]))
    if part.answers is not None:
        return int(part.answers.starts[-1]) / n_tokens
    labels = part.tokens.labels
    return 0.0 if labels is None else float((np.asarray(labels) != -100).sum()) / n_tokens
