"""Each statistic against a second way: scipy, or sums written out in float64; and the level they hold."""

import numpy as np
import pytest
from scipy import stats

from common import told
from penjing.drift import verdict
from penjing.drift.counts import compare_counts
from penjing.drift.numbers import distances, holm, p_values, rises
from penjing.drift.shuffles import ENOUGH, p_value
from penjing.drift.vectors import Axes, axes_of, discrepancy, farthest
from penjing.drift.verdict import Seen, compare
from penjing.errors import DataError, SpecError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("ties", [False, True])
def test_the_distance_and_its_chance_are_those_of_scipy(ties: bool) -> None:
    old, new = rng().normal(size=(150, 3)), rng(1).normal(0.3, 1.2, size=(61, 3))
    if ties:
        old, new = old.round(), new.round()
    found = distances(old, new)
    wanted = [stats.ks_2samp(old[:, i], new[:, i], method="asymp") for i in range(3)]
    assert found == pytest.approx([w.statistic for w in wanted], abs=1e-12)
    assert p_values(found, 150, 61) == pytest.approx([w.pvalue for w in wanted], abs=1e-12)


def test_a_rise_is_the_one_sided_distance_of_scipy_and_a_fall_is_none() -> None:
    old, new = rng().random(90), rng(1).random(40) + 0.2
    wanted = stats.ks_2samp(old, new, alternative="greater", method="asymp")
    assert rises(old, new) == pytest.approx((wanted.statistic, wanted.pvalue), abs=1e-12)
    assert rises(new, old)[1] > 0.5


def test_components_of_the_reference_s_own_rows_would_raise_false_alarms() -> None:
    rows = rng().normal(size=(600, 120))
    own, others = axes_of(rows[:200]), axes_of(rows[400:])
    last = [distances(a.project(rows[:200]), a.project(rows[200:400]))[-1] for a in (own, others)]
    assert last[0] > 0.3 > 0.15 > last[1]


def test_holm_is_the_rule_written_out() -> None:
    p = np.array([0.04, 0.001, 0.03, 0.5])
    assert holm(p) == pytest.approx([0.09, 0.004, 0.09, 0.5])


