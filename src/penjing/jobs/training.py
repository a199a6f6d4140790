"""A run on its way: opened, begun or restored, carried to a step, finished.

Logging, validating, saving and stopping are ordinary code in `for step in train_steps(…)`. A chain hands in
what its runs share (rows, tokens, a copy of the base) and carries each as far as it likes: what is saved at a
stop is what an exact resume needs, so a run carried in pieces equals one carried at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch.optim import Optimizer

from penjing.bundle import save as save_bundle
from penjing.device import Machine, choose, peak_mib
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.engine.ranks import ALONE
from penjing.engine.scaling import LossScale
from penjing.engine.scoring import over, predictions
from penjing.engine.sharding import put_together, shard
from penjing.errors import SpecError
from penjing.jobs import keep, parent
from penjing.jobs.caching import with_kept
from penjing.jobs.conclude import conclude
from penjing.jobs.introduce import introduce, plain, reference_of
from penjing.jobs.job import Job
from penjing.jobs.lineage import lineage
from penjing.jobs.news import News, Tell
from penjing.jobs.odd import odd
from penjing.jobs.outset import begin_techniques
from penjing.jobs.prepare import (
    Ready,
    bound,
    card_of,
    load_base,
    max_length,
    n_passes,
    n_steps,
    part_of,
    ready,
    rows_of,
    stream,
    task_of,
    techniques_of,
)
from penjing.jobs.rows_for import told
from penjing.jobs.stopping import between_steps
from penjing.jobs.track import following
from penjing.places import typed
from penjing.records import Part, Step
from penjing.run import Run
from penjing.spec import Spec


@dataclass
class Watch:
    """The run's counters: what decides about stopping, and what `last/` keeps."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0  # validations since the best
    seconds: float = 0.0
    tokens: int = 0
    peak_mib: float = 0.0  # highest memory, of processes before a resume too
    stopped: str = ""  # why it ended early


@dataclass(frozen=True)
class Training:
    """One run on its way: what it was given, what was made of that, and its counters."""

    run: Run
    job: Job
    train: Part
    valid: Part
    made: Ready
    optimizer: Optimizer | None  # none where there is no step
    card: dict[str, Any]
    steps: int
    watch: Watch
    scale: LossScale | None = None  # in fp16

    @property
    def over(self) -> bool:
        """True when no step is left, or something ended it early."""
        return bool(self.watch.stopped) or self.watch.step >= self.steps

    def keep(self) -> None:
        """Save what an exact resume needs."""
        assert self.optimizer is not None
        self.watch.peak_mib = max(self.watch.peak_mib, peak_mib(self.job.machine.device))
        counters = {**vars(self.watch), "scale": vars(self.scale) if self.scale else {}}
        techniques, ranks = self.made.techniques, self.job.ranks
        keep.save(self.run, self.made.model, self.optimizer, techniques, counters, ranks=ranks)


def opened(spec: Spec, tell: Tell, machine: Machine | None = None) -> Job:
    """Read the rows and load the base that a spec names; `machine` where it was chosen before."""
    task = task_of(spec)
    techniques_of(spec)
    for key in ("weights", "probe"):
        if getattr(spec.data, key) is not None:
            raise SpecError(
                f"`data.{key}` is for learning from a corpus; `task: {task.name}` learns from rows and would "
                "ignore it. Leave it out, or `penjing pretrain`."
            )
    machine = machine or choose(spec.device, spec.precision)
    data = rows_of(spec, task, tell)
    base = load_base(spec, machine, tell)
    max_length(spec, base)
    if spec.parent:
        parent.fitting(spec, base)
    task = bound(task, base, data)
    for note in task.notes:
        tell(News("note", note))
    return Job(spec, task, machine, data, base, tell)


def parts_of(job: Job) -> tuple[Part, Part]:
    """Tokens and targets of the train and the validation rows; what is odd about them is told."""
    spec, data, base = job.spec, job.data, job.base
    train = part_of(spec, job.task, data.train, data.names, base, weigh=True, tell=job.tell)
    valid = part_of(spec, job.task, data.valid, data.names, base, tell=job.tell)
    for note in odd(train, valid, max_length(spec, base), base):
        job.tell(News("note", note))
    return train, valid


def begin(run: Run, job: Job, *, introduced: bool = True) -> Training:
    """Make the model of a run, or bring it back to where its last saved state is.

    `introduced` writes down, once, what `finish` will compare with: the untuned base's scores and a forecast.
    A trial that may never be finished goes without.
    """
    with job.ranks.first_ahead():  # the others find what it tokenized and computed in the cache
        train, valid, made, steps = _prepared(run, job, introduced=introduced)
    if job.ranks.sharded:
        shard(made.model, job.ranks)
    job.ranks.check_equal([p for p in made.model.parameters() if p.requires_grad], "at the start")
    optimizer = optim.optimizer(made.model, job.spec.train, made.lr) if steps else None
    counters = keep.restore(run, made.model, optimizer, made.techniques) if optimizer else None
    scaled = counters.pop("scale", {}) if counters else {}
    scale = LossScale(**scaled) if job.machine.precision == "fp16" else None
    watch = Watch(**(counters or {}))
    if counters:
        job.tell(News("note", f"going on after step {watch.step} of {steps}"))
    job.ranks.wait()  # nobody writes before all have read
    run.forget_after(watch.step)
    names = job.data.names
    card = {
        **card_of(job.spec, job.task, job.machine, names, made),
        "reference": reference_of(job.task, train, names),
        "reading": told(job.spec.data),
    }
    return Training(run, job, train, valid, made, optimizer, card, steps, watch, scale)


