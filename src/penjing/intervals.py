"""95 % bootstrap intervals of accuracy and F1, of one system and of the difference between two.

Rows are drawn with replacement 1,000 times (Efron 1979; percentile interval, Efron & Tibshirani 1993, chapter
13). Rows that look the same (same truth, same answers) are counted together, so that a draw of all rows is a
vector of counts over the distinct patterns and every score of every draw is a matrix product: 10,000 rows of
150 classes take about a second of one core. Single-label answers enter as one-hot rows, so one set of
formulas serves both kinds.

Shape suffixes: S rows, C classes, K distinct patterns, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.errors import DataError, nearest

DRAWS = 1000
CHUNK = 100  # draws scored at once: bounds the memory at CHUNK x C, whatever the number of classes
SCORES = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy")

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Counts = NDArray[np.float32]  # whole numbers, exact below 2^24 rows
Interval = tuple[float, float]


def bootstrap(
    targets_SC: Bools, predicted_SC: Bools, names: Sequence[str], *, seed: int
) -> dict[str, Interval]:
    """95 % interval of each named score, in 0..1.

    Where every row is right (or every row wrong) all draws agree and the percentile interval would have no
    width; the exact binomial bound on the share of right rows (Clopper & Pearson 1934) stands in there, for
    F1 too, where it is a rough one.

    Raises:
        DataError: no rows, shapes that differ, or a name that is not in `SCORES`.
    """
    drawn = _draw(targets_SC, (predicted_SC,), names, seed)
    found: dict[str, Interval] = {}
    for name in names:
        found[name] = _with_width(_percentiles(drawn[name][0]), len(targets_SC))
    return found


def _with_width(interval: Interval, n_rows: int) -> Interval:
    """The interval, or the exact bound where all draws were right or all were wrong."""
    low, high = interval
    if low != high or low not in (0.0, 1.0):
        return interval
    bound = 0.025 ** (1 / n_rows)
    return (bound, 1.0) if low == 1 else (0.0, 1 - bound)


def paired_difference(
    targets_SC: Bools, first_SC: Bools, second_SC: Bools, name: str, *, seed: int
) -> tuple[float, Interval]:
    """Score of the first system minus that of the second on the same rows, and its 95 % interval, in -1..1.

    Both systems are scored on the same draws, so what is hard for both cancels out (paired bootstrap, Koehn
    2004).

    Raises:
        DataError: no rows, shapes that differ, or a name that is not in `SCORES`.
    """
    drawn = _draw(targets_SC, (first_SC, second_SC), (name,), seed)[name]
    once, truth = np.ones((1, len(targets_SC)), np.float32), targets_SC.astype(np.float32)
    first, second = (float(_score(name, once, truth, p.astype(np.float32))[0]) for p in (first_SC, second_SC))
    return first - second, _percentiles(drawn[0] - drawn[1])


def of_counts(
    hits_SC: NDArray[Any], support_SC: NDArray[Any], predicted_SC: NDArray[Any], *, seed: int
) -> dict[str, Interval]:
    """95 % intervals of `micro_f1` and `macro_f1` where a row holds any number of things of each class: how
    many were found right, are there, and were answered. Where all draws agree, as in `bootstrap`."""
    drawn = _drawn_counts((hits_SC,), support_SC, (predicted_SC,), seed)
    return {n: _with_width(_percentiles(scores[0]), len(support_SC)) for n, scores in drawn.items()}


def difference_of_counts(
    hits: tuple[NDArray[Any], NDArray[Any]],
    support_SC: NDArray[Any],
    predicted: tuple[NDArray[Any], NDArray[Any]],
    name: str,
    *,
    seed: int,
) -> tuple[float, Interval]:
    """`micro_f1` or `macro_f1` of the first system minus that of the second, and its 95 % interval, as in
    `paired_difference`; counts as in `of_counts`."""
    drawn = _drawn_counts(hits, support_SC, predicted, seed)[name]
    first, second = (
        float(_of_sums(h.sum(0)[None], support_SC.sum(0)[None], p.sum(0)[None])[name][0])
        for h, p in zip(hits, predicted, strict=True)
    )
    return first - second, _percentiles(drawn[0] - drawn[1])


def _drawn_counts(
    hits: Sequence[NDArray[Any]], support_SC: NDArray[Any], predicted: Sequence[NDArray[Any]], seed: int
) -> dict[str, Floats]:
    """name -> (systems, B): the scores of every draw of rows."""
    rng, n_rows = np.random.default_rng(seed), len(support_SC)
    tables = [np.asarray(table, dtype=np.float32) for table in (support_SC, *hits, *predicted)]
    parts: dict[str, list[Floats]] = {"micro_f1": [], "macro_f1": []}
    for start in range(0, DRAWS, CHUNK):
        weights_BS = _resampled(np.arange(n_rows), n_rows, min(CHUNK, DRAWS - start), rng)
        support, *others = (weights_BS @ table for table in tables)
        half = len(others) // 2
        found = [_of_sums(h, support, p) for h, p in zip(others[:half], others[half:], strict=True)]
        for name, kept in parts.items():
            kept.append(np.stack([one[name] for one in found]))
    return {name: np.concatenate(kept, axis=1) for name, kept in parts.items()}


def _of_sums(
    hits_BC: NDArray[Any], support_BC: NDArray[Any], predicted_BC: NDArray[Any]
) -> dict[str, Floats]:
    """(B,) F1 over all things and the mean over classes that are there or were answered."""
    present = (support_BC + predicted_BC) > 0
    macro: Floats = f1(hits_BC, support_BC, predicted_BC).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    sums = (counts.sum(axis=1, dtype=np.float64) for counts in (hits_BC, support_BC, predicted_BC))
    return {"micro_f1": f1(*sums), "macro_f1": macro}


def one_hot(classes_S: NDArray[Any], n_classes: int) -> Bools:
    """(S, C) bool with one True a row; a class outside 0..C-1 gives a row without any."""
    found: Bools = np.asarray(classes_S)[:, None] == np.arange(n_classes)[None, :]
    return found


def f1(hits: NDArray[Any], support: NDArray[Any], predicted: NDArray[Any]) -> Floats:
    """F1 = 2 hits / (support + predicted), 0 where nothing was there and nothing was predicted; any shape."""
    total = np.asarray(support + predicted, dtype=np.float64)
    return np.divide(2.0 * hits, total, out=np.zeros_like(total), where=total > 0)


def _draw(targets: Bools, systems: tuple[Bools, ...], names: Sequence[str], seed: int) -> dict[str, Floats]:
    """name -> (systems, B): the scores of every draw."""
    for name in names:
        if name not in SCORES:
            raise DataError(
                f"An interval of `{name}` was asked for; known are {', '.join(SCORES)}."
                f"{nearest(name, SCORES)}"
            )
    for system in systems:
        if system.shape != targets.shape or not len(targets):
            raise DataError(
                f"Intervals need answers for every row of the truth: truth has shape {targets.shape}, "
                f"the answers {system.shape}. Score the same rows with both, at least one."
            )
    first, kinds = _patterns(np.hstack([targets, *systems]))
    truth = targets[first].astype(np.float32)
    answers = [system[first].astype(np.float32) for system in systems]
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Floats]] = {name: [] for name in names}
    for start in range(0, DRAWS, CHUNK):
        drawn = _resampled(kinds, len(first), min(CHUNK, DRAWS - start), rng)
        for name in names:
            parts[name].append(np.stack([_score(name, drawn, truth, answer) for answer in answers]))
    return {name: np.concatenate(chunks, axis=1) for name, chunks in parts.items()}


def _patterns(rows: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Position of the first row of each distinct kind (K,), and which kind each row is of (S,)."""
    packed = np.ascontiguousarray(np.packbits(rows, axis=1))
    _, first, kinds = np.unique(
        packed.view(f"V{packed.shape[1]}").ravel(), return_index=True, return_inverse=True
    )
    return first.astype(np.int64), kinds.reshape(-1).astype(np.int64)


