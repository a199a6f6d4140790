"""How much of a text stands in it more than once: repeated n-grams (Rae et al. 2021, Gopher, table A1).

Two measures, both in characters over the characters of all units: that of the most frequent n-gram (n = 2,
3, 4),
and that of all n-grams that stood before (n = 5 … 10), where overlapping ones count once. Characters of
spaceless
scripts are shorter units than words, of which a Chinese one has up to 2, so there n is twice as large.
(With the 1.6
of running text a tenth of Chinese science abstracts, which are full of long terms, went for nothing.)

Most texts are cleared by two sorts. An n-gram is not more frequent than its parts, so the frequency of
2-grams
bounds what longer ones can hold; and an n-gram that stood before is made of 5-grams that did, so that a text
below the least limit at n = 5 is below all.
"""

from __future__ import annotations

import numpy as np

from penjing.corpus.units import Words, ngrams

TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # n: most characters in the most frequent n-gram
AGAIN = {
    5: 0.15,
    6: 0.14,
    7: 0.13,
    8: 0.12,
    9: 0.11,
    10: 0.10,
}  # n: most characters in n-grams that stood before
SIGNS_A_WORD = 2  # of Chinese
_LENGTH = np.uint64(255)  # the lowest bits of a key: characters of an n-gram, 255 for more
_OWNER = np.uint64(44)  # above these bits of a key: its text


def repetitive(words: Words, dense: np.ndarray, looked_at: np.ndarray, *, factor: float = 1.0) -> np.ndarray:
    """(n,) bool: texts beyond a limit.

    Args:
        dense: (n,) bool, texts of a spaceless script.
        looked_at: (n,) bool, texts to judge; short ones repeat themselves by chance.
        factor: on every limit.
    """
    bad = np.zeros(len(words.edges) - 1, bool)
    for stretch, kind in ((1, ~dense), (SIGNS_A_WORD, dense)):
        chosen = np.flatnonzero(looked_at & kind)
        if len(chosen):
            bad[chosen] = _beyond(words.of(chosen), stretch, factor)
    return bad


def _beyond(words: Words, stretch: int, factor: float) -> np.ndarray:
    size, longest = words.size, np.maximum.reduceat(words.length, words.edges[:-1])
    bad = np.zeros(len(size), bool)
    count: np.ndarray | None = None
    for n, limit in TOP.items():
        signs, room = n * stretch, limit * factor * size
        look = (
            np.flatnonzero(~bad & (count * signs * longest > room))
            if count is not None
            else np.arange(len(size))
        )
        if len(look):
            counts, most, _ = frequent(words.of(look) if len(look) < len(size) else words, signs)
            bad[look] |= most > room[look]
            count = counts if count is None else count
    _, _, again = frequent(words, min(AGAIN) * stretch)
    suspects = np.flatnonzero(~bad & (again > min(AGAIN.values()) * factor * size))
    for n, limit in AGAIN.items():
        if len(suspects):
            share = repeated(words.of(suspects), n * stretch) / size[suspects]
            bad[suspects] |= share > limit * factor
            suspects = suspects[(share > min(AGAIN.values()) * factor) & ~bad[suspects]]
    return bad


def frequent(words: Words, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each text: how often its most frequent n-gram stands there, the characters of the n-gram that has
    most
    (0 where none stands twice), and those of n-grams that stood before, overlaps counted again. Each (T,)
    int64.
    """
    keys = np.sort(_keys(words, n)[0])
    n_texts = len(words.edges) - 1
    twice = np.flatnonzero(keys[1:] == keys[:-1]) + 1  # places of all but the first of each n-gram
    owner, length = (keys[twice] >> _OWNER).astype(np.int64), (keys[twice] & _LENGTH).astype(np.int64)
    again = np.bincount(owner, length, n_texts).astype(np.int64)
    first = np.append(True, np.diff(keys[twice]) != 0)[: len(twice)]
    begin = np.flatnonzero(first)
    times = np.diff(np.append(begin, len(twice))) + 1
    count, most = np.ones(n_texts, np.int64), np.zeros(n_texts, np.int64)
    np.maximum.at(count, owner[begin], times)
    np.maximum.at(most, owner[begin], times * length[begin])
    return count, most, again


def repeated(words: Words, n: int) -> np.ndarray:
    """(T,) int64 characters in n-grams that stood before in their text, each character once."""
    keys, at = _keys(words, n)
    order = np.argsort(keys, kind="stable")
    again = at[order[1:][keys[order[1:]] == keys[order[:-1]]]]
    marks = np.zeros(len(words.hashes) + 1, np.int64)
    np.add.at(marks, again, 1)
    np.subtract.at(marks, again + n, 1)
    sums = np.concatenate([[0], np.cumsum(np.where(np.cumsum(marks[:-1]) > 0, words.length, 0))])
    return np.asarray(sums[words.edges[1:]] - sums[words.edges[:-1]])


def _keys(words: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every n-gram: text (20 bits) over hash (36 bits) over characters (8 bits); and its first unit."""
    at, hashes = ngrams(words, n)
    owner = np.repeat(np.arange(len(words.edges) - 1, dtype=np.uint64), np.diff(words.edges))[at]
    ends = np.concatenate([[0], np.cumsum(words.length)])
    length = np.minimum(ends[at + n] - ends[at], 255).astype(np.uint64)
    return (owner << _OWNER) | ((hashes >> np.uint64(20)) & ~_LENGTH) | length, at
