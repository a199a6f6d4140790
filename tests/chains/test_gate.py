"""What each bar of the gate stops, and how it is written."""

from typing import Any

import pytest

from penjing.chains.gate import Measured, judge
from penjing.chains.update_spec import Gate


def measured(live: float, new: float, **about: Any) -> Measured:
    gain = live - new if about.get("lower") else new - live
    return Measured(live, new, gain, (gain - 0.05, gain + 0.05), **about)


def bars(**changes: Any) -> dict[str, bool]:
    same = measured(0.9, 0.9)
    given = {
        "new": measured(0.0, 0.88),
        "old": same,
        "must": measured(1.0, 1.0),
        "slices": {"a": same, "b": same},
        "ratio": 1.0,
        "suspects": (0.14, 0.05),
    }
    return {bar.name: bar.passed for bar in judge(Gate(), **{**given, **changes})}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, set()),
        ({"new": measured(0.88, 0.88)}, {"gain on new rows"}),
        ({"new": measured(0.0, 0.79)}, {"share right of new rows"}),
        ({"old": measured(0.9, 0.88)}, {"loss on old rows"}),
        ({"must": measured(1.0, 0.8)}, {"must pass"}),
        ({"ratio": 1.51}, {"time of an answer"}),
        ({"suspects": (0.16, 0.05)}, {"suspect labels"}),
        ({"slices": {"a": measured(0.9, 0.95), "b": measured(0.9, 0.86)}}, {"slices", "gap of slices"}),
    ],
)
def test_each_bar_stops_what_it_is_for(changes: dict[str, Any], failed: set[str]) -> None:
    assert {name for name, passed in bars(**changes).items() if not passed} == failed


def test_a_loss_is_written_as_a_loss_and_a_nought_without_a_sign_of_less() -> None:
    rows = Measured(0.9, 0.8712, -0.0288, (-0.06, -0.0))
    given = {"new": measured(0.0, 0.88), "must": None, "slices": {}, "suspects": None}
    found = {bar.name: bar.found for bar in judge(Gate(), old=rows, ratio=0.9999, **given)}  # type: ignore[arg-type]
    assert found["loss on old rows"] == "+2.9% [+0.0%, +6.0%]"
    assert found["time of an answer"] == "+0%"


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"new": (2.0, 1.05), "old": (1.0, 1.005), "must": (1.0, 0.9)}, set()),
        ({"new": (2.0, 1.96)}, {"gain on new rows", "score of new rows"}),
        ({"old": (1.0, 1.02)}, {"loss on old rows"}),
        ({"must": (1.0, 1.1)}, {"must pass"}),
    ],
)
def test_of_a_loss_less_is_better(changes: dict[str, tuple[float, float]], failed: set[str]) -> None:
    rows = {"new": (2.0, 1.0), "old": (1.0, 1.0), "must": (1.0, 1.0)} | changes
    given = {name: measured(*pair, shares=False, lower=True) for name, pair in rows.items()}
    found = bars(**given, slices={}, suspects=None)
    assert {name for name, passed in found.items() if not passed} == failed
    assert "suspect labels" not in found
