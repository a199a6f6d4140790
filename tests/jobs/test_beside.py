"""What a teacher adds to a forecast."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing.jobs import beside, expected
from penjing.jobs.check import check
from penjing.jobs.plan import Way, plan
from penjing.models.load import load
from penjing.models.sizing import Pace, Shape

Tiny = Callable[..., Path]
PACE = Pace((Shape(16, 1e-3, 1e9),), 1e-9)


@pytest.fixture
def asked(tiny: Tiny, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Way]:
    """The way of a plan of 100 steps with these settings of `distill`; without, of no technique. The layer is
    not tried, so that times are of the pace alone."""
    for module in (expected, beside):
        monkeypatch.setattr(module, "layer_cost", lambda *given: None)
        monkeypatch.setattr(module, "pace_of", lambda machine: PACE)

    def way(**settings: Any) -> Way:
        more = {"techniques": [{"distill": settings}]} if settings else {}
        return plan(
            base=str(tiny("bert")), train=str(tiny_csv), device="cpu", precision="fp32", steps=100, **more
        ).way

    return way


def weights_mib(folder: Path) -> float:
    return sum(p.numel() for p in load(str(folder), device="meta").trunk.parameters()) * 4 / 2**20


def test_a_teacher_beside_every_step_takes_its_weights_and_a_third_of_a_like_models_time(
    asked: Callable[..., Way], tiny: Tiny
) -> None:
    alone, one = asked(), asked(teacher=str(tiny("bert")), hidden=1.0)
    assert one.mib - alone.mib > weights_mib(tiny("bert"))
    assert 1.25 < one.seconds / alone.seconds < 1.34  # the update beside forward and backward is little
    two = asked(teacher=[str(tiny("bert"))] * 2, augment="swap")
    twice = 2 * (2 * one.seconds - alone.seconds)  # of two teachers, as every row is learned twice
    assert two.seconds == pytest.approx(twice, rel=1e-3)
    assert two.mib - alone.mib > 2 * weights_mib(tiny("bert"))


def test_a_teacher_that_is_asked_once_takes_one_pass_and_no_memory_of_a_step(
    asked: Callable[..., Way], tiny: Tiny
) -> None:
    alone, beside_each = asked(), asked(hidden=1.0)  # the base itself teaches
    once = asked(teacher=str(tiny("bert")))
    assert once.mib == alone.mib
    share = (once.seconds - alone.seconds) / (beside_each.seconds - alone.seconds)
    assert 0 < share < 0.1  # of 100 steps


def test_a_teacher_that_is_not_there_is_found_before_anything_runs(tiny: Tiny, tiny_csv: Path) -> None:
    found = check(
        base=str(tiny("bert")), train=str(tiny_csv), techniques=[{"distill": {"teacher": "runs/nobody"}}]
    )
    assert any(one.state == "error" and "runs/nobody" in one.text for one in found)
