"""Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934): many short trials, few long ones.

Every trial runs to the first rung, a small share of its steps. Whenever one of the best 1/η of a rung has not
been promoted, it goes on to the next, η times as far. Nothing waits for a rung to be full. Unlike the paper,
a rung of n trials never promotes more than n/η (a trial that fell out of the best after its promotion still
counts), so the budget is bounded whatever the order; and when no trial is left to begin, the best of the
highest rung goes on alone, so that a short search ends with a whole trial too.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def rungs(first_share: float, eta: int) -> tuple[float, ...]:
    """Shares of a whole trial at which it is judged: from `first_share` up by η, the last 1."""
    found, share = [1.0], 1.0 / eta
    while share >= first_share * (1 - 1e-9):
        found.append(share)
        share /= eta
    return tuple(reversed(found))


@dataclass
class Halving:
    """Who stands where: `scores[rung][trial]`, higher is better, and who was promoted from each rung."""

    n_rungs: int
    eta: int
    scores: list[dict[int, float]] = field(default_factory=list)
    promoted: list[set[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scores = [{} for _ in range(self.n_rungs)]
        self.promoted = [set() for _ in range(self.n_rungs)]

    def report(self, trial: int, rung: int, score: float) -> None:
        """A trial has reached a rung."""
        self.scores[rung][trial] = score

    def promote(self, trial: int, rung: int) -> None:
        """A trial goes on from a rung to the next."""
        self.promoted[rung].add(trial)

    def next(self, *, last_call: bool = False) -> tuple[int, int] | None:
        """(trial, rung it goes on from) of the next promotion, or None when a new trial should begin.

        `last_call`: no trial will begin any more and none is on its way.
        """
        for rung in reversed(range(self.n_rungs - 1)):
            best = self.ranked(rung)[: len(self.scores[rung]) // self.eta]
            waiting = [trial for trial in best if trial not in self.promoted[rung]]
            if waiting and len(self.promoted[rung]) < len(best):
                return waiting[0], rung
        if last_call and self.top < self.n_rungs - 1:
            alone = [trial for trial in self.ranked(self.top) if trial not in self.promoted[self.top]]
            return (alone[0], self.top) if alone else None
        return None

    def ahead(self, n_trials: int) -> list[int]:
        """How many legs are still to begin at each rung, where `n_trials` begin and none fails."""
        begun = [len(self.scores[0]), *(len(promoted) for promoted in self.promoted[:-1])]
        return [max(0, max(1, n_trials // self.eta**rung) - n) for rung, n in enumerate(begun)]

    def lost(self, n_trials: int) -> set[int]:
        """Trials that will not go on, whatever comes, where at most `n_trials` begin.

        A rung that n trials can reach promotes n / η of them at most, or its best alone at the end.
        """
        found: set[int] = set()
        room = n_trials
        for scores, promoted, rung in zip(self.scores, self.promoted, range(self.n_rungs), strict=True):
            room = room // self.eta if rung < self.n_rungs - 1 else 1  # of whole trials, the best may win
            beaten = {*self.ranked(rung)[max(1, room) :], *(scores.keys() - self.ranked(rung))}
            found |= beaten - promoted
        return found

    @property
    def top(self) -> int:
        """The highest rung that a trial has reached."""
        return max((rung for rung in range(self.n_rungs) if self.ranked(rung)), default=0)

    def ranked(self, rung: int) -> list[int]:
        """Trials at a rung that did not fail, best first; of equals, the one begun first."""
        there = {trial: score for trial, score in self.scores[rung].items() if score > float("-inf")}
        return sorted(there, key=lambda trial: (-there[trial], trial))
