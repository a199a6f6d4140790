"""What mattered: the axis that made the scores is named, and what hangs on a choice is judged within it."""

import random

import pytest

from penjing.chains.importance import importance
from penjing.chains.sampling import Tried, sampler
from penjing.chains.space import axes

SPACE = {
    "lr": {"log": [1e-5, 1e-1]},
    "idle": {"linear": [0, 1]},
    "method": {"choose": [{"lora": {"rank": {"choose": [2, 64]}}}, "bitfit"]},
}


def told(score: str, n: int = 40) -> dict[str, float]:
    draw, found = sampler("random", SPACE, 0), list[Tried]()
    for _ in range(n):
        settings = draw(found)
        assert settings is not None
        found.append(Tried(settings))
    settings_of = [one.settings for one in found]
    chance = random.Random(0)
    noise = [0.01 * chance.random() for _ in found]
    value = {
        "lr": lambda s: s["lr"] > 1e-3,
        "method": lambda s: s["method"] == "lora",
        "method.lora.rank": lambda s: s.get("method.lora.rank") == 64,
    }[score]
    scores = [float(value(s)) + e for s, e in zip(settings_of, noise, strict=True)]
    return importance([axes(SPACE, s) for s in settings_of], settings_of, [1.0] * n, scores)


@pytest.mark.slow
def test_the_axis_that_made_the_scores_comes_first() -> None:
    found = told("lr")
    assert next(iter(found)) == "lr"
    assert found["lr"] > 0.8
    assert sum(found.values()) == 1


@pytest.mark.slow
def test_a_choice_is_credited_and_not_what_hangs_on_it() -> None:
    found = told("method")
    assert found["method"] > 0.8
    assert found["method.lora.rank"] < 0.1


def test_what_hangs_on_a_choice_is_credited_where_it_matters() -> None:
    found = told("method.lora.rank")
    assert found["method.lora.rank"] > 0.25
    assert found["idle"] < 0.1


def test_too_few_legs_say_nothing() -> None:
    assert told("lr", n=5) == {}
