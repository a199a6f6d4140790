"""A run carried in pieces, with what it shares handed in, is the run carried at once."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from penjing import Run
from penjing import run as runs
from penjing import spec as specs
from penjing.jobs import training
from penjing.jobs.expected import forecast_of
from penjing.jobs.news import silent
from penjing.jobs.prepare import ready
from penjing.jobs.rehearse import rehearse
from penjing.models.load import copy_of
from penjing.records import Batch, Loss, Technique


def state(run: Run) -> dict[str, bytes]:
    found = load_file(run.folder / "last" / "state.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_carried_in_pieces_over_a_shared_base_equals_one_carried_at_once(
    small: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specs.read(small, method=method)
    whole = runs.new(spec.model_copy(update={"name": "whole"}))
    training.advance(training.begin(whole, training.opened(spec, silent)))
    job = training.opened(spec, silent)
    job = replace(job, parts=training.parts_of(job))
    for reading in ("rows_of", "load_base", "part_of"):
        monkeypatch.delattr(training, reading)  # nothing is read, loaded or tokenized again
    pieces = runs.new(spec.model_copy(update={"name": "pieces"}))
    for until in (2, 3, None):
        it = training.begin(pieces, replace(job, base=copy_of(job.base)), introduced=False)
        training.advance(it, until=until)
        assert it.watch.step == (until or 6)
        assert it.over == (until is None)
    assert state(pieces) == state(whole)
    assert [line["lr"] for line in pieces.lines("log.jsonl")] == [
        line["lr"] for line in whole.lines("log.jsonl")
    ]


@pytest.mark.slow
def test_a_run_is_scored_on_test_rows_only_when_it_is_finished(small: dict[str, Any], tiny_csv: Path) -> None:
    small["data"]["test"] = str(tiny_csv)
    spec = specs.read(small)
    job = training.opened(spec, silent)
    run = runs.new(spec)
    unread: Any = object()  # any use of it fails
    trial = replace(job, base=copy_of(job.base), data=replace(job.data, test=unread))
    training.advance(training.begin(run, trial, introduced=False))
    assert {line["split"] for line in run.lines("scores.jsonl")} == {"valid"}
    assert run.state == "open"
    training.finish(training.begin(run, replace(job, base=copy_of(job.base))))
    assert run.state == "done"
    assert run.result["splits_scored"] == "test"
    assert run.read("start.json")["before"]["test"]["values"]["accuracy"] < 1


def test_a_rehearsal_pays_for_what_techniques_do_beside_the_task(small: dict[str, Any]) -> None:
    spec = specs.read(small)
    job = training.opened(spec, silent)
    train, _ = training.parts_of(job)
    made = ready(spec, job.task, job.data.names, job.base, job.machine, None, steps=6)
    formula = forecast_of(spec, job.machine, made, train.tokens, len(train))

    def taught(model: Any, batch: Batch, found: Loss) -> Loss:
        time.sleep(0.1)  # a teacher
        return found

    how: dict[str, Any] = {"batch": 8, "micro_tokens": 8192, "expected": formula}
    alone, beside = (  # the better of two: other programs may take the machine for a moment
        min(rehearse(made, job.task, train, **how, techniques=techniques).seconds for _ in range(2))
        for techniques in ((), (Technique("taught", loss=taught),))
    )
    steps = formula.tokens / float(train.tokens.lengths.mean()) / 8
    assert beside - alone > 0.5 * 0.1 * steps
    assert not any(p.grad is not None for p in made.model.parameters())


@pytest.mark.slow
def test_the_result_names_the_step_of_the_bundle_that_is_there(small: dict[str, Any]) -> None:
    """A process killed behind its last saved state had a better one; a shorter time limit ends the resume
    before it comes there again."""
    told: list[str] = []
    run = runs.new(specs.read(small))
    it = training.begin(run, training.opened(run.spec, lambda news: told.append(news.text)))
    training.advance(it)
    card = run.bundle.card
    it.watch.best_step, it.watch.best, it.watch.step = card["step"] - 1, 0.0, card["step"] - 1
    training.finish(it)
    assert run.result["best_step"] == card["step"]
    assert run.result["best_score"] == card["scores"]["valid"]["accuracy"]
    assert any(f"the best bundle is of step {card['step']}" in text for text in told)
