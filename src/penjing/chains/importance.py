"""What mattered: how much of the scores' differences each axis of a space explains.

A random forest learns the score of every leg from its settings and how far it was carried; the importance of
an axis is how much worse the forest explains the scores when that axis is shuffled (Breiman 2001). Rough
below twenty legs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from penjing.chains.space import Axis

FEWEST = 8  # legs with a score
SHUFFLES = 10


def importance(
    axes_of: Sequence[Sequence[Axis]],
    settings: Sequence[dict[str, Any]],
    shares: Sequence[float],
    scores: Sequence[float],
) -> dict[str, float]:
    """Share of each axis in what the settings explain, 0..1, largest first; empty with too few legs.

    One entry a leg: the axes of its trial, its settings, how far it was carried, its score.
    """
    if len(scores) < FEWEST or float(np.ptp(scores)) == 0:
        return {}
    from sklearn.ensemble import RandomForestRegressor

    known = {axis.key: axis for each in axes_of for axis in each}
    columns = {key: _columns(axis, [one.get(key) for one in settings]) for key, axis in known.items()}
    ends = np.cumsum([own.shape[1] for own in columns.values()])
    places = {
        key: np.arange(end - own.shape[1], end) for (key, own), end in zip(columns.items(), ends, strict=True)
    }
    inputs = np.column_stack([*columns.values(), np.log(shares)])
    targets = np.asarray(scores)
    forest = RandomForestRegressor(100, min_samples_leaf=2, random_state=0).fit(inputs, targets)
    whole, chance, found = forest.score(inputs, targets), np.random.default_rng(0), dict[str, float]()
    for key in columns:
        # A choice moves with what hangs on it; what hangs on a choice moves among the legs that have it.
        below = np.concatenate(
            [at for k, at in places.items() if k == key or k.startswith((f"{key}.", f"{key}["))]
        )
        asked = np.array([i for i, one in enumerate(settings) if key in one])
        lost = []
        for _ in range(SHUFFLES):
            shuffled = inputs.copy()
            shuffled[np.ix_(asked, below)] = inputs[np.ix_(chance.permutation(asked), below)]
            lost.append(whole - forest.score(shuffled, targets))
        found[key] = max(0.0, float(np.mean(lost)))
    total = sum(found.values()) or 1.0
    return dict(sorted(((key, value / total) for key, value in found.items()), key=lambda pair: -pair[1]))


def _columns(axis: Axis, values: Sequence[Any]) -> np.ndarray:
    """(legs, k): a range as one number (its log where drawn so), options as marks; below all if not asked."""
    if axis.options:
        return np.array(
            [[-1.0 if v is None else float(v == option) for option in axis.options] for v in values]
        )
    log = "log" in axis.kind
    low = math.log(axis.low) if log else axis.low
    return np.array([[low - 1 if v is None else math.log(v) if log else float(v)] for v in values])
