"""The end of a run: its best bundle is opened as a user would, scored beside baseline and base, reported."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from penjing.bundle import Bundle, load
from penjing.data import clean
from penjing.data.images import image_summary
from penjing.device import Machine, matrix_peaks
from penjing.jobs.news import News, Tell
from penjing.jobs.odd import laid_said
from penjing.jobs.prepare import Data
from penjing.jobs.report import report
from penjing.jobs.seen import keep_reference
from penjing.records import Part, Rows, Scores
from penjing.run import Run
from penjing.spec import Spec
from penjing.task import Task

SHOWN = 25  # worst errors kept


def conclude(
    run: Run,
    spec: Spec,
    task: Task,
    machine: Machine,
    data: Data,
    cost: dict[str, Any],
    best: dict[str, Any],
    tell: Tell,
) -> None:
    """Write data.json, result.json and report.html. Test rows decide where there are any, else validation."""
    tell(News("stage", "scoring, beside the cheap baseline"))
    start = run.read("start.json")
    split, rows = ("test", data.test) if data.test is not None else ("valid", data.valid)
    bundle = load(run.folder, machine=machine)
    part = bundle.part(rows)
    found = bundle.infer(part, tokens=spec.train.micro_tokens)
    after = task.score(found, part.targets, data.names, bundle.card["chosen"], spec.seed)
    cheap = _baseline(task, data, rows, part, found, bundle.card["chosen"], spec.seed)
    if not task.feed:
        keep_reference(bundle, data.valid, data.train, seed=spec.seed, cache=spec.data.cache)
    run.write("data.json", _data(spec, data, tell, images=task.sees))
    expected = start["forecast"]
    peaks = matrix_peaks() if machine.device.type == "cpu" else None
    reached = expected["flops_a_token"] * cost["tokens_per_s"] / 1e9
    result = {
        "state": "done",
        "task": task.name,
        "labels": data.names,
        "best_step": best["step"],
        "best_score": best["score"],
        "best_name": task.best,
        "lower": task.lower,
        "splits_scored": split,
        "before": {"how": start["before"].get("how"), **start["before"].get(split, {})},
        "after": _plain(after, tables=True),
        "baseline": {} if cheap is None else {**_plain(cheap.scores), "seconds": cheap.seconds},
        "difference": {} if cheap is None else cheap.difference,
        "worst": worst(bundle, found, part),
        "cost": {
            **cost,
            "forecast_s": expected["seconds"],
            "forecast_mib": expected["mib"],
            "peak_share": reached / peaks[machine.precision] if peaks else None,
        },
        "notes": [
            *machine.notes,
            *data.notes,
            *start.get("notes", ()),
            *(laid_said(part, rows, "test") if data.test is not None else ()),
            *(cheap.notes if cheap else ()),
        ],
    }
    run.write("result.json", result)
    report(run.folder, language=spec.language)
    value, interval = after.values[task.best], after.intervals.get(task.best)
    span = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
    beside = "" if cheap is None else f"; baseline {cheap.scores.values[task.best]:.4f}"
    tell(News("score", f"{task.best} {value:.4f}{span} on {split} rows{beside}"))


@dataclass(frozen=True)
class _Cheap:
    """The baseline on the same rows, and how far the model is above it."""

    scores: Scores
    seconds: float
    difference: dict[str, Any]
    notes: tuple[str, ...]


def _baseline(
    task: Task, data: Data, rows: Rows, part: Part, ours: Any, chosen: dict[str, Any], seed: int
) -> _Cheap | None:
    """None where the task has no baseline."""
    if task.baseline is None:
        return None
    began = time.perf_counter()
    predict = task.baseline(data.train, task.encode(data.train, data.names), data.names, seed)
    theirs_chosen = task.tune(predict(data.valid), task.encode(data.valid, data.names))
    theirs = predict(rows)
    seconds = time.perf_counter() - began
    difference: dict[str, Any] = {}
    if task.difference:
        mean, interval = task.difference(ours, theirs, part.targets, chosen, theirs_chosen, seed)
        difference = {"name": task.best, "mean": mean, "interval": interval, "versus": "baseline"}
    scores = task.score(theirs, part.targets, data.names, theirs_chosen, seed)
    return _Cheap(scores, seconds, difference, tuple(getattr(predict, "notes", ())))


def worst(bundle: Bundle, found: Any, part: Part) -> list[dict[str, Any]]:
    """The wrong answers of which the model was surest, or the numbers that are furthest off."""
    if bundle.task.mistakes is None:
        return []
    wrong = bundle.task.mistakes(found, part.rows, part.targets, bundle.labels, bundle.card["chosen"])
    return sorted(wrong, key=lambda one: -float(one.get("confidence", one.get("error", 0))))[:SHOWN]


def _data(spec: Spec, data: Data, tell: Tell, *, images: bool) -> dict[str, Any]:
    tell(News("stage", "looking at the rows"))
    named = {
        "train": data.train,
        "valid": data.valid,
        **({"test": data.test} if data.test is not None else {}),
    }
    summary = image_summary(clean.summary(named, near=False), named) if images else clean.summary(named)
    labelled = any(data.train.labels) and data.train.items is None  # words alone do not judge a pair
    suspects = clean.suspects(data.train, seed=spec.seed) if labelled else {}
    return {**summary, "suspects": suspects, "notes": list(data.notes)}


def _plain(scores: Scores, *, tables: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"values": scores.values, "intervals": scores.intervals}
    return {**found, "tables": scores.tables} if tables else found
