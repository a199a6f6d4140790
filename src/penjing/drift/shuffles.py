"""p-values by shuffling which rows are new: exact at any size, and soon done where nothing moved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SHUFFLES = 9_999
ENOUGH = 20  # shuffles as extreme as the data, after which no small p-value can come any more
BLOCK = 250


def p_value(
    found: float, shuffled: Callable[[int], NDArray[np.float64]], *, most: int = SHUFFLES
) -> tuple[float, float]:
    """Chance of a statistic as great as `found` among shuffles, and the shuffles' mean.

    shuffled(n) -> (n,) the statistic of n shuffles. Stops at the twentieth that is as great, which keeps the
    level exact and costs nothing of the small p-values (Besag & Clifford 1991, Biometrika 78). The least is
    1 / (most + 1).
    """
    seen = hits = 0
    total, slack = 0.0, 1e-9 * abs(found) + 1e-15  # the same sum in another order is no difference
    while seen < most:
        drawn = shuffled(min(BLOCK, most - seen))
        as_great = np.flatnonzero(drawn >= found - slack)
        if hits + len(as_great) >= ENOUGH:
            last = int(as_great[ENOUGH - hits - 1])
            return ENOUGH / (seen + last + 1), float((total + drawn.sum()) / (seen + len(drawn)))
        hits, seen, total = hits + len(as_great), seen + len(drawn), total + float(drawn.sum())
    return (hits + 1) / (seen + 1), total / seen