def _resampled(kinds: NDArray[np.int64], n_kinds: int, n_draws: int, rng: np.random.Generator) -> Counts:
    """(B, K): how often each kind was drawn in each of B draws of S rows."""
    if n_kinds * 4 < len(kinds):  # a multinomial costs 0.3 us a kind, drawing rows one by one 0.03 us a row
        shares = np.bincount(kinds, minlength=n_kinds) / len(kinds)
        return rng.multinomial(len(kinds), shares, size=n_draws).astype(np.float32)
    rows = rng.integers(0, len(kinds), size=(n_draws, len(kinds)))
    offsets = np.arange(n_draws)[:, None] * n_kinds
    counts = np.bincount((kinds[rows] + offsets).ravel(), minlength=n_draws * n_kinds)
    return counts.reshape(n_draws, n_kinds).astype(np.float32)


def _score(name: str, weights_BK: Counts, truth_KC: Counts, answer_KC: Counts) -> Floats:
    """(B,): one score for each row of weights."""
    if name in ("accuracy", "subset_accuracy"):
        right = weights_BK @ (truth_KC == answer_KC).all(axis=1).astype(np.float32)
        share: Floats = right / weights_BK.sum(axis=1, dtype=np.float64)
        return share
    hits, support, predicted = (
        weights_BK @ (truth_KC * answer_KC),
        weights_BK @ truth_KC,
        weights_BK @ answer_KC,
    )
    if name == "micro_f1":
        return f1(*(counts.sum(axis=1, dtype=np.float64) for counts in (hits, support, predicted)))
    present = (support + predicted) > 0
    macro: Floats = f1(hits, support, predicted).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    return macro


def _percentiles(draws: Floats) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
