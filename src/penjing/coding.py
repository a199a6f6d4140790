"""What code that a model wrote is worth: pass@k over unit tests, exact match, edit similarity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from penjing import sandbox
from penjing.errors import DataError
from penjing.models.completing import hole_of
from penjing.records import Rows, Scores

KS = (1, 10, 100)


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Chance that of k programs, drawn from n of which `passed` pass, at least one does: 1 - C(n - c, k) /
    C(n, k), without bias (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""
    if n - passed < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - passed + 1, n + 1))


def exact(said: str, wanted: str) -> bool:
    """Equal but for spaces at the ends of lines and empty lines at either end."""
    return _bare(said) == _bare(wanted)


def _bare(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").rstrip().splitlines()]


def similarity(said: str, wanted: str) -> float:
    """1 less the edits (Levenshtein) over the length of the longer text; 0 to 1."""
    longest = max(len(said), len(wanted))
    return 1.0 - _edits(said, wanted) / longest if longest else 1.0


def _edits(one: str, other: str) -> int:
    """Signs to put in, take out or exchange: a row of the table at a time."""
    ours, theirs = (np.array([ord(c) for c in text], np.int64) for text in (one, other))
    places = np.arange(len(theirs) + 1)
    row = places.copy()
    for i, sign in enumerate(ours, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (theirs != sign))
        new = np.concatenate([[i], best])
        row = np.minimum.accumulate(new - places) + places  # put in: one more for each place to the left
    return int(row[-1])


@lru_cache(maxsize=8192)
def outcome(program: str, seconds: float, memory_mib: int) -> sandbox.Outcome:
    """How a program ends in the sandbox; asked again, it is not run again."""
    return sandbox.run(program, seconds=seconds, memory_mib=memory_mib)


def outcomes(programs: Sequence[str], *, seconds: float, memory_mib: int) -> list[sandbox.Outcome]:
    """How each program ends, as many at once as there are processors."""
    return sandbox.each(programs, lambda one: outcome(one, seconds, memory_mib))


def reasons(found: Sequence[sandbox.Outcome]) -> dict[str, float]:
    """The share of programs that ended for each reason."""
    counts = Counter(one.reason for one in found)
    return {reason.replace(" ", "_"): counts[reason] / max(1, len(found)) for reason in sandbox.REASONS}


def interval(values: np.ndarray, seed: int, *, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean of values, rows drawn anew."""
    generator, n = np.random.default_rng(seed), len(values)
    means = [values[generator.integers(n, size=n)].mean() for _ in range(draws)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@dataclass(frozen=True)
class Answer:
    """What was said to a row, several times where samples are drawn, and where what was wanted is known, its
    summed loss and tokens."""

    texts: tuple[str, ...]
    ended: bool
    loss: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class Judge:
    """Scores of answers; `best` picks the best. With `run`, the tests of problems are run."""

    best: str
    run: bool
    seconds: float
    memory_mib: int

    def table(
        self, found: list[Answer], targets: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Scores of each row (NaN where it has none), and how programs ended."""
        wanted = [hole_of(one, True).inside for i, one in enumerate(targets)]
        rows = {
            "similarity": [similarity(a.texts[0], b) for a, b in zip(found, wanted, strict=True)],
            "exact": [float(exact(a.texts[0], b)) for a, b in zip(found, wanted, strict=True)],
        }
        more: dict[str, float] = {}
        tested = [i for i, one in enumerate(targets) if one.tests] if self.run else []
        if self.best == "pass_at_1" and not tested:
            raise DataError(
                "`code.judge` is pass_at_1; no row to be judged has tests. Give problems such as HumanEval's "
                "(`test`, `entry_point`) or MBPP's (`test_list`), or judge by similarity."
            )
        if tested:
            programs = [
                f"{targets[i].prompt}{text}{targets[i].suffix}\n{targets[i].tests}\n" for i in tested
                for text in found[i].texts
            ]  # fmt: skip
            ended = outcomes(programs, seconds=self.seconds, memory_mib=self.memory_mib)
            more |= reasons(ended)
            counts, at = {}, 0
            for i in tested:
                own = ended[at : at + len(found[i].texts)]
                counts[i], at = (len(own), sum(one.passed for one in own)), at + len(own)
            least = min(n for n, _ in counts.values())
            for k in (k for k in KS if k <= least):
                rows[f"pass_at_{k}"] = [
                    pass_at_k(*counts[i], k) if i in counts else np.nan for i in range(len(found))
                ]
        return {name: np.array(values, np.float64) for name, values in rows.items()}, more

    def score(
        self,
        found: list[Answer],
        targets: np.ndarray,
        names: list[str],
        chosen: dict[str, Any],
        seed: int = 0,
    ) -> Scores:
        """All scores, and the interval of the one that picks the best."""
        rows, more = self.table(found, targets)
        values = {name: float(np.nanmean(own)) for name, own in rows.items()} | more
        tokens = sum(one.tokens for one in found)
        if tokens:
            values["loss"] = sum(one.loss for one in found) / tokens
        values["unended"] = sum(not one.ended for one in found) / max(1, len(found))
        own = rows[self.best]
        return Scores(values, {self.best: interval(own[~np.isnan(own)], seed)})

    def difference(
        self,
        ours: list[Answer],
        theirs: list[Answer],
        targets: np.ndarray,
        chosen: Any,
        other: Any,
        seed: int,
    ) -> tuple[float, tuple[float, float]]:
        """Mean of `best`, ours minus theirs, over the same rows, and its interval."""
        gain = self.table(ours, targets)[0][self.best] - self.table(theirs, targets)[0][self.best]
        gain = gain[~np.isnan(gain)]
        return float(gain.mean()), interval(gain, seed)


def mistakes(
    found: list[Answer], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows whose answer is less than half like what was wanted; `error` is what it lacks."""
    wrong = []
    for i, (one, target) in enumerate(zip(found, targets, strict=True)):
        hole = hole_of(target, True)
        near = similarity(one.texts[0], hole.inside)
        if near < 0.5:
            about = {"where": rows.where(i), "text": hole.before[-600:], "given": hole.inside}
            wrong.append({**about, "predicted": one.texts[0], "error": 1 - near})
    return wrong