def _prepared(run: Run, job: Job, *, introduced: bool) -> tuple[Part, Part, Ready, int]:
    """Both parts, the model as it begins, and the steps of the run; lineage and introduction are written."""
    spec, data, base = job.spec, job.data, job.base
    train, valid = job.parts or parts_of(job)
    steps = n_steps(spec, len(train)) if job.task.learns else 0
    used = None if job.task.feed or job.task.speaks else np.unique(train.tokens.ids)
    sharded = job.ranks.sharded
    if spec.parent:
        parent.before_method(spec, base, whole=job.task.whole)
    made = ready(spec, job.task, data.names, base, job.machine, used, steps=steps, sharded=sharded)
    if spec.parent:
        parent.after_method(spec, made, job.task, data.names)
    begin_techniques(made, spec, job.task, data.names, job.machine, train, job.tell)
    passes = n_passes(spec, len(train)) if steps else 0.0
    (train, valid), cost = _with_kept(job, made, train, valid, passes)
    if not run.read("lineage.json"):
        run.write("lineage.json", lineage(run.spec, job.machine, data, made))
    if introduced and job.ranks.first and not run.read("start.json"):
        introduce(run, job, made, train, valid, steps, cost)
    return train, valid, made, steps


def _with_kept(
    job: Job, made: Ready, train: Part, valid: Part, passes: float
) -> tuple[tuple[Part, Part], dict[str, float]]:
    """Both parts with what the frozen layers make of their rows, where that is kept, and what it cost."""
    parts = (train.tokens, valid.tokens)
    settings = job.spec.train
    tokens, cost = with_kept(settings, made.model, made.techniques, parts, passes=passes, tell=job.tell)
    return (replace(train, tokens=tokens[0]), replace(valid, tokens=tokens[1])), cost


def advance(it: Training, *, until: int | None = None) -> None:
    """Train up to step `until` (the last, when not given), validate there and save the state.

    Rates and batches are those of the whole run, wherever it is stopped on the way.
    """
    last = it.steps if until is None else min(until, it.steps)
    if not it.steps:
        _validate(it)
    if it.over or it.watch.step >= last:
        return
    words = "pieces of text" if it.job.task.feed else "images" if it.job.task.sees else "rows"
    it.job.tell(News("stage", f"training {last:,} steps on {len(it.train):,} {words}"))
    with between_steps() as check, following(it.run, it.watch.step) as track:
        _steps(it, last, check, track)
    it.keep()


def finish(it: Training, *, into: Run | None = None) -> None:
    """Let techniques finish, score the best bundle on the test rows, and write the report.

    `into`: another run, begun `introduced`, whose best bundle came of this training.
    """
    run, job, watch = into or it.run, it.job, it.watch
    if not job.ranks.first:
        return
    for technique in it.made.techniques:
        if technique.finish:
            technique.finish(it.made.model, run)
    seconds = max(watch.seconds, 1e-9)
    cost = {
        "steps": watch.step,
        "seconds": watch.seconds,
        "tokens": watch.tokens,
        "tokens_per_s": watch.tokens / seconds,
        "rows_per_s": sum(line["n_rows"] for line in it.run.lines("log.jsonl")) / seconds,
        "peak_mib": max(watch.peak_mib, peak_mib(job.machine.device)),
        "stopped": watch.stopped,
    }
    best = {"step": watch.best_step, "score": -watch.best if job.task.lower else watch.best}
    card = it.run.read("best/card.json")
    if card.get("step", watch.best_step) != watch.best_step:  # a resume stopped before it came there again
        best = {"step": card["step"], "score": card["scores"]["valid"][job.task.best]}
        job.tell(News("note", f"the best bundle is of step {card['step']}, where a killed process had come"))
    if job.end:
        job.end(run, job, cost, best)
    else:
        conclude(run, job.spec, job.task, job.machine, job.data, cost, best, job.tell)


