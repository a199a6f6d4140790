"""How much of a text stands in it more than once: repeated n-grams (Rae et al. 2021, Gopher, table A1).

Two measures, both in characters over the characters of all units: that of the most frequent n-gram (n = 2,
3, 4),
and that of all n-grams that stood before (n = 5 … 10), where overlapping ones count once. Characters of
spaceless
scripts are shorter units than words, of which a Chinese one has up to 2, so there n is twice as large.
(With the 1.6
of running text a tenth of Chinese science abstracts, which are full of long terms, went for nothing.)

An n-gram that stands twice begins with a shorter one that does: the shortest are sorted once for all texts,
and each longer n looks only at the places that are left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from penjing.corpus.units import NEXT, Words, rolled

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
_SALT = np.uint64(0x9E3779B97F4A7C15)  # odd: an n-gram of one text is another in the next


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
    size = words.size
    bad = np.zeros(len(size), bool)
    for signs, most, again in repeats(words, [n * stretch for n in (*TOP, *AGAIN)]):
        n = signs // stretch
        bad |= most > TOP[n] * factor * size if n in TOP else again / size > AGAIN[n] * factor
    return bad


def repeats(words: Words, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(n, most, again) for each of these n, ascending, until none stands twice in its text.

    `most` is, of each text, the characters of the n-gram that has most of them, all its places together (0
    where none stands twice); `again` those of n-grams that stood before, each once. Both (T,) int64.
    """
    n_texts, n_units = len(words.edges) - 1, len(words.hashes)
    owner, ends = words.owner, np.concatenate([[0], np.cumsum(words.length)])
    last = np.repeat(words.edges[1:], np.diff(words.edges))
    at, grams = rolled(words, lengths[0])
    grams += owner[at].astype(np.uint64) * _SALT
    for n, longer in itertools.zip_longest(lengths, lengths[1:]):
        # One sort key: hash above, place below; a group is in the order of the text.
        low = np.uint64((1 << len(at).bit_length()) - 1)
        keys = np.sort((grams & ~low) | np.arange(len(at), dtype=np.uint64))
        same = (keys[1:] ^ keys[:-1]) <= low
        runs = np.flatnonzero(np.diff(same, prepend=False, append=False)).reshape(-1, 2)
        if not len(runs):
            return
        first, before = keys[runs[:, 0]] & low, np.sort(keys[1:][same] & low)
        place = at[first]
        most = np.zeros(n_texts, np.int64)
        np.maximum.at(most, owner[place], (ends[place + n] - ends[place]) * (runs[:, 1] - runs[:, 0] + 1))
        place = at[before]
        stop = np.minimum(place + n, np.append(place[1:], n_units))
        again = np.bincount(owner[place], ends[stop] - ends[place], n_texts).astype(np.int64)
        yield n, most, again
        if longer is not None:
            kept = np.sort(np.concatenate([first, before]))
            kept = kept[at[kept] + longer <= last[at[kept]]]
            at, grams = at[kept], grams[kept]
            for k in range(n, longer):
                grams = grams * NEXT + words.hashes[at + k]
