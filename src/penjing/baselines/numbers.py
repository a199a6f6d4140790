"""The cheap baseline of numbers: TF-IDF and ridge regression, its penalty chosen on held-out train rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.baseline import fit_features, plan_baseline, unwarned

PENALTIES = (0.3, 1.0, 3.0, 10.0)
ENOUGH = 1e-3  # of the solver; 1e-6 takes three times as long for the same scores
MOST_ROWS = 20_000


def fit_numbers(
    texts: Sequence[str], truth_SK: NDArray[Any], seed: int
) -> tuple[Callable[[Sequence[str]], NDArray[np.float64]], tuple[str, ...]]:
    """A function from texts to numbers (S, K), and what was left out, in words."""
    plan = plan_baseline(texts, truth_SK.shape[1])
    chosen = np.random.default_rng(seed).permutation(len(texts))[: min(plan.n_rows, MOST_ROWS)]
    features, train_SF = fit_features([texts[i] for i in chosen], plan)
    solve = ridge(train_SF, np.asarray(truth_SK, np.float64)[chosen])

    def predict(texts: Sequence[str]) -> NDArray[np.float64]:
        return solve(features(texts))

    return predict, plan.notes


def ridge(train_SF: Any, truth_SK: NDArray[np.float64]) -> Callable[[Any], NDArray[np.float64]]:
    """A function from features (S, F) to numbers (S, K), by ridge regression (Hoerl & Kennard 1970). The
    penalty is the best of four on the last fifth of the rows, which are in no order; then all are used."""
    from sklearn.linear_model import Ridge

    n = len(truth_SK)
    held = max(1, n // 5) if n >= 10 else 0
    best, penalty = np.inf, 1.0
    with unwarned():  # features that are nearly one another's sums
        for one in PENALTIES if held else ():
            tried = Ridge(alpha=one, solver="lsqr", tol=ENOUGH).fit(
                train_SF[: n - held], truth_SK[: n - held]
            )
            error = float(((_flat(tried.predict(train_SF[n - held :])) - truth_SK[n - held :]) ** 2).mean())
            if error < best:
                best, penalty = error, one
        model = Ridge(alpha=penalty, solver="lsqr", tol=ENOUGH).fit(train_SF, truth_SK)
    return lambda features: _flat(model.predict(features)).reshape(features.shape[0], truth_SK.shape[1])


def _flat(found: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(found, np.float64)
    return values[:, None] if values.ndim == 1 else values
