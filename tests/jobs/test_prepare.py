"""From a spec to what trains: a method's own techniques know the run's steps and come first."""

from pathlib import Path
from typing import Any

import pytest

from penjing import tune

IDEAS = """
from penjing.records import Method, Technique

SEEN = []


def planned() -> Method:
    def techniques(trunk, steps):
        SEEN.append(steps)
        return [Technique("plan", after_update=lambda model, step: SEEN.append(f"plan {step}"))]

    def apply(trunk):
        return trunk

    return Method("planned", apply, lr=1e-3, saves="full", techniques=techniques)


def told() -> Technique:
    return Technique("told", after_update=lambda model, step: SEEN.append(f"told {step}"))
"""


@pytest.mark.slow
def test_a_methods_techniques_know_the_steps_and_come_before_the_specs(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planning.py").write_text(IDEAS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    small["train"] = {**small["train"], "steps": 2, "evals": 1}
    tune(small, method="planning.planned", techniques=["planning.told"])
    import planning

    assert planning.SEEN == [2, "plan 1", "told 1", "plan 2", "told 2"]
