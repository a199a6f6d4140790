"""Runs carried together by the bank are the runs carried alone: losses, weights, scores, saved state."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from penjing import load
from penjing import run as runs
from penjing import spec as specs
from penjing.jobs import training
from penjing.jobs.introduce import Job
from penjing.jobs.news import silent
from penjing.jobs.together import advance_together, company
from penjing.jobs.training import Training
from penjing.models.load import copy_of

TRIALS: dict[str, dict[str, Any]] = {
    "a": {"method": {"lora": {"rank": 2}}, "lr": 0.02, "seed": 1},
    "b": {"method": {"lora": {"rank": 4, "targets": "attention"}}, "lr": 0.01, "head_lr": 0.03, "batch": 9},
}


@pytest.fixture
def job(small: dict[str, Any]) -> Job:
    found = training.opened(specs.read(small), silent)
    return replace(found, parts=training.parts_of(found))


def begun(job: Job, name: str, place: str) -> Training:
    spec = specs.read(job.spec, name=f"{place}-{name}", **TRIALS[name])
    folder = runs.Run(Path(spec.out) / f"{place}-{name}")
    run = folder if folder.folder.is_dir() else runs.new(spec)
    return training.begin(run, replace(job, spec=spec, base=copy_of(job.base)), introduced=False)


@pytest.mark.slow
def test_together_then_alone_then_together_equals_alone(job: Job) -> None:
    for name in TRIALS:
        training.advance(begun(job, name, "alone"))
    together = {name: begun(job, name, "turns") for name in TRIALS}
    assert all(company(it) == "adapters" for it in together.values())
    assert advance_together({name: (it, 2) for name, it in together.items()}) == {}
    training.advance(begun(job, "a", "turns"), until=4)
    assert advance_together({name: (begun(job, name, "turns"), 6) for name in TRIALS}) == {}
    for name in TRIALS:
        one, other = (
            runs.Run(together[name].run.folder.with_name(f"{p}-{name}")) for p in ("alone", "turns")
        )
        losses = [[line["loss"] for line in run.lines("log.jsonl")] for run in (one, other)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
        states = [load_file(run.folder / "last" / "state.safetensors") for run in (one, other)]
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            np.testing.assert_allclose(
                states[1][key].numpy(), value.numpy(), rtol=1e-3, atol=2e-6, err_msg=key
            )
        texts = job.data.valid.texts
        answers = [load(run.folder).probabilities(texts) for run in (one, other)]
        np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)


@pytest.mark.slow
def test_heads_on_kept_states_together_then_alone_equal_alone(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    head = {"method": {"top": {"layers": 0}}, "trunk_cache": True}
    for name, changes in {"a": {"lr": 0.02, "seed": 1}, "b": {"lr": 0.1, "batch": 9}}.items():
        monkeypatch.setitem(TRIALS, name, {**head, **changes})
        training.advance(begun(job, name, "alone"))
    together = {name: begun(job, name, "turns") for name in TRIALS}
    assert {company(it) for it in together.values()} == {company(together["a"])} != {""}
    assert advance_together({name: (it, 4) for name, it in together.items()}) == {}
    for name in TRIALS:
        training.advance(begun(job, name, "turns"))
        runs_of = [runs.Run(together[name].run.folder.with_name(f"{p}-{name}")) for p in ("alone", "turns")]
        logs = [run.lines("log.jsonl") for run in runs_of]
        losses = [[line["loss"] for line in log] for log in logs]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
        counts = [[(line["n_tokens"], line["n_rows"]) for line in log] for log in logs]
        assert counts[0] == counts[1]
        states = [load_file(run.folder / "last" / "state.safetensors") for run in runs_of]
        assert states[0].keys() == states[1].keys()
        for key, value in states[0].items():
            np.testing.assert_allclose(states[1][key].numpy(), value.numpy(), rtol=1e-3, atol=2e-6)


@pytest.mark.slow
def test_what_the_bank_cannot_run_does_not_fit(job: Job) -> None:
    for changes in (
        {"method": "bitfit"},
        {"method": {"lora": {"dora": True}}},
        {"method": {"lora": {"targets": ["encoder.layer.1.output.dense"]}}},
        {"optimizer": "adafactor", "lr": 1e-3},
    ):
        spec = specs.read(job.spec, name="no", **{"method": "lora", **changes})
        run = runs.new(spec)
        it = training.begin(run, replace(job, spec=spec, base=copy_of(job.base)), introduced=False)
        assert not company(it)
        shutil.rmtree(run.folder)


@pytest.mark.slow
def test_a_run_that_fails_leaves_and_the_others_end(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    together = {name: begun(job, name, "fails") for name in TRIALS}
    bad = together["a"].job.task.loss

    def loss(model: Any, batch: Any) -> Any:
        found = bad(model, batch)
        return replace(found, mean=found.mean * float("nan"))

    together["a"] = replace(together["a"], job=replace(together["a"].job, task=replace(job.task, loss=loss)))
    failed = advance_together({name: (it, 6) for name, it in together.items()})
    assert set(failed) == {"a"}
    assert "nan" in str(failed["a"])
    assert together["b"].watch.step == 6