def _steps(it: Training, last: int, check: Callable[[], None], track: Callable[[], None]) -> None:
    """Every step up to `last` and what follows it: log, validation, saving, stopping."""
    spec, watch, tell = it.job.spec, it.watch, it.job.tell
    assert it.optimizer is not None
    loop = train_steps(
        it.made.model,
        stream(spec, it.job.task, it.train, start=watch.step),
        it.job.task.loss,
        it.optimizer,
        optim.schedule(spec.train, it.steps),
        steps=last,
        start=watch.step,
        clip=spec.train.clip,
        seed=spec.seed,
        techniques=it.made.techniques,
        scale=it.scale,
        ranks=it.job.ranks,
        joint=it.job.task.joint,
    )
    began, saved_at = time.perf_counter() - watch.seconds, time.perf_counter()
    whole = False  # the state is that of watch.step, with all that follows the step done
    try:
        for step in loop:
            now = time.perf_counter()
            # All processes go by the first one's clock, and stop where any of them is asked to.
            said = it.job.ranks.gather((now - began, now - saved_at, _asked(check)))
            note(it, step, said[0][0])
            if due(it, last):
                judge(it)
            track()
            whole = True
            if watch.stopped or said[0][1] >= spec.train.save_s:
                it.keep()
                saved_at = time.perf_counter()
            if watch.stopped:
                tell(News("note", watch.stopped))
                break
            late = it.job.ranks is ALONE and _asked(check)  # asked while the step was told and validated
            if late or any(asked for _, _, asked in said):
                raise KeyboardInterrupt
            whole = False
    except KeyboardInterrupt:
        if whole:  # else weights may be half updated, and what lies in last/ is what to go on from
            it.keep()
        on = f"`penjing tune --resume {typed(it.run.folder)}` goes on"
        tell(News("note", f"stopped at step {watch.step}; {on}"))
        raise


def _asked(check: Callable[[], None]) -> bool:
    try:
        check()
    except KeyboardInterrupt:
        return True
    return False


def note(it: Training, step: Step, seconds: float) -> None:
    """Count and log a step that has been made; `seconds` is the run's training time so far."""
    it.watch.step, it.watch.tokens = step.step, it.watch.tokens + step.n_tokens
    it.watch.seconds = seconds
    it.run.append("log.jsonl", vars(step))
    for text in step.notes:
        it.job.tell(News("note", text))
    it.job.tell(News("progress", f"loss {step.loss:.3f}", step.step, it.steps))


def due(it: Training, last: int) -> bool:
    """Whether the step just made is one to validate after."""
    settings, step = it.job.spec.train, it.watch.step
    every = math.ceil(it.steps / settings.evals) if settings.evals else it.steps
    return step % every == 0 or step == last or _late(it)


def judge(it: Training) -> None:
    """Validate, and decide whether to stop."""
    with _weights_to_save(it.made):
        _validate(it)
    it.watch.stopped = _why_stop(it, late=_late(it))


def _late(it: Training) -> bool:
    minutes = it.job.spec.train.minutes
    return minutes is not None and it.watch.seconds > 60 * minutes


def _why_stop(it: Training, *, late: bool) -> str:
    """Why to stop after this validation, before the last step; empty to go on."""
    settings, watch = it.job.spec.train, it.watch
    if watch.step >= it.steps:
        return ""
    if settings.patience and watch.stale >= settings.patience:
        return f"no better score in {watch.stale} validations; stopped at step {watch.step}"
    return f"the time limit of {settings.minutes:g} minutes was reached at step {watch.step}" if late else ""


def _weights_to_save(made: Ready) -> AbstractContextManager[None]:
    """Inside, the model has the weights that a technique wants validated and saved; its own, where none
    does.
    """
    shown = next((t.weights for t in made.techniques if t.weights), None)
    return shown(made.model) if shown else nullcontext()


def _validate(it: Training) -> None:
    """Score the validation rows; keep the bundle when it is the best so far."""
    job, watch = it.job, it.watch
    spec, task, model, ranks = job.spec, job.task, it.made.model, job.ranks
    ranks.check_equal([p for p in model.parameters() if p.requires_grad], f"at step {watch.step}")
    if task.fit:
        each = partial(over, model, tokens=spec.train.micro_tokens, ranks=ranks)
        task.fit(model, each, it.train.tokens, it.train.targets)
    found = predictions(task, model, it.valid, tokens=spec.train.micro_tokens, ranks=ranks)
    chosen = task.tune(found, it.valid.targets)
    scores = task.score(found, it.valid.targets, job.data.names, chosen, spec.seed)
    if job.probe:
        scores = replace(scores, values={**scores.values, **job.probe(model)})
    value = scores.values[task.best]
    sign = -1 if task.lower else 1
    if sign * value > watch.best or not watch.best_step or math.isnan(watch.best):
        full = {**it.card, "chosen": chosen, "scores": {"valid": scores.values}, "step": watch.step}
        with put_together(model, ranks):
            if ranks.first:
                saves = it.made.method.saves
                save_bundle(it.run.folder / "best", model=model, base=job.base, saves=saves, card=full)
        watch.best, watch.best_step, watch.stale = sign * value, watch.step, 0
    else:
        watch.stale += 1
    about = {"step": watch.step, "split": "valid", "best": task.best, "lower": task.lower}
    it.run.append("scores.jsonl", {**about, **plain(scores)})
    job.tell(News("score", f"{task.best} {value:.4f} on validation rows after step {watch.step}"))
