"""Cheap baselines of what is said of a source: its first sentences, or what the nearest was answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from penjing.saying import words_of

SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])|\n+")
MOST_ROWS, MOST_LEAD, PIECE = 20_000, 5, 512

Says = Callable[[Sequence[str]], list[str]]


def lead(sources: Sequence[str], targets: Sequence[str]) -> tuple[Says, str]:
    """The first sentences of a source: as many as come nearest to the targets' mean length, and how many."""
    wanted = np.mean([len(words_of(text)) for text in targets[:2000]])
    means = [
        np.mean([len(words_of(_first(text, n))) for text in sources[:2000]]) for n in range(1, MOST_LEAD + 1)
    ]
    n = 1 + int(np.argmin(np.abs(np.array(means) - wanted)))
    note = f"the baseline says a source's first {'sentence' if n == 1 else f'{n} sentences'}"
    return lambda texts: [_first(text, n) for text in texts], note


def _first(text: str, n: int) -> str:
    return " ".join([one for one in SENTENCE.split(text) if one.strip()][:n])


def nearest(sources: Sequence[str], targets: Sequence[str], seed: int) -> tuple[Says, str]:
    """What was said of the nearest source of the train rows, by TF-IDF of character n-grams."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    chosen = np.arange(len(sources))
    if len(chosen) > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MOST_ROWS, replace=False))
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    table = vectors.fit_transform([sources[int(i)] for i in chosen]).T.tocsr()

    def says(texts: Sequence[str]) -> list[str]:
        found: list[str] = []
        for first in range(0, len(texts), PIECE):
            near = (vectors.transform(list(texts[first : first + PIECE])) @ table).toarray()
            found += [targets[int(chosen[i])] for i in near.argmax(1)]
        return found

    return says, "the baseline says what was said of the nearest train source (TF-IDF)"
