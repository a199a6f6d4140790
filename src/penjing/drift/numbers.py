"""Two samples of numbers: Kolmogorov and Smirnov's distance, and its chance where nothing moved.

Legend: M rows of the reference, N new rows, K columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def distances(reference_MK: NDArray[np.generic], new_NK: NDArray[np.generic]) -> Floats:
    """(K,) the greatest distance between the two samples' distribution functions, 0..1, of each column.

    0.1 says: at some value the shares of rows below it differ by a tenth (Smirnov 1939).
    """
    found = []
    for old, new in zip(np.atleast_2d(reference_MK.T), np.atleast_2d(new_NK.T), strict=True):
        old, new = np.sort(old), np.sort(new)
        both = np.concatenate([old, new])
        below_old = np.searchsorted(old, both, side="right") / len(old)
        below_new = np.searchsorted(new, both, side="right") / len(new)
        found.append(np.abs(below_old - below_new).max())
    return np.array(found, dtype=np.float64)


def p_values(distances_K: Floats, n_reference: int, n_new: int) -> Floats:
    """(K,) chance of a distance as great where both samples are of one continuous distribution.

    By the exact one-sample distribution at M N / (M + N) rows, as scipy's `ks_2samp(method="asymp")` has it.
    Equal values (lengths, shares) make the test stricter, never laxer.
    """
    from scipy.stats import kstwo

    rows = max(1, round(n_reference * n_new / (n_reference + n_new)))
    return np.asarray(np.clip(kstwo.sf(distances_K, rows), 0.0, 1.0), dtype=np.float64)


def rises(reference_M: NDArray[np.generic], new_N: NDArray[np.generic]) -> tuple[float, float]:
    """How far the new numbers stand above the others, 0..1, and its chance where they do not: the one-sided
    distance, by Hodges' approximation (1958, Arkiv för Matematik 3, equation 5.3)."""
    old, new = np.sort(reference_M), np.sort(new_N)
    both = np.concatenate([old, new])
    below_old = np.searchsorted(old, both, side="right") / len(old)
    below_new = np.searchsorted(new, both, side="right") / len(new)
    distance = float(max((below_old - below_new).max(), 0.0))
    m, n = (float(max(len(old), len(new))), float(min(len(old), len(new))))
    z = np.sqrt(m * n / (m + n)) * distance
    power = -2 * z**2 - 2 * z * (m + 2 * n) / np.sqrt(m * n * (m + n)) / 3
    return distance, float(min(np.exp(power), 1.0))


def holm(p_values: NDArray[np.generic]) -> Floats:
    """p-values such that the chance of any at or below α among true null hypotheses is at most α, whatever
    depends on what (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(stepped, 1.0)
    return found
