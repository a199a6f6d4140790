"""The end of a run: its best bundle is opened as a user would, scored beside baseline and base, reported."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from penjing.bundle import Bundle, load
from penjing.data import clean
from penjing.device import Machine, matrix_peaks
from penjing.jobs.news import News, Tell
from penjing.jobs.prepare import Data
from penjing.jobs.report import report
from penjing.records import Rows, Scores, Task
from penjing.run import Run
from penjing.spec import Spec

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
    probabilities = bundle.probabilities(rows.texts, tokens=spec.train.micro_tokens)
    targets = task.encode(rows, data.names)
    after = task.score(probabilities, targets, data.names, bundle.card["chosen"], spec.seed)
    cheap, seconds, cheap_chosen, left_out = _baseline(task, data, rows, spec.seed)
    baseline = task.score(cheap, targets, data.names, cheap_chosen, spec.seed)
    run.write("data.json", _data(spec, data, tell))
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
        "splits_scored": split,
        "before": {"how": start["before"].get("how"), **start["before"].get(split, {})},
        "after": _plain(after, tables=True),
        "baseline": {**_plain(baseline), "seconds": seconds},
        "difference": _difference(task, bundle, probabilities, cheap, targets, cheap_chosen, spec.seed),
        "worst": worst(task, rows, probabilities, targets, bundle),
        "cost": {
            **cost,
            "forecast_s": expected["seconds"],
            "forecast_mib": expected["mib"],
            "peak_share": reached / peaks[machine.precision] if peaks else None,
        },
        "notes": [*machine.notes, *data.notes, *left_out],
    }
    run.write("result.json", result)
    report(run.folder, language=spec.language)
    value, interval = after.values[task.best], after.intervals.get(task.best)
    span = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
    tell(
        News(
            "score",
            f"{task.best} {value:.4f}{span} on {split} rows; baseline {baseline.values[task.best]:.4f}",
        )
    )


def _baseline(
    task: Task, data: Data, rows: Rows, seed: int
) -> tuple[np.ndarray, float, dict[str, Any], tuple[str, ...]]:
    """Its probabilities of the rows, seconds, what was chosen on validation rows, and its notes."""
    began = time.perf_counter()
    targets = task.encode(data.train, data.names)
    predict = task.baseline(data.train.texts, targets, len(data.names), seed)
    chosen = task.tune(predict(data.valid.texts), task.encode(data.valid, data.names))
    found = predict(rows.texts)
    return found, time.perf_counter() - began, chosen, getattr(predict, "notes", ())


def _difference(
    task: Task,
    bundle: Bundle,
    ours: np.ndarray,
    theirs: np.ndarray,
    targets: np.ndarray,
    chosen: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Tuned model minus baseline on the same rows, with the interval of the paired bootstrap."""
    from penjing.intervals import paired_difference

    truth = task.marks(targets, ours.shape[1])
    answers = task.decide(ours, bundle.card["chosen"]), task.decide(theirs, chosen)
    mean, interval = paired_difference(truth, *answers, task.best, seed=seed)
    return {"name": task.best, "mean": mean, "interval": interval, "versus": "baseline"}


def worst(
    task: Task, rows: Rows, probabilities: np.ndarray, targets: np.ndarray, bundle: Bundle
) -> list[dict[str, Any]]:
    """The wrong answers of which the model was surest."""
    answers = task.answers(probabilities, bundle.labels, bundle.card["chosen"])
    found = []
    for row, answer in enumerate(answers):
        predicted = answer["labels"] if task.multi_label else [answer["label"]]
        if set(predicted) != set(rows.labels[row]):
            found.append(
                {
                    "where": rows.where(row),
                    "text": rows.texts[row][:600],
                    "given": ", ".join(rows.labels[row]),
                    "predicted": ", ".join(predicted) or "none",
                    "confidence": answer["confidence"],
                }
            )
    return sorted(found, key=lambda f: -float(f["confidence"]))[:SHOWN]


def _data(spec: Spec, data: Data, tell: Tell) -> dict[str, Any]:
    tell(News("stage", "looking at the rows"))
    named = {
        "train": data.train,
        "valid": data.valid,
        **({"test": data.test} if data.test is not None else {}),
    }
    summary = clean.summary(named)
    return {**summary, "suspects": clean.suspects(data.train, seed=spec.seed), "notes": list(data.notes)}


def _plain(scores: Scores, *, tables: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"values": scores.values, "intervals": scores.intervals}
    return {**found, "tables": scores.tables} if tables else found
