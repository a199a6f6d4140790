"""Samplers: what they draw follows from the trials so far alone, and covers the space."""

import builtins
import math
from collections import Counter
from typing import Any

import pytest

from penjing.chains.sampling import Tried, sampler
from penjing.errors import NotSupported, SpecError

SPACE: dict[str, Any] = {
    "lr": {"log": [1e-5, 1e-1]},
    "method": {"choose": [{"lora": {"rank": {"log_int": [2, 64]}}}, "bitfit"]},
    "warmup": {"int": [0, 2]},
}


def drawn(name: str, n: int, values: Any = SPACE, seed: int = 3) -> list[Tried]:
    draw, found = sampler(name, values, seed), []
    for _ in range(n):
        settings = draw(found)
        if settings is None:
            break
        found.append(Tried(settings, (0.5,), over=False))
    return found


def test_random_draws_fill_a_log_range_by_order_of_magnitude() -> None:
    found = drawn("random", 600)
    decades = Counter(int(math.log10(one.settings["lr"]) // 1) for one in found)
    assert all(110 < decades[k] < 190 for k in (-5, -4, -3, -2)), decades  # 150 each, give or take 4 sigma
    whole = Counter(one.settings["warmup"] for one in found)
    assert set(whole) == {0, 1, 2}
    assert min(whole.values()) > 150
    ranks = [one.settings["method.lora.rank"] for one in found if "method.lora.rank" in one.settings]
    assert 240 < len(ranks) < 360
    assert {2, 64} <= set(ranks)
    assert sum(rank <= 11 for rank in ranks) / len(ranks) == pytest.approx(
        0.5, abs=0.1
    )  # sqrt(2 * 64) is 11.3


@pytest.mark.parametrize("name", ["random", "grid"])
def test_a_draw_follows_from_the_trials_before_it_alone(name: str) -> None:
    first = drawn(name, 9)
    again = sampler(name, SPACE, 3)
    assert [again(first[:n]) for n in range(9)] == [one.settings for one in first]
    assert [one.settings for one in drawn(name, 9, seed=4)] != [one.settings for one in first]


def test_a_grid_holds_every_combination_once() -> None:
    values = {"a": {"choose": [1, 2, 3]}, "m": {"choose": [{"top": {"layers": {"int": [1, 2]}}}, "bitfit"]}}
    found = [tuple(sorted(one.settings.items())) for one in drawn("grid", 99, values)]
    assert len(found) == len(set(found)) == 3 * (2 + 1)


def test_a_grid_of_too_many_points_says_so() -> None:
    values = {name: {"linear": [0, 1]} for name in "abcdefgh"}
    with pytest.raises(SpecError, match="more than 1,000"):
        sampler("grid", values, 0)


def test_a_small_space_is_drawn_from_without_repeats_until_it_is_empty() -> None:
    found = [one.settings["a"] for one in drawn("random", 99, {"a": {"choose": [1, 2, 3]}})]
    assert sorted(found) == [1, 2, 3]


def test_tpe_learns_where_the_good_ones_lie() -> None:
    pytest.importorskip("optuna")
    values = {"x": {"linear": [0, 1]}, "m": {"choose": [{"a": {"y": {"int": [1, 9]}}}, "b"]}}
    draw, found = sampler("tpe", values, 0), list[Tried]()
    for _ in range(40):
        settings = draw(found)
        assert settings is not None
        score = -abs(settings["x"] - 0.8) - (settings["m"] == "b")
        found.append(Tried(settings, (score - 0.1, score), over=True))
    late = [one.settings for one in found[-15:]]
    assert sum(abs(one["x"] - 0.8) < 0.15 for one in late) >= 10, late  # at random 4 or 5 would be
    early, later = ([one.scores[-1] for one in part] for part in (found[:10], found[-15:]))
    assert sum(later) / 15 > sum(early) / 10 + 0.2
    assert draw(found[:20]) == found[20].settings, "it keeps no state of its own"


def test_without_optuna_tpe_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NotSupported, match=r"pip install 'penjing\[search\]'.*sampler: random"):
        sampler("tpe", SPACE, 0)
