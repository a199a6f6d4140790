"""Tune: spec -> rows -> base -> method -> task -> loop -> best bundle, scores, report. Logging, validating, saving and
stopping are ordinary code in `for step in train_steps(…)`.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing import run as runs
from penjing import spec as specs
from penjing.bundle import save as save_bundle
from penjing.data import batches
from penjing.device import Machine, choose, matrix_peaks, peak_mib
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.engine.scoring import nearest_name, outputs
from penjing.errors import NotSupported, PenjingError
from penjing.jobs import keep
from penjing.jobs.conclude import conclude
from penjing.jobs.lineage import lineage
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.prepare import (
    Data,
    Part,
    Ready,
    load_base,
    max_length,
    n_steps,
    part_of,
    ready,
    rows_of,
    task_of,
)
from penjing.models.sizing import Forecast, forecast
from penjing.records import Batch, Scores, Step, Task
from penjing.run import Run
from penjing.spec import Spec


def tune(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    tell: Tell = silent,
    **keywords: Any,
) -> Run:
    """Tune a base on rows and return the finished Run.

    `source` is a spec file, a mapping or a Spec; keywords are as in `spec.read`: `tune(base="minilm", train="tickets.csv")`.

    Raises:
        SpecError, DataError: what was asked for or the rows are not usable.
        NotSupported, WontFit, CannotWrite, TrainingFailed: the machine, the base, the disk or the training is at fault.
    """
    spec = specs.read(source, sets=sets, **keywords)
    task = task_of(spec)
    machine = choose(spec.device, spec.precision)
    data = rows_of(spec, task, tell)
    base = load_base(spec, machine, tell)
    max_length(spec, base)
    run = runs.new(spec)
    return _carry(run, spec, task, machine, data, base, tell)


def resume(folder: str | Path | None = None, *, out: str = "runs", tell: Tell = silent) -> Run:
    """Go on with a run that was stopped or killed, exactly where its last saved state is; the newest open run by default.

    Raises:
        NotSupported: there is no such run, it is done, or its rows or base have changed.
    """
    run = runs.open_run(folder) if folder is not None else runs.newest(out, state="open")
    if run.state == "done":
        raise NotSupported(
            f"The run {run.folder} is done; there is nothing to resume. See {run.folder / 'report.html'}."
        )
    spec = run.spec
    task = task_of(spec)
    machine = choose(spec.device, spec.precision)
    data = rows_of(spec, task, tell)
    base = load_base(spec, machine, tell)
    before = run.read("lineage.json")
    if before:
        for name, source in data.sources.items():
            if before["data"].get(name, {}).get("sha256") != source["sha256"]:
                raise NotSupported(
                    f"The rows of `data.{name}` are not those that {run.folder} began with (another SHA-256). Put the old "
                    f"rows back to resume, or start a new run."
                )
        if before["base"]["sha256"] != base.sha256:
            raise NotSupported(
                f"The base `{spec.base}` has changed since {run.folder} began. Start a new run."
            )
    return _carry(run, spec, task, machine, data, base, tell)


def _carry(run: Run, spec: Spec, task: Task, machine: Machine, data: Data, base: Any, tell: Tell) -> Run:
    """Begin or go on; whatever happens is told in the run's folder."""
    with run.held():
        (run.folder / "error.txt").unlink(missing_ok=True)
        try:
            for note in (*machine.notes, *data.notes):
                tell(News("note", note))
            _train(run, spec, task, machine, data, base, tell)
        except KeyboardInterrupt:
            raise
        except PenjingError as error:
            (run.folder / "error.txt").write_text(f"{error}\n", encoding="utf-8")
            raise
        except Exception:
            (run.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            raise
    return run


@dataclass
class _Watch:
    """The run's counters: what decides about stopping, and what `last/` keeps."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0  # validations since the best
    seconds: float = 0.0
    tokens: int = 0
    stopped: str = ""  # why it ended early


def _train(run: Run, spec: Spec, task: Task, machine: Machine, data: Data, base: Any, tell: Tell) -> None:
    train = part_of(spec, task, data.train, data.names, base, weigh=True, tell=tell)
    valid = part_of(spec, task, data.valid, data.names, base, tell=tell)
    if train.tokens.cut:
        tell(
            News(
                "note",
                f"{train.tokens.cut:,} train rows are longer than {max_length(spec, base)} tokens; their ends are cut",
            )
        )
    dense = base.pooler is not None
    made = ready(spec, task, data.names, base, machine, np.unique(train.tokens.ids))
    steps = n_steps(spec, len(data.train))
    if not run.read("start.json"):
        _begin(run, spec, task, machine, data, made, train, valid, steps, tell)
    optimizer = optim.optimizer(made.model, spec.train, made.lr)
    watch = _Watch()
    saved = keep.restore(run, made.model, optimizer, made.techniques)
    if saved is not None:
        watch = _Watch(**saved)
        tell(News("note", f"going on after step {watch.step} of {steps}"))
    run.forget_after(watch.step)
    card = {
        "task": spec.task.written(),
        "method": spec.method.written(),
        "labels": data.names,
        "max_length": max_length(spec, base),
        "precision": machine.precision,
        "dense": dense and getattr(made.model.head, "dense", None) is not None,
        "reference": _reference(train, data.names),
    }
    every = math.ceil(steps / spec.train.evals) if spec.train.evals else steps
    stream = _stream(spec, train, watch.step)
    loop = train_steps(
        made.model,
        stream,
        task.loss,
        optimizer,
        optim.schedule(spec.train, steps),
        steps=steps,
        start=watch.step,
        clip=spec.train.clip,
        seed=spec.seed,
        techniques=made.techniques,
    )

    def keep_state() -> None:
        keep.save(run, made.model, optimizer, made.techniques, vars(watch).copy())

    tell(News("stage", f"training {steps:,} steps on {len(data.train):,} rows"))
    began, saved_at = time.perf_counter() - watch.seconds, time.perf_counter()
    stopping = watch.stopped or (watch.step >= steps)
    try:
        for step in () if stopping else loop:
            watch.step, watch.tokens = step.step, watch.tokens + step.n_tokens
            watch.seconds = time.perf_counter() - began
            _log(run, step, steps, tell)
            late = spec.train.minutes is not None and watch.seconds > 60 * spec.train.minutes
            if step.step % every == 0 or step.step == steps or late:
                _validate(run, task, made, valid, data.names, card, watch, spec, tell)
                if late and step.step < steps:
                    watch.stopped = (
                        f"the time limit of {spec.train.minutes:g} minutes was reached at step {step.step}"
                    )
                if spec.train.patience and watch.stale >= spec.train.patience:
                    watch.stopped = (
                        f"no better score in {watch.stale} validations; stopped at step {step.step}"
                    )
            if watch.stopped or time.perf_counter() - saved_at >= spec.train.save_s:
                keep_state()
                saved_at = time.perf_counter()
            if watch.stopped:
                tell(News("note", watch.stopped))
                break
    except KeyboardInterrupt:
        keep_state()
        tell(
            News(
                "note",
                f"stopped at step {watch.step}; `penjing tune --resume {run.folder}` goes on from there",
            )
        )
        raise
    keep_state()
    for technique in made.techniques:
        if technique.finish:
            technique.finish(made.model, run)
    cost = {
        "steps": watch.step,
        "seconds": watch.seconds,
        "tokens": watch.tokens,
        "tokens_per_s": watch.tokens / max(watch.seconds, 1e-9),
        "rows_per_s": sum(line["n_rows"] for line in run.lines("log.jsonl")) / max(watch.seconds, 1e-9),
        "peak_mib": peak_mib(machine.device),
        "stopped": watch.stopped,
    }
    conclude(run, spec, task, machine, data, cost, {"step": watch.best_step, "score": watch.best}, tell)


def _stream(spec: Spec, train: Part, start: int) -> Iterator[list[Batch]]:
    settings = spec.train
    for rows in batches.steps(
        train.tokens.lengths,
        batch=settings.batch,
        seed=spec.seed,
        group=settings.group_by_length,
        start=start,
    ):
        pieces = batches.cut(rows, train.tokens.lengths, tokens=settings.micro_tokens)
        yield [batches.pack(train.tokens, piece, train.targets, train.weights) for piece in pieces]


def _log(run: Run, step: Step, steps: int, tell: Tell) -> None:
    run.append("log.jsonl", vars(step))
    for note in step.notes:
        tell(News("note", note))
    tell(News("progress", f"loss {step.loss:.3f}", step.step, steps))


def _validate(
    run: Run,
    task: Task,
    made: Ready,
    valid: Part,
    names: list[str],
    card: dict[str, Any],
    watch: _Watch,
    spec: Spec,
    tell: Tell,
) -> None:
    """Score the validation rows; keep the bundle when it is the best so far."""
    probabilities = task.probabilities(outputs(made.model, valid.tokens, tokens=spec.train.micro_tokens))
    chosen = task.tune(probabilities, valid.targets)
    scores: Scores = task.score(probabilities, valid.targets, names, chosen, spec.seed)
    run.append(
        "scores.jsonl",
        {"step": watch.step, "split": "valid", "values": scores.values, "intervals": scores.intervals},
    )
    value = scores.values[task.best]
    tell(News("score", f"{task.best} {value:.4f} on validation rows after step {watch.step}"))
    if value > watch.best:
        watch.best, watch.best_step, watch.stale = value, watch.step, 0
        full = {**card, "chosen": chosen, "scores": {"valid": scores.values}, "step": watch.step}
        save_bundle(run.folder / "best", model=made.model, base=made.base, saves=made.method.saves, card=full)
    else:
        watch.stale += 1


def _begin(
    run: Run,
    spec: Spec,
    task: Task,
    machine: Machine,
    data: Data,
    made: Ready,
    train: Part,
    valid: Part,
    steps: int,
    tell: Tell,
) -> None:
    """Write down what the run begins with: lineage, forecast, and how well the untuned base does."""
    from penjing.data.tokenize import tokenize

    run.write("lineage.json", lineage(spec, machine, data, made))
    expected = _forecast(spec, machine, made, train, steps)
    longest = max_length(spec, made.base)
    before: dict[str, Any] = {}
    if not task.multi_label:
        readable = [name.replace("_", " ") for name in data.names]
        names = tokenize(made.base.tokenizer, readable, max_length=longest, cache=False)
        pooling = "mean" if made.base.kind == "encoder" else "last"
        rows = valid.tokens
        probabilities = nearest_name(made.model, rows, names, pooling, tokens=spec.train.micro_tokens)
        scores = task.score(probabilities, valid.targets, data.names, {}, spec.seed)
        before = {
            "how": "nearest label name, untuned base",
            "valid": {"values": scores.values, "intervals": scores.intervals},
        }
        if data.test is not None:
            test = part_of(spec, task, data.test, data.names, made.base)
            probabilities = nearest_name(
                made.model, test.tokens, names, pooling, tokens=spec.train.micro_tokens
            )
            scores = task.score(probabilities, test.targets, data.names, {}, spec.seed)
            before["test"] = {"values": scores.values, "intervals": scores.intervals}
    run.write("start.json", {"before": before, "forecast": expected.plain(), "steps": steps})
    tell(
        News(
            "note",
            f"{expected.trainable:,} of {expected.parameters:,} parameters train; about {_span(expected.seconds)} and "
            f"{expected.mib:,.0f} MiB more memory",
        )
    )


def _forecast(spec: Spec, machine: Machine, made: Ready, train: Part, steps: int) -> Forecast:
    peaks = matrix_peaks() if machine.device.type == "cpu" else {"bf16": 4e5, "fp32": 5e4}
    lengths = train.tokens.lengths
    return forecast(
        made.model,
        tokens_a_step=float(lengths.mean()) * min(spec.train.batch, len(lengths)),
        longest=float(np.quantile(lengths, 0.95)),
        steps=steps,
        micro_tokens=spec.train.micro_tokens,
        peak_gflops=peaks[machine.precision],
        precision=machine.precision,
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _reference(train: Part, names: list[str]) -> dict[str, Any]:
    """Statistics of the train rows that a watch for drift compares with later."""
    targets = train.targets if train.targets.ndim == 2 else np.eye(len(names))[train.targets]
    lengths = train.tokens.lengths
    quantiles = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
    return {
        "label_shares": {n: float(s) for n, s in zip(names, targets.mean(0), strict=True)},
        "token_lengths": {str(q): float(np.quantile(lengths, q)) for q in quantiles},
    }
