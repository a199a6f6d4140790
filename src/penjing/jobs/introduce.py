"""What a run writes down before its first step: a forecast, how well the untuned base does, what its rows
are like."""

from __future__ import annotations

from typing import Any

import numpy as np

from penjing.data.tokenize import tokenize
from penjing.engine.scoring import nearest_name, predictions
from penjing.jobs.expected import forecast_of
from penjing.jobs.job import Job
from penjing.jobs.news import News
from penjing.jobs.odd import laid_said, odd, warm_up_said
from penjing.jobs.prepare import Ready, max_length, part_of, span
from penjing.jobs.rehearse import rehearse
from penjing.jobs.sampled import as_seen, asked_of
from penjing.records import Part, Scores
from penjing.run import Run
from penjing.task import Task

UNTUNED = {"names": "nearest label name, untuned base", "own": "the untuned base, asked the same"}


def introduce(
    run: Run, job: Job, made: Ready, train: Part, valid: Part, steps: int, kept: dict[str, float]
) -> None:
    """Write down what the run begins with: a forecast, and how well the untuned base does."""
    spec, data = job.spec, job.data
    tokens, asked = (
        as_seen(job.task, train, spec.train.batch)
        if job.task.feed
        else (
            train.tokens,
            asked_of(train),
        )
    )
    expected = forecast_of(spec, job.machine, made, tokens, len(train), asked=asked)
    settings = spec.train
    if steps:
        expected = rehearse(
            made,
            job.task,
            train,
            batch=settings.batch,
            micro_tokens=settings.micro_tokens,
            expected=expected,
            techniques=made.techniques,
        )
    before: dict[str, Any] = {}
    if steps and job.task.untuned:
        before = {"how": UNTUNED[job.task.untuned], "valid": _untuned(job, made, valid)}
        if data.test is not None:
            test = part_of(spec, job.task, data.test, data.names, made.base)
            before["test"] = _untuned(job, made, test)
    notes = [*job.task.notes, *odd(train, valid, max_length(spec, made.base), made.base)]
    notes += [*laid_said(train, data.train, "train"), *laid_said(valid, data.valid, "validation")]
    if cold := warm_up_said(settings, steps):
        notes.append(cold)
        job.tell(News("note", cold))
    start = {"before": before, "forecast": expected.plain(), "steps": steps, "trunk_cache": kept}
    start["notes"] = notes
    run.write("start.json", start)
    text = (
        f"{expected.trainable:,} of {expected.parameters:,} parameters train; about {span(expected.seconds)} "
        f"and {expected.mib:,.0f} MiB of memory with all that the process holds"
    )
    job.tell(News("note", text))


def _untuned(job: Job, made: Ready, part: Part) -> dict[str, Any]:
    """Scores of the untuned base: it takes the label whose name is nearest, or answers as it is."""
    tokens = job.spec.train.micro_tokens
    if job.task.untuned == "own":
        found = predictions(job.task, made.model, part, tokens=tokens)
        scores = plain(job.task.score(found, part.targets, job.data.names, {}, job.spec.seed))
        scores["values"] |= job.probe(made.model) if job.probe else {}
        return scores
    readable = [name.replace("_", " ") for name in job.data.names]
    longest = max_length(job.spec, made.base)
    names = tokenize(made.base.tokenizer, readable, max_length=longest, cache=False)
    pooling = "mean" if made.base.kind == "encoder" else "last"
    probabilities = nearest_name(made.model, part.tokens, names, pooling, tokens=tokens)
    return plain(job.task.score(probabilities, part.targets, job.data.names, {}, job.spec.seed))


def reference_of(task: Task, train: Part, names: list[str]) -> dict[str, Any]:
    """Statistics of the train rows that a watch for drift compares with later."""
    lengths = train.tokens.lengths
    quantiles = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
    own = task.reference(train, names) if task.reference else {}
    return {**own, "token_lengths": {str(q): float(np.quantile(lengths, q)) for q in quantiles}}


def plain(scores: Scores) -> dict[str, Any]:
    """Values and intervals as a JSON object."""
    return {"values": scores.values, "intervals": scores.intervals}
