"""The end of an objective's run: its best bundle is opened as a user would, judged on held-out text, shown at
work, reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from penjing.bundle import Bundle, load
from penjing.device import matrix_peaks
from penjing.jobs.job import Job
from penjing.jobs.news import News
from penjing.jobs.report import report
from penjing.records import Part, Scores
from penjing.run import Run

SHOWN = 6  # pieces of validation text that the model is shown at work on


def conclude_grown(run: Run, job: Job, cost: dict[str, Any], best: dict[str, Any]) -> None:
    """Write data.json, result.json and report.html; the validation texts decide."""
    spec, task, machine = job.spec, job.task, job.machine
    job.tell(News("stage", "judging on the validation texts"))
    assert job.parts is not None
    train, valid = job.parts
    start = run.read("start.json")
    bundle = load(run.folder, machine=machine)
    found = bundle.infer(valid, tokens=spec.train.micro_tokens)
    after: Scores = task.score(found, valid.targets, job.data.names, {}, spec.seed)
    if job.probe:
        after = replace(after, values={**after.values, **job.probe(bundle.model)})
    expected = start["forecast"]
    peaks = matrix_peaks() if machine.device.type == "cpu" else None
    reached = expected["flops_a_token"] * cost["tokens_per_s"] / 1e9
    run.write("data.json", {"sources": _sources(train, job.data.names), "notes": list(job.data.notes)})
    result = {
        "state": "done",
        "task": task.name,
        "labels": job.data.names,
        "best_step": best["step"],
        "best_score": best["score"],
        "best_name": task.best,
        "lower": task.lower,
        "splits_scored": "valid",
        "before": {"how": start["before"].get("how"), **start["before"].get("valid", {})},
        "after": {"values": after.values, "intervals": after.intervals, "tables": after.tables},
        "shown": shown(bundle, valid, spec.seed),
        "cost": {
            **cost,
            "forecast_s": expected["seconds"],
            "forecast_mib": expected["mib"],
            "peak_share": reached / peaks[machine.precision] if peaks else None,
        },
        "notes": [*machine.notes, *job.data.notes],
    }
    run.write("result.json", result)
    report(run.folder, language=spec.language)
    text = f"{task.best} {after.values[task.best]:.4f} on {len(valid):,} pieces of validation text"
    job.tell(News("score", text))


def shown(bundle: Bundle, valid: Part, seed: int) -> list[dict[str, Any]]:
    """A few pieces of validation text and what the model makes of them."""
    if bundle.task.show is None:
        return []
    index = np.random.default_rng(seed).permutation(len(valid))[:SHOWN]
    found: list[dict[str, Any]] = bundle.task.show(bundle.model, bundle.base, valid, np.sort(index))
    return found


def _sources(train: Part, names: list[str]) -> list[dict[str, Any]]:
    """Documents, tokens and bytes of each source to learn from."""
    lengths, found = train.tokens.lengths, []
    for place, name in enumerate(names):
        own = train.targets[:, 0] == place
        found.append(
            {
                "source": name,
                "documents": len(np.unique(train.targets[own, 1])),
                "tokens": int(lengths[own].sum()),
                "bytes": int(train.targets[own, 3].sum()),
            }
        )
    return found
