"""Test sets' text in training text: shared n-grams (Brown et al. 2020, GPT-3, appendix C: 13 words).

A document is contaminated when any run of 13 words, or of 13 characters of Chinese, stands in a test set
too. A
test text that is shorter counts as a whole, from six units on; shorter ones say nothing and are told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from penjing.corpus.units import Chunk, chunk, chunked, ngrams

LEAST = 6  # units that a test text must have to be looked for
_FILTER_BITS = 22


@dataclass(frozen=True)
class Against:
    """The n-grams of test sets: for each n, sorted hashes and which low bits occur among them."""

    hashes: dict[int, np.ndarray]  # n: (m,) uint64, ascending
    seen: dict[int, np.ndarray]  # n: (2**22,) bool, a look at which spares most searches
    n_texts: int
    n_short: int  # texts that are too short to be looked for


def against(texts: Iterable[str], *, n: int = 13) -> Against:
    """What training text is compared with. `n` is the length of the runs that must not be shared."""
    rows = list(texts)
    found: dict[int, list[np.ndarray]] = {}
    n_short = 0
    for part in chunked([len(text) for text in rows]):
        units = chunk(rows[part])
        sizes = np.diff(units.edges)
        n_short += int((sizes < LEAST).sum())
        for length in sorted({min(n, int(size)) for size in sizes if size >= LEAST}):
            at, hashes = ngrams(units.words, length)
            owner = units.owner[at]
            kept = sizes[owner] >= n if length == n else sizes[owner] == length
            found.setdefault(length, []).append(hashes[kept])
    whole = {length: np.unique(np.concatenate(parts)) for length, parts in found.items()}
    return Against(whole, {length: _low_bits(hashes) for length, hashes in whole.items()}, len(rows), n_short)


def contaminated(units: Chunk, known: Against) -> np.ndarray:
    """(texts,) bool: which share a run with a test set."""
    bad = np.zeros(len(units.starts) - 1, bool)
    for length, hashes in known.hashes.items():
        at, mine = ngrams(units.words, length)
        likely = np.flatnonzero(
            known.seen[length][(mine & np.uint64((1 << _FILTER_BITS) - 1)).astype(np.int64)]
        )
        place = np.minimum(np.searchsorted(hashes, mine[likely]), len(hashes) - 1)
        bad[units.owner[at[likely[hashes[place] == mine[likely]]]]] = True
    return bad


def _low_bits(hashes: np.ndarray) -> np.ndarray:
    seen = np.zeros(1 << _FILTER_BITS, bool)
    seen[(hashes & np.uint64((1 << _FILTER_BITS) - 1)).astype(np.int64)] = True
    return seen
