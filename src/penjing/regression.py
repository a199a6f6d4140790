"""Scores of predicted numbers, their 95 % bootstrap intervals, and the difference between two systems.

Definitions, once: *R2* is 1 - sum of squared errors / sum of squared distances from the truth's mean, at most
1; *Pearson* and *Spearman* are correlations in -1..1 of the numbers and of their ranks (ties share their mean
rank), 0 where either side does not vary; *MAE* and *RMSE* are in the numbers' own unit. Of several numbers a
row each score is the mean over them.

Shape suffixes: S rows, K numbers a row, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penjing.errors import DataError

if TYPE_CHECKING:
    from penjing.records import Scores

Floats = NDArray[np.float64]
DRAWS = 1000
MOST_DRAWN = 20_000_000  # rows over all draws; of more rows fewer draws are made, at least 100
CHUNK = 200_000  # rows drawn at once: what fits a processor's cache
SHOWN = 400  # points of the report's figure


def straight(found: Floats, chosen: Mapping[str, Any]) -> Floats:
    """(S, K) numbers on the line that was fitted on the validation rows, where one was."""
    return np.asarray(chosen.get("shift", 0.0) + chosen.get("slope", 1.0) * found)


def r2(found_S: Floats, truth_S: Floats, counts_BS: Floats) -> Floats:
    """(B,) coefficient of determination; 0 where the truth does not vary."""
    n, about = counts_BS.sum(1), truth_S - truth_S.mean()
    squares = counts_BS @ about**2
    spread = squares - (counts_BS @ about) ** 2 / n
    error = counts_BS @ (found_S - truth_S) ** 2
    there = spread > 1e-12 * squares
    share: Floats = np.divide(error, spread, out=np.ones_like(error), where=there)
    return 1 - share


def pearson(found_S: Floats, truth_S: Floats, counts_BS: Floats) -> Floats:
    """(B,) linear correlation."""
    return _correlation(found_S - found_S.mean(), truth_S - truth_S.mean(), counts_BS)


def spearman(found_S: Floats, truth_S: Floats, counts_BS: Floats) -> Floats:
    """(B,) correlation of ranks."""
    return _correlation(_ranks(found_S, counts_BS), _ranks(truth_S, counts_BS), counts_BS)


def mae(found_S: Floats, truth_S: Floats, counts_BS: Floats) -> Floats:
    """(B,) mean absolute error."""
    found: Floats = counts_BS @ np.abs(found_S - truth_S) / counts_BS.sum(1)
    return found


def rmse(found_S: Floats, truth_S: Floats, counts_BS: Floats) -> Floats:
    """(B,) root of the mean squared error."""
    found: Floats = np.sqrt(counts_BS @ (found_S - truth_S) ** 2 / counts_BS.sum(1))
    return found


def _correlation(x: Floats, y: Floats, counts_BS: Floats) -> Floats:
    """(B,) Pearson's of x and y, (S,) or one a draw (B, S)."""

    def total(values: Floats) -> Floats:
        found: Floats = counts_BS @ values if values.ndim == 1 else (counts_BS * values).sum(1)
        return found

    n = counts_BS.sum(1)
    sx, sy, xx, yy = total(x), total(y), total(x * x), total(y * y)
    vx, vy = xx - sx**2 / n, yy - sy**2 / n
    product: Floats = total(x * y) - sx * sy / n
    there = (vx > 1e-12 * xx) & (vy > 1e-12 * yy)  # what rounding leaves of equal numbers is no spread
    return np.divide(product, np.sqrt(np.abs(vx * vy)), out=np.zeros_like(product), where=there)


def _ranks(values_S: Floats, counts_BS: Floats) -> Floats:
    """(B, S) ranks of the values when each stands there as often as a draw says; equals share their mean."""
    kinds, kind_of = np.unique(values_S, return_inverse=True)
    order = np.argsort(kind_of, kind="stable")
    starts = np.searchsorted(kind_of[order], np.arange(len(kinds)))
    n_BK = np.add.reduceat(counts_BS[:, order], starts, axis=1)
    middle = np.cumsum(n_BK, axis=1) - n_BK / 2
    found: Floats = (middle - counts_BS.sum(1, keepdims=True) / 2)[:, kind_of]  # about 0, for the sums' sake
    return found