def test_many_rows_take_no_more_memory_than_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The discrepancy holds the square of its rows: of 20,000 that would be 3 GiB a copy."""
    monkeypatch.setattr(verdict, "MOST", 200)
    seen: list[int] = []
    whole = verdict.discrepancy
    monkeypatch.setattr(
        verdict, "discrepancy", lambda a, b, **how: (seen.extend((len(a), len(b))), whole(a, b, **how))[1]
    )
    draw = rng()
    rows = [Seen(np.arange(n), vectors=draw.normal(at, 1, (n, 3))) for n, at in ((300, 0.0), (100, 1.0))]
    found = compare(*rows)
    assert seen == [200, 100]
    assert next(check for check in found.checks if check.name == "vectors").moved


def test_chi_square_is_that_of_scipy_and_its_shuffled_p_value_near_where_many_rows_are() -> None:
    old, new = np.array([300, 200, 100]), np.array([95, 60, 58])
    found = compare_counts(old, new, generator=rng(), most=4_000)
    wanted = stats.chi2_contingency(np.stack([old, new]), correction=False)
    assert found.chi2 == pytest.approx(wanted.statistic, rel=1e-12)
    assert found.p == pytest.approx(wanted.pvalue, abs=0.004)
    assert found.share == pytest.approx(np.abs(old / old.sum() - new / new.sum()).sum() / 2)
    assert found.v == pytest.approx(np.sqrt(wanted.statistic / (old.sum() + new.sum())))


def test_of_many_names_and_few_rows_much_is_elsewhere_by_chance_alone() -> None:
    chances = np.full(77, 1 / 77)
    found = compare_counts(
        rng().multinomial(1000, chances), rng(1).multinomial(200, chances), generator=rng()
    )
    assert found.share > 0.2
    assert found.by_chance == pytest.approx(found.share, abs=0.05)
    assert found.p > 0.05


def test_the_discrepancy_is_its_three_sums_written_out() -> None:
    old, new = rng().normal(size=(9, 4)), rng(1).normal(0.5, 1, size=(7, 4))
    found = discrepancy(old, new, generator=rng(), most=99)
    both = np.concatenate([old, new])
    apart = [float(np.linalg.norm(a - b)) for i, a in enumerate(both) for b in both[:i]]
    assert found.width == pytest.approx(np.sqrt(np.median(np.square(apart))))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * found.width**2)))

    within_old = sum(kernel(a, b) for i, a in enumerate(old) for j, b in enumerate(old) if i != j) / (9 * 8)
    within_new = sum(kernel(a, b) for i, a in enumerate(new) for j, b in enumerate(new) if i != j) / (7 * 6)
    across = sum(kernel(a, b) for a in old for b in new) / (9 * 7)
    assert found.mmd2 == pytest.approx(within_old + within_new - 2 * across, abs=1e-12)


@pytest.mark.slow
def test_a_shift_of_half_a_deviation_is_found_in_500_rows() -> None:
    assert (
        discrepancy(rng().normal(size=(500, 8)), rng(1).normal(0.5, 1, (500, 8)), generator=rng()).p < 0.001
    )


def test_a_p_value_stops_at_the_twentieth_as_great_and_else_counts_itself() -> None:
    p, mean = p_value(0.5, lambda n: np.full(n, 0.5))
    assert (p, mean) == (ENOUGH / ENOUGH, 0.5)
    assert p_value(2.0, np.zeros, most=499)[0] == pytest.approx(1 / 500)


def test_components_are_those_of_the_covariance_and_the_last_column_is_what_they_miss() -> None:
    rows = rng().normal(size=(60, 6)) * np.array([5, 4, 3, 1, 1, 1])
    axes = axes_of(rows, most=3)
    _, vectors = np.linalg.eigh(np.cov(rows.T))
    assert np.abs(axes.directions @ vectors[:, ::-1][:, :3]).diagonal() == pytest.approx([1, 1, 1])
    seen = axes.project(rows)
    rest = (rows - rows.mean(0)) - seen[:, :3] @ axes.directions
    assert seen[:, 3] == pytest.approx(np.linalg.norm(rest, axis=1))


def test_where_components_span_all_nothing_lies_beside_them() -> None:
    rows = rng().normal(size=(80, 6)).astype(np.float32)
    axes = axes_of(rows)
    rounded = Axes(axes.mean.astype(np.float32), axes.directions.astype(np.float32))
    assert not rounded.project(rows)[:, -1].any()


def test_what_goes_where_the_reference_never_went_is_seen_beside_its_components() -> None:
    flat = np.zeros((200, 8))
    flat[:, :3] = rng().normal(size=(200, 3))
    axes = axes_of(flat, most=3)
    away = flat[:100].copy()
    away[:, 5] = 2.0
    assert distances(axes.project(flat), axes.project(away))[-1] == 1.0


def test_the_farthest_rows_are_those_with_no_neighbour() -> None:
    old, new = rng().normal(size=(50, 4)), rng(1).normal(size=(20, 4))
    new[7] += 9
    new[3] += 6
    assert [*farthest(old, new, 2)] == [7, 3]


def drawn(seed: int, n: int, *, shift: float = 0.0) -> Seen:
    g = rng(seed)
    return Seen(
        lengths=g.poisson(12, n) + (6 if shift else 0),
        vectors=g.normal(size=(n, 9)) + shift,
        language=g.choice(["en", "zh"], n, p=[0.9, 0.1]).tolist(),
        answers=[str(x) for x in g.integers(0, 20, n)],
        confidence=g.beta(8, 2, n),
        right=g.random(n) < 0.9,
    )


@pytest.mark.slow
def test_false_alarms_keep_to_their_level_over_repeated_looks() -> None:
    """40 worlds that stand still, each looked at three times at 20 % in all: 8 false alarms at most to
    expect."""
    alarms = 0
    for world in range(40):
        verdicts = [
            compare(drawn(1000 * world, 200), drawn(1000 * world + look, 80), alpha=0.2, looks=3, least=0.01)
            for look in (1, 2, 3)
        ]
        alarms += any(v.moved for v in verdicts)
    assert alarms <= 8 + 2 * np.sqrt(40 * 0.2 * 0.8)


def test_what_moved_is_named_first_with_its_effect() -> None:
    verdict = compare(drawn(0, 300), drawn(1, 100, shift=1.0))
    assert verdict.moved
    assert {check.name for check in verdict.checks if check.moved} == {"vectors", "lengths"}
    assert verdict.checks[0].moved
    assert 0.3 < verdict.checks[0].effect <= 1
    assert verdict.level == pytest.approx(0.05 / 30)


def test_a_small_effect_is_no_alarm_however_many_rows_show_it() -> None:
    g = rng()
    old, new = Seen(lengths=g.normal(size=40_000)), Seen(lengths=g.normal(0.1, 1, size=40_000))
    verdict = compare(old, new)
    assert verdict.checks[0].p < verdict.level
    assert not verdict.moved
    assert compare(old, new, least=0.01).moved


def test_fewer_right_answers_are_told_by_fishers_exact_test() -> None:
    old, new = np.arange(200) < 190, np.arange(100) < 70
    found = compare(Seen(np.ones(200), right=old), Seen(np.ones(100), right=new))
    quality = next(check for check in found.checks if check.name == "quality")
    table = [[190, 10], [70, 30]]
    assert quality.p == pytest.approx(stats.fisher_exact(table, "greater").pvalue * 2)  # Holm over two
    assert quality.effect == pytest.approx(0.25)


def test_too_few_rows_and_impossible_levels_are_refused() -> None:
    with pytest.raises(DataError) as error:
        compare(drawn(0, 100), drawn(1, 49))
    told(error, "At least 50 rows", "there are 49", "--last")
    with pytest.raises(SpecError, match="`alpha` must lie between 0 and 1; it is 2"):
        compare(drawn(0, 100), drawn(1, 100), alpha=2)
    with pytest.raises(SpecError, match="`looks` must be at least 1; it is 0"):
        compare(drawn(0, 100), drawn(1, 100), looks=0)
