"""Asynchronous successive halving on curves whose ends are known."""

import math
import random
from collections.abc import Callable

import pytest

from penjing.chains.halving import Halving, rungs


def finished(halving: Halving, n_trials: int, score: Callable[[int, int], float]) -> list[int]:
    """Runs the search that a caller would; returns how many legs ended at each rung."""
    legs, begun = [0] * halving.n_rungs, 0
    while True:
        found = halving.next(last_call=begun == n_trials)
        if found is None:
            if begun == n_trials:
                return legs
            trial, rung, begun = begun, 0, begun + 1
        else:
            trial, rung = found[0], found[1] + 1
            halving.promote(*found)
        halving.report(trial, rung, score(trial, rung))
        legs[rung] += 1


def test_rungs_rise_by_eta_to_the_whole() -> None:
    assert rungs(1 / 16, 4) == (1 / 16, 1 / 4, 1)
    assert rungs(0.1, 3) == pytest.approx((1 / 9, 1 / 3, 1))
    assert rungs(1 / 9, 3) == pytest.approx((1 / 9, 1 / 3, 1))
    assert rungs(1.0, 4) == (1.0,)


@pytest.mark.parametrize("seed", range(20))
def test_a_lost_trial_is_never_promoted_and_in_the_end_all_but_the_winner_are_lost(seed: int) -> None:
    draw = random.Random(seed)
    n, halving = draw.choice([3, 7, 32]), Halving(3, 3)
    lost: set[int] = set()
    real = halving.promote

    def promote(trial: int, rung: int) -> None:
        assert trial not in lost
        real(trial, rung)

    def score(trial: int, rung: int) -> float:
        lost.update(halving.lost(n))
        return float("-inf") if draw.random() < 0.1 and rung == 0 else draw.random()

    halving.promote = promote  # type: ignore[method-assign]
    finished(halving, n, score)
    assert lost <= halving.lost(n)
    standing = set(range(n)) - halving.lost(n)
    best = halving.ranked(halving.top)[0]
    assert best in standing
    assert len(standing) <= 2 or n % 3  # rungs that n does not fill keep who might have gone on


@pytest.mark.parametrize(("n", "eta", "n_rungs"), [(32, 4, 3), (7, 3, 3), (2, 4, 3), (81, 3, 5), (5, 2, 1)])
def test_the_legs_ahead_are_those_that_will_be_carried(n: int, eta: int, n_rungs: int) -> None:
    halving = Halving(n_rungs, eta)
    expected = halving.ahead(n)
    assert finished(halving, n, lambda trial, rung: -trial) == expected
    assert halving.ahead(n) == [0] * n_rungs


@pytest.mark.parametrize("seed", range(20))
def test_the_best_arm_is_found_with_a_third_of_the_whole_budget(seed: int) -> None:
    shares, n = rungs(1 / 16, 4), 32
    draw = random.Random(seed)
    ends = [draw.random() for _ in range(n)]
    rates = [draw.uniform(4, 6) for _ in range(n)]
    halving = Halving(len(shares), 4)
    # Learning curves: trials rise to their ends at rates of their own.
    legs = finished(halving, n, lambda t, r: ends[t] * (1 - math.exp(-rates[t] * shares[r] * 4)))
    steps = [b - a for a, b in zip((0.0, *shares), shares, strict=False)]
    cost = sum(count * share for count, share in zip(legs, steps, strict=True))
    assert cost <= n / 3
    winner = halving.ranked(halving.n_rungs - 1)[0]
    by_end = sorted(range(n), key=lambda t: -ends[t])
    assert winner in by_end[:2]  # curves that rise sooner may pass a better one by a hair


@pytest.mark.parametrize("n", [1, 3, 4, 17, 64])
def test_no_rung_promotes_more_than_its_share(n: int) -> None:
    draw = random.Random(n)
    halving = Halving(4, 4)
    finished(halving, n, lambda trial, rung: draw.random())
    for rung in range(3):
        # Below η trials none has earned it, and the best one goes on alone at the end.
        assert len(halving.promoted[rung]) <= max(1, len(halving.scores[rung]) // 4)
    assert len(halving.ranked(3)) >= 1, "a search ends with a whole trial"


def test_when_order_is_bad_the_share_still_holds() -> None:
    halving = Halving(3, 4)
    for trial in range(64):  # each better than all before: every newcomer is the best of its rung
        halving.report(trial, 0, float(trial))
        if found := halving.next():
            halving.promote(*found)
        assert len(halving.promoted[0]) <= len(halving.scores[0]) // 4


def test_a_failed_trial_counts_but_never_goes_on() -> None:
    halving = Halving(2, 2)
    for trial in range(4):
        halving.report(trial, 0, float("-inf") if trial else 0.1)
    assert halving.next() == (0, 0)
    halving.promote(0, 0)
    assert halving.next() is None


def test_where_the_best_fails_later_the_next_best_ends_the_search() -> None:
    halving = Halving(2, 4)
    halving.report(0, 0, 0.9)
    halving.report(1, 0, 0.8)
    assert halving.next() is None
    assert halving.next(last_call=True) == (0, 0)
    halving.promote(0, 0)
    halving.report(0, 1, float("-inf"))
    assert halving.next(last_call=True) == (1, 0)


def test_of_equals_the_first_goes_on() -> None:
    halving = Halving(2, 2)
    for trial in (2, 0, 1):
        halving.report(trial, 0, 0.5)
    assert halving.next() == (0, 0)
