"""Scaling laws: the loss to expect of a language model of so many parameters after so many tokens.

L = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, arXiv 2203.15556), N parameters and D tokens, in nats
a token. `CHINCHILLA` has the constants of Besiroglu et al. 2024 (arXiv 2404.10102), who fitted that paper's
data again. `DATA_CONSTRAINED` is the law of Muennighoff et al. 2023 (arXiv 2305.16264), eq. 5 to 7, in which
tokens seen again, and parameters beyond what unique tokens can use, are worth ever less. `fit` finds the
constants of runs of one's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.errors import DataError

DELTA = 1e-3  # of Huber's loss of the logarithms
STARTS = 40  # the best points of the grid, from which the fit begins
LEAST = 6  # runs: one more than there are constants


@dataclass(frozen=True)
class Law:
    """E + A / N^alpha + B / D^beta. `tokens_worth` and `size_worth` are Muennighoff's R*: how many times
    over repeated tokens and excess parameters can count; infinite where the law knows no repetition.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    tokens_worth: float = math.inf
    size_worth: float = math.inf

    def loss(self, parameters: float, tokens: float, unique: float | None = None) -> float:
        """Nats a token after `tokens`, of which `unique` are different (all, when not given)."""
        own = tokens if unique is None else min(unique, tokens)
        enough = min(parameters, self.size_for(own)) if unique is not None else parameters
        size = _worth(enough, parameters, self.size_worth)
        return float(
            self.E + self.A / size**self.alpha + self.B / self.tokens_that_count(tokens, own) ** self.beta
        )

    def tokens_that_count(self, tokens: float, unique: float) -> float:
        """What `tokens`, of which `unique` are different, are worth in tokens never seen before."""
        return _worth(unique, tokens, self.tokens_worth)

    def balanced(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens with the lowest loss at so many operations, C = 6 N D."""
        ratio, power = self._ratio(), self.beta / (self.alpha + self.beta)
        parameters = ratio * (flops / 6) ** power
        return parameters, flops / 6 / parameters

    def size_for(self, tokens: float) -> float:
        """The parameters that so many new tokens are best spent on."""
        power = self.beta / (self.alpha + self.beta)
        return float((tokens * self._ratio()) ** (power / (1 - power)) * self._ratio())

    def _ratio(self) -> float:
        return float((self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta)))


def _worth(new: float, whole: float, most: float) -> float:
    """`new` and what the rest of `whole` adds to it, at most `most` times as much."""
    again = max(whole / new - 1, 0.0)
    return whole if math.isinf(most) else new + new * most * -math.expm1(-again / most)


CHINCHILLA = Law(E=1.81686, A=482.00572, B=2085.43420, alpha=0.34781, beta=0.36585)
DATA_CONSTRAINED = Law(
    E=math.exp(0.6254804),
    A=math.exp(6.255414),
    B=math.exp(7.3049974),
    alpha=0.3526596,
    beta=0.3526596,
    tokens_worth=15.387756,
    size_worth=5.309743,
)


@dataclass(frozen=True)
class Fit:
    """A law fitted to runs. `objective` is the sum of Huber's losses, `error` the mean relative one."""

    law: Law
    runs: int
    objective: float
    error: float


def fit(parameters: Any, tokens: Any, losses: Any) -> Fit:
    """The law of runs, as Hoffmann et al. fit theirs: Huber's loss (delta 1e-3) between the logarithms of
    losses told and found, by L-BFGS from a grid of starts. Each argument has one number a run.

    Raises:
        DataError: fewer than six runs, a number that is not above 0, or runs of one size or one length only.
    """
    from scipy.optimize import minimize

    n, d, found = (np.asarray(x, dtype=np.float64) for x in (parameters, tokens, losses))
    _refuse(n, d, found)
    log_n, log_d, log_l = np.log(n), np.log(d), np.log(found)

    def miss(p: np.ndarray) -> tuple[float, np.ndarray]:
        return _miss(p, log_n, log_d, log_l)

    starts = sorted(
        _grid(float(log_n.mean()), float(log_d.mean()), float(log_l.min())), key=lambda p: miss(p)[0]
    )
    ends = [
        minimize(
            miss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-10}
        )
        for start in starts[:STARTS]
    ]
    best = min(ends, key=lambda end: end.fun)
    a, b, e, alpha, beta = (float(x) for x in best.x)
    law = Law(math.exp(e), math.exp(a), math.exp(b), alpha, beta)
    told = np.array([law.loss(*pair) for pair in zip(n, d, strict=True)])
    return Fit(law, len(n), float(best.fun) * DELTA, float(np.abs(told / found - 1).mean()))


def _miss(p: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_l: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum of Huber's losses and its gradient at p = (log A, log B, log E, alpha, beta)."""
    a, b, e, alpha, beta = p
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    highest = terms.max(0)
    shares = np.exp(terms - highest)
    total = shares.sum(0)
    gap = highest + np.log(total) - log_l
    shares /= total
    size = np.abs(gap)
    value = np.where(size <= DELTA, 0.5 * gap**2, DELTA * (size - 0.5 * DELTA)).sum()
    slope = np.clip(gap, -DELTA, DELTA)
    by_a, by_b, by_e = (slope * share for share in shares)
    parts = [by_a, by_b, by_e, -by_a * log_n, -by_b * log_d]
    # of the size of 1, or L-BFGS takes its first flat step for the bottom
    return float(value / DELTA), np.array([part.sum() for part in parts]) / DELTA


def _grid(log_n: float, log_d: float, log_l: float) -> list[np.ndarray]:
    """Starts: exponents, floors, and what then makes either term a share of the loss in the middle."""
    return [
        np.array(
            [math.log(x) + log_l + alpha * log_n, math.log(y) + log_l + beta * log_d, log_l + e, alpha, beta]
        )
        for alpha in (0.15, 0.3, 0.5, 0.8)
        for beta in (0.15, 0.3, 0.5, 0.8)
        for e in (-1.0, -0.5, -0.1)
        for x in (0.03, 0.1, 0.3)
        for y in (0.03, 0.1, 0.3)
    ]


def _refuse(n: np.ndarray, d: np.ndarray, losses: np.ndarray) -> None:
    for name, values in (("parameters", n), ("tokens", d), ("loss", losses)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise DataError(
                f"A law is fitted to numbers above 0; `{name}` of run {bad[0] + 1} is {values[bad[0]]:g}. "
                f"Leave that run out, or correct it."
            )
        if name != "loss" and len(values) and len(np.unique(values)) < 3:
            raise DataError(
                f"A law of size and tokens needs at least 3 different values of each; `{name}` has "
                f"{len(np.unique(values))}. Add runs that differ in it."
            )
    if len(n) < LEAST:
        raise DataError(
            f"A law of five constants is fitted to at least {LEAST} runs; there are {len(n)}. Add runs, "
            f"or use the published law."
        )