Score = Callable[[Floats, Floats, Floats], Floats]
SCORES: dict[str, Score] = {
    "spearman": spearman, "pearson": pearson, "r2": r2, "mae": mae, "rmse": rmse,
}  # fmt: skip


def numbers(found_SK: NDArray[Any], truth_SK: NDArray[Any], names: Sequence[str], seed: int) -> Scores:
    """All scores of `found` against the truth, intervals of each, and a table of each number's own where
    there are several. `predicted` holds up to 400 rows, evenly, for the report's figure.

    Raises:
        DataError: no rows, shapes that differ, or predictions that are not finite.
    """
    from penjing.records import Scores  # imports torch

    found, truth = _checked(found_SK, truth_SK)
    values, intervals = {}, {}
    drawn: dict[str, list[Floats]] = {name: [] for name in SCORES}
    for counts in _draws(len(truth), seed):
        for name, score in SCORES.items():
            drawn[name].append(_mean(score, found, truth, counts))
    once = np.ones((1, len(truth)))
    for name, score in SCORES.items():
        values[name] = float(_mean(score, found, truth, once)[0])
        low, high = np.percentile(np.concatenate(drawn[name]), [2.5, 97.5])
        intervals[name] = (float(low), float(high))
    shown = np.unique(np.linspace(0, len(truth) - 1, min(SHOWN, len(truth))).astype(int))
    tables: dict[str, Any] = {
        "predicted": [
            {"name": name, "truth": truth[shown, k].tolist(), "predicted": found[shown, k].tolist()}
            for k, name in enumerate(names)
        ]
    }
    if len(names) > 1:
        tables["per_number"] = [
            {"name": name, **{n: float(s(found[:, k], truth[:, k], once)[0]) for n, s in SCORES.items()}}
            for k, name in enumerate(names)
        ]
    return Scores(values, intervals, tables)


def paired_difference(
    ours_SK: NDArray[Any], theirs_SK: NDArray[Any], truth_SK: NDArray[Any], name: str, seed: int
) -> tuple[float, tuple[float, float]]:
    """A score of the first system minus that of the second, and its 95 % interval, both on the same draws."""
    ours, truth = _checked(ours_SK, truth_SK)
    theirs, _ = _checked(theirs_SK, truth_SK)
    score = SCORES[name]

    def gap(counts: Floats) -> Floats:
        return _mean(score, ours, truth, counts) - _mean(score, theirs, truth, counts)

    low, high = np.percentile(np.concatenate([gap(c) for c in _draws(len(truth), seed)]), [2.5, 97.5])
    return float(gap(np.ones((1, len(truth))))[0]), (float(low), float(high))


def _mean(score: Score, found_SK: Floats, truth_SK: Floats, counts_BS: Floats) -> Floats:
    """(B,) the mean over a row's numbers of a score on drawn rows."""
    each = [score(found_SK[:, k], truth_SK[:, k], counts_BS) for k in range(truth_SK.shape[1])]
    mean: Floats = np.mean(each, axis=0)
    return mean


def _draws(n: int, seed: int) -> Iterator[Floats]:
    """(B, S) how often each row stands in a draw with replacement of all of them, some draws at a time."""
    total = max(100, min(DRAWS, MOST_DRAWN // n))
    size = max(1, CHUNK // n)
    rng = np.random.default_rng(seed)
    for at in range(0, total, size):
        many = min(size, total - at)
        rows = rng.integers(0, n, size=(many, n)) + np.arange(many)[:, None] * n
        yield np.bincount(rows.ravel(), minlength=many * n).reshape(many, n).astype(np.float64)


def _checked(found: NDArray[Any], truth: NDArray[Any]) -> tuple[Floats, Floats]:
    x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (found, truth))
    if x.shape != y.shape or not len(y):
        raise DataError(
            f"Scoring needs a prediction for every number of the truth {y.shape}, of at least one row; they "
            f"have shape {x.shape}. Score the rows whose numbers are given."
        )
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise DataError(
            f"Predictions must be finite; those of {len(bad):,} of {len(x):,} rows are not (first: row "
            f"{bad[0]}, counted from 0). The weights are probably broken: train with a lower `train.lr`."
        )
    return x, y
