"""Teachers of patterns label rows that a classifier learns from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import tickets
from penjing import load, tune
from penjing import run as runs
from penjing import spec as specs
from penjing.chains import pet as chain
from penjing.chains.pet import pet, softened
from penjing.errors import SpecError


def test_soft_labels_are_the_mean_of_logs_over_the_temperature() -> None:
    p = np.array([[[0.8, 0.2]], [[0.5, 0.5]]])
    by_hand = np.sqrt(np.sqrt([0.8 * 0.5, 0.2 * 0.5]))  # mean of two logs, over T = 2
    assert softened(np.log(p), 2.0)[0] == pytest.approx(by_hand / by_hand.sum())


def test_other_tasks_and_odd_numbers_are_refused(small: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"`task: few_shot`; the spec has `classify`"):
        pet(small, unlabelled="x.csv", name="n")
    with pytest.raises(SpecError, match=r"`temperature` of `pet` must be at least"):
        pet({**small, "task": "few_shot"}, unlabelled="x.csv", name="n", temperature=0)


@pytest.mark.slow
@pytest.mark.parametrize("templates", [None, ["{text} It is {mask}.", "About {mask}: {text}"]])
def test_teachers_of_two_patterns_teach_a_classifier_that_its_spec_repeats(
    tiny: Callable[..., Path], tmp_path: Path, small: dict[str, Any], templates: list[str] | None
) -> None:
    texts = [text for text, _ in tickets(24, seed=5)]
    (tmp_path / "more.csv").write_text("text\n" + "".join(f'"{t}"\n' for t in texts), encoding="utf-8")
    how = {"how": "mask", "templates": templates} if templates else {"how": "nearest"}
    task = {"few_shot": {**how, "shots": 4}}
    values = {**small, "task": task, "train": {"steps": 2}, "out": str(tmp_path)}
    more = {"train": {"steps": 3, "lr": 1e-2}}
    seeds = 1 if templates else 2
    run = pet(values, unlabelled=str(tmp_path / "more.csv"), name="n", seeds=seeds, student=more)
    teachers = [load(tmp_path / "n-teachers" / f"00{i}") for i in (1, 2)]
    if templates:
        named = [teacher.card["task"]["few_shot"]["templates"] for teacher in teachers]
        assert named == [[one] for one in templates]
    wanted = softened(np.log(np.stack([t.probabilities(texts) for t in teachers])), 2.0)
    lines = [json.loads(line) for line in (tmp_path / "n-teachers/soft.jsonl").read_text().splitlines()]
    assert np.array([[*line["probabilities"].values()] for line in lines]) == pytest.approx(wanted, abs=1e-6)
    assert run.spec.task.name == "soft"
    assert run.state == "done"
    again = tune(run.folder / "spec.yaml", sets=("name=again",))
    assert again.bundle.probabilities(texts[:3]) == pytest.approx(run.bundle.probabilities(texts[:3]))


def test_what_cannot_end_well_is_told_before_any_teacher(
    tiny: Callable[..., Path], tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "carried", lambda place, job: pytest.fail("a teacher was trained"))
    values = {**small, "task": {"few_shot": {"how": "nearest", "shots": 4}}, "out": str(tmp_path)}
    more = tmp_path / "more.csv"
    more.write_text("text\nmy card\n", encoding="utf-8")
    with pytest.raises(SpecError, match="Did you mean `lora`"):
        pet(values, unlabelled=str(more), name="n", student={"method": "lorra"})
    runs.new(specs.read({**values, "name": "n"}))
    with pytest.raises(SpecError, match=r"`name: n` was asked for.*penjing tune --resume"):
        pet(values, unlabelled=str(more), name="n")
    there = {"task": {"few_shot": {"how": "nearest", "shots": 8}}, "out": str(tmp_path / "m-teachers")}
    runs.new(specs.read({**values, **there, "name": "001"}))
    with pytest.raises(SpecError, match=r"m-teachers/001 holds a teacher whose `task` is .*8.*; it is .*4"):
        pet(values, unlabelled=str(more), name="m")
