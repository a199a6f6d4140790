"""Two samples of vectors: principal components, and the maximum mean discrepancy.

Legend: M rows of the reference, N new rows, D width, K components, B shuffles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penjing.drift.shuffles import SHUFFLES, p_value

COMPONENTS = 64
ROUNDING = 1e-5  # of directions kept in single precision
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axes:
    """The principal components of the reference: its mean (D,) and the directions (K, D)."""

    mean: Floats
    directions: Floats

    def project(self, vectors_ND: NDArray[np.generic]) -> Floats:
        """(N, K + 1): coordinates along the components, and last how far a row lies beside them all.

        The last one is what sees a topic in a direction that the reference never took.
        """
        centred = np.asarray(vectors_ND, dtype=np.float64) - self.mean
        along = centred @ self.directions.T
        whole = (centred**2).sum(axis=1)
        beside = whole - (along**2).sum(axis=1)
        beside[beside < ROUNDING * whole] = 0.0  # where there are as many components as dimensions
        return np.column_stack([along, np.sqrt(beside)])


def axes_of(vectors_MD: NDArray[np.generic], *, most: int = COMPONENTS) -> Axes:
    """The leading principal components, at most half as many as there are rows.

    Of other rows than the reference: those that components were fitted to lie nearer to them than any others.
    """
    rows = np.asarray(vectors_MD, dtype=np.float64)
    mean = rows.mean(axis=0)
    kept = max(1, min(most, len(rows) // 2, rows.shape[1]))
    _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
    return Axes(mean, directions[:kept])


@dataclass(frozen=True)
class Discrepancy:
    """mmd2: unbiased, squared, of a kernel in 0..1; about 0 where nothing moved. width: of the kernel."""

    mmd2: float
    p: float
    width: float


def discrepancy(
    reference_MK: NDArray[np.generic],
    new_NK: NDArray[np.generic],
    *,
    generator: np.random.Generator,
    most: int = SHUFFLES,
) -> Discrepancy:
    """Maximum mean discrepancy of an RBF kernel as wide as the median distance, p-value by shuffling.

    Unbiased estimate of equation 3 in Gretton et al. 2012 (JMLR 13).
    """
    both = np.concatenate([np.asarray(x, dtype=np.float64) for x in (reference_MK, new_NK)])
    kernel, width = _kernel(both)
    n_old, n_all = len(reference_MK), len(both)
    found = float(_mmd2(kernel, _marks([np.arange(n_old)], n_all), n_old)[0])

    def shuffled(n: int) -> Floats:
        return _mmd2(kernel, _marks([generator.permutation(n_all)[:n_old] for _ in range(n)], n_all), n_old)

    p, _ = p_value(found, shuffled, most=most)
    return Discrepancy(found, p, width)


def farthest(reference_MK: NDArray[np.generic], new_NK: NDArray[np.generic], n: int) -> NDArray[np.int64]:
    """The new rows whose nearest row of the reference is farthest away, farthest first."""
    old, new = (np.asarray(x, dtype=np.float64) for x in (reference_MK, new_NK))
    squared = (new**2).sum(1)[:, None] + (old**2).sum(1)[None] - 2 * new @ old.T
    return np.argsort(-squared.min(axis=1), kind="stable")[:n]


def _kernel(rows: Floats) -> tuple[Floats, float]:
    norms = (rows**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms[None] - 2 * rows @ rows.T, 0.0)
    median = float(np.median(squared[np.triu_indices(len(rows), 1)]))
    kernel = np.exp(-squared / (median or 1.0) / 2)
    np.fill_diagonal(kernel, 0.0)  # a row is no evidence for itself: this is what makes it unbiased
    return kernel, float(np.sqrt(median))


def _marks(chosen: list[NDArray[np.int64]], n_all: int) -> Floats:
    """(B, M + N) one where a row is of the reference."""
    marks = np.zeros((len(chosen), n_all))
    for place, rows in zip(marks, chosen, strict=True):
        place[rows] = 1.0
    return marks


def _mmd2(kernel: Floats, marks_B: Floats, n_old: int) -> Floats:
    n_new = len(kernel) - n_old
    toward = marks_B @ kernel
    within_old = (toward * marks_B).sum(axis=1)
    across = toward.sum(axis=1) - within_old
    within_new = kernel.sum() - within_old - 2 * across
    found = within_old / (n_old * (n_old - 1)) + within_new / (n_new * (n_new - 1))
    return np.asarray(found - 2 * across / (n_old * n_new), dtype=np.float64)
