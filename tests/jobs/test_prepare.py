"""From a spec to what trains: a method's own techniques, which know the steps and come first; new heads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing import spec as specs
from penjing import tune
from penjing.device import choose
from penjing.engine.optim import groups
from penjing.jobs.prepare import ready, task_of
from penjing.models.load import load

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


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, 5e-3),
        ({"lr": 3e-4}, 5e-3),
        ({"lr": 7e-3}, 7e-3),
        ({"lr": 1e-9}, 5e-8),
        ({"head_lr": 5e-4}, 5e-4),
        ({"optimizer": "lion"}, 5e-4),
        ({"optimizer": "sgd", "lr": 0.1}, 0.1),
        ({"method": "lora"}, 5e-3),
        ({"method": {"top": {"layers": 0}}, "lr": 1e-3}, 1e-3),
        ({"parent": "runs/earlier"}, 4e-4),  # 1e-4 at a width of 384
    ],
    ids=str,
)
def test_what_is_new_in_a_head_learns_faster_than_what_was_pretrained(
    more: dict[str, Any], wanted: float, tiny: Callable[..., Path]
) -> None:
    """`parent` is read later than this; a head that comes from one is not new."""
    spec = specs.read(base=str(tiny("bert")), task={"classify": {"pooling": "cls"}}, train="rows.csv", **more)
    base = load(spec.base)
    made = ready(spec, task_of(spec), ["a", "b"], base, choose("cpu", "fp32"), None)
    rates = {id(p): group["lr"] for group in groups(made.model, spec.train, made.lr) for p in group["params"]}
    named = {name: rates[id(p)] for name, p in made.model.named_parameters() if p.requires_grad}
    new = [rate for name, rate in named.items() if name.startswith("head.out.")]
    assert new == pytest.approx([wanted] * 2)
    assert {rate for name, rate in named.items() if not name.startswith("head.")} <= {made.lr}
    dense = {rate for name, rate in named.items() if name.startswith("head.dense.")}
    assert dense == {more.get("head_lr", made.lr)}  # it came with the base
