"""Scores of rankings: how well what belongs to a query is found, with 95 % bootstrap intervals over queries.

Definitions, once, of a query with R right texts at ranks r (from 1): *recall@k* is the share of the R within
the first k; *MRR* is 1 / the best rank; *nDCG@10* is the sum of g / log2(r + 1) over the right ones within
the first ten, divided by the most it could be (Järvelin & Kekäläinen 2002), g being the grade of a text where
people graded them, else 1. All are means over queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from penjing.errors import DataError

if TYPE_CHECKING:
    from penjing.records import Scores

Floats = NDArray[np.float64]
Ranks = Sequence[NDArray[np.int64]]
Grades = Sequence[Floats] | None
RECALLS = (1, 5, 10, 100)
DRAWS = 1000
CHUNK = 2_000_000


def of_queries(ranks: Ranks, grades: Grades = None) -> dict[str, Floats]:
    """Each score of every query, (n,); `ranks` are those of its right texts, from 1, `grades` what each of
    these is worth, above 0."""
    worth = grades or [np.ones(len(own)) for own in ranks]
    ndcg = [_ndcg(own, gains, 10) for own, gains in zip(ranks, worth, strict=True)]
    found: dict[str, Floats] = {"ndcg_10": np.array(ndcg)}
    found["mrr"] = np.array([1 / own.min() for own in ranks])
    for k in RECALLS:
        found[f"recall_{k}"] = np.array([(own <= k).mean() for own in ranks])
    return found


def rankings(ranks: Ranks, seed: int, grades: Grades = None) -> Scores:
    """All scores and their intervals.

    Raises:
        DataError: there is no query, or one has nothing that belongs to it.
    """
    from penjing.records import Scores  # imports torch

    _check(ranks)
    each = of_queries(ranks, grades)
    means = _drawn(np.stack([*each.values()]), seed)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    intervals = {name: (float(a), float(b)) for name, a, b in zip(each, low, high, strict=True)}
    return Scores({name: float(values.mean()) for name, values in each.items()}, intervals)


def paired_difference(
    ours: Ranks, theirs: Ranks, name: str, seed: int, grades: Grades = None
) -> tuple[float, tuple[float, float]]:
    """A score of the first system minus that of the second over the same queries, and its 95 % interval."""
    _check(ours)
    gap = of_queries(ours, grades)[name] - of_queries(theirs, grades)[name]
    low, high = np.percentile(_drawn(gap[None], seed)[:, 0], [2.5, 97.5])
    return float(gap.mean()), (float(low), float(high))


def ranks_of(similar: NDArray[np.float32], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks from 1 of the texts at the places `right` among all (N,); of equally similar ones the first in
    order stands first."""
    own = similar[right]
    above = (similar[None, :] > own[:, None]).sum(1)
    before = ((similar[None, :] == own[:, None]) & (np.arange(len(similar))[None] < right[:, None])).sum(1)
    found: NDArray[np.int64] = above + before + 1
    return found


def _ndcg(ranks: NDArray[np.int64], gains: Floats, k: int) -> float:
    first = ranks <= k
    ideal = np.sort(gains)[::-1][:k]
    best = (ideal / np.log2(np.arange(len(ideal)) + 2.0)).sum()
    return float((gains[first] / np.log2(ranks[first] + 1.0)).sum() / best)


def _drawn(values_KN: Floats, seed: int) -> Floats:
    """(B, K) means over queries drawn with replacement."""
    rng, n = np.random.default_rng(seed), values_KN.shape[1]
    size = max(1, CHUNK // n)
    found = []
    for at in range(0, DRAWS, size):
        rows = rng.integers(0, n, size=(min(size, DRAWS - at), n))
        found.append(np.stack([own[rows].mean(1) for own in values_KN], axis=1))
    return np.concatenate(found)


def _check(ranks: Ranks) -> None:
    if not len(ranks) or not all(len(own) for own in ranks):
        raise DataError(
            f"Rankings need queries that something belongs to; {sum(not len(own) for own in ranks):,} of "
            f"{len(ranks):,} have nothing. Give each anchor a positive."
        )
