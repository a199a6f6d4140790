"""Two samples of names (answers, languages): how much of the one lies elsewhere in the other.

Legend: C names, B shuffles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penjing.drift.shuffles import SHUFFLES, p_value


@dataclass(frozen=True)
class Moved:
    """chi2: Pearson's statistic. share: of the rows that would have to change their name for both samples to
    be alike (total variation), 0..1. by_chance: what of it shuffled rows show. v: Cramér's V, 0..1."""

    chi2: float
    p: float
    share: float
    by_chance: float
    v: float


def compare_counts(
    reference_C: NDArray[np.generic],
    new_C: NDArray[np.generic],
    *,
    generator: np.random.Generator,
    most: int = SHUFFLES,
) -> Moved:
    """Pearson's chi-square of two rows of counts, its p-value by shuffling.

    Of 77 labels and 200 rows most are expected less than five times, where the chi-square distribution says
    nothing; a shuffle of the rows is one draw of a multivariate hypergeometric, and exact.
    """
    old, new = (np.asarray(c, dtype=np.int64) for c in (reference_C, new_C))
    there = (old + new) > 0
    old, new = old[there], new[there]
    both, n_new = old + new, int(new.sum())
    statistic = float(_chi2(both, new[None])[0])
    shares: list[NDArray[np.float64]] = []

    def shuffled(n: int) -> NDArray[np.float64]:
        drawn = generator.multivariate_hypergeometric(both, n_new, size=n, method="marginals")
        if not shares:
            shares.append(_moved(both, drawn))
        return _chi2(both, drawn)

    p, _ = p_value(statistic, shuffled, most=most)
    v = float(np.sqrt(statistic / both.sum())) if len(both) > 1 else 0.0  # of two samples: min(r, c) - 1 = 1
    return Moved(statistic, p, float(_moved(both, new[None])[0]), float(shares[0].mean()), v)


def _chi2(both_C: NDArray[np.int64], new_BC: NDArray[np.int64]) -> NDArray[np.float64]:
    total, n_new = both_C.sum(), new_BC.sum(axis=1, keepdims=True)
    expected = both_C * (n_new / total)
    far = (new_BC - expected) ** 2
    # Both rows of the table are as far from what is expected of them.
    return np.asarray((far / expected + far / (both_C - expected)).sum(axis=1), dtype=np.float64)


def _moved(both_C: NDArray[np.int64], new_BC: NDArray[np.int64]) -> NDArray[np.float64]:
    old_BC = both_C - new_BC
    shares = new_BC / new_BC.sum(axis=1, keepdims=True) - old_BC / old_BC.sum(axis=1, keepdims=True)
    return np.asarray(np.abs(shares).sum(axis=1) / 2, dtype=np.float64)
