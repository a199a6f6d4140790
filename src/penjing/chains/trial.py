"""One trial of a search: a run (one a fold) carried to a rung, over rows, tokens and bases that all share."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penjing import run as runs
from penjing.data import split as splitting
from penjing.device import Machine, choose
from penjing.engine.scoring import over
from penjing.errors import NotSupported, PenjingError
from penjing.files import CannotWrite
from penjing.jobs.beside import with_teachers
from penjing.jobs.expected import forecast_of
from penjing.jobs.job import Job
from penjing.jobs.news import Tell, silent
from penjing.jobs.prepare import (
    Data,
    Part,
    bound,
    load_base,
    n_steps,
    part_of,
    ready,
    rows_of,
    task_of,
)
from penjing.jobs.rehearse import rehearse
from penjing.jobs.sampled import asked_of
from penjing.jobs.training import Training, advance, begin, parts_of
from penjing.models.load import Base, copy_of
from penjing.models.sizing import Forecast, count
from penjing.run import Run
from penjing.spec import Spec
from penjing.task import Task

ALONE = 8  # validation rows answered one at a time, for the latency


@dataclass(frozen=True)
class Leg:
    """A part of a trial: carry it to `share` of its steps. `folder` holds the runs of all trials."""

    trial: int
    rung: int
    share: float
    spec: Spec
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What came of a leg: the best validation score so far (mean over folds) and what it cost in all."""

    trial: int
    rung: int
    score: float | None = None  # None: it failed
    spread: float | None = None  # standard deviation over folds
    step: int = 0
    steps: int = 0
    seconds: float = 0.0  # of training, all folds, since the trial's beginning
    trainable: int = 0
    mib: float = 0.0  # forecast of a step's memory
    latency_ms: float = 0.0  # a row alone
    failed: str = ""


@dataclass
class Pool:
    """What trials share, read and loaded once: rows, and of each base its tokens and untouched weights."""

    spec: Spec
    task: Task
    machine: Machine
    data: Data
    folds: list[tuple[np.ndarray, np.ndarray]]
    tell: Tell = silent
    bases: dict[tuple[Any, ...], Base] = field(default_factory=dict)
    parts: dict[tuple[tuple[Any, ...], int | None], list[tuple[Part, Part]]] = field(default_factory=dict)

    refused: set[tuple[Any, ...]] = field(default_factory=set)  # what turned out not to share a bank

    @property
    def numbers(self) -> range:
        """Of the folds; there is one where there are none."""
        return range(max(1, len(self.folds)))

    def job(self, spec: Spec, fold: int = 0, *, whole: bool = False) -> Job:
        """A trial's job on one fold; `whole` takes train and validation rows as `data` has them."""
        if spec.origin not in self.bases:
            self.bases[spec.origin] = load_base(spec, self.machine, self.tell)
        own = copy_of(self.bases[spec.origin])
        task = bound(self.task, own, self.data)  # a head that says words is its base's own
        job = Job(spec, task, self.machine, self.data, own, silent)
        if whole and self.folds:
            return job
        key = (spec.origin, spec.data.max_length)
        if key not in self.parts:
            self.parts[key] = self._folded(job) if self.folds else [parts_of(replace(job, tell=self.tell))]
        train, valid = self.parts[key][fold]
        return replace(job, data=replace(self.data, train=train.rows, valid=valid.rows), parts=(train, valid))

    def _folded(self, job: Job) -> list[tuple[Part, Part]]:
        names, rows = self.data.names, self.data.train
        part = part_of(job.spec, job.task, rows, names, job.base, tell=self.tell)
        if part.owners is not None or part.members:  # windows of rows, and several tasks, are laid out anew
            laid = partial(part_of, job.spec, job.task, names=names, base=job.base)
            return [
                (laid(rows=rows.take(kept), weigh=True), laid(rows=rows.take(held)))
                for kept, held in self.folds
            ]
        found = []
        for kept, held in self.folds:
            weights = job.task.weigh(part.targets[kept], names)
            found.append((_taken(part, kept, weights), _taken(part, held, None)))
        return found


def pool(spec: Spec, n_folds: int | None, tell: Tell = silent) -> Pool:
    """Read the rows and cut the train rows into folds. Bases are loaded when the first trial wants them.

    The validation rows take no part in the folds: they decide later about what is made of fold models.
    """
    task = task_of(spec)
    if task.feed:
        raise NotSupported(
            f"A search compares scores on labelled rows; `task: {task.name}` learns from text alone. Compare "
            "pretrainings by their `bits_per_byte` or `loss` (`penjing pretrain`), or search over what is "
            "tuned from them."
        )
    data = rows_of(spec, task, tell)
    folds: list[tuple[np.ndarray, np.ndarray]] = []
    if n_folds:
        groups = task.groups(data.train)
        folds = splitting.folds(data.train, n_folds=n_folds, seed=spec.seed, groups=groups)
    return Pool(spec, task, choose(spec.device, spec.precision), data, folds, tell)


def _taken(part: Part, index: np.ndarray, weights: np.ndarray | None) -> Part:
    return replace(part.take(index), weights=weights)


def carry(leg: Leg, shared: Pool) -> Outcome:
    """Carry a trial to its rung, from wherever its last saved state is.

    An error of the trial's own, such as targets that match nothing, is its outcome.

    Raises:
        CannotWrite: no other trial could be written either.
    """
    its = open_leg(leg, shared)
    return its if isinstance(its, Outcome) else carry_on(leg, its)


def open_leg(leg: Leg, shared: Pool) -> list[Training] | Outcome:
    """A leg's runs, one a fold, where their last saved states are; its outcome where they cannot begin."""
    try:
        folds = [fold if shared.folds else None for fold in shared.numbers]
        places = [folder_of(leg.folder, leg.trial, fold) for fold in folds]
        jobs = [shared.job(leg.spec, fold) for fold in shared.numbers]
        return [begun(place, job) for place, job in zip(places, jobs, strict=True)]
    except CannotWrite:
        raise
    except PenjingError as error:
        return Outcome(leg.trial, leg.rung, failed=str(error))


def carry_on(leg: Leg, its: list[Training]) -> Outcome:
    """Carry a leg's runs to its rung, one after another."""
    try:
        for it in its:
            with it.run.held():
                advance(it, until=until(it, leg.share))
        return outcome_of(leg, its)
    except CannotWrite:
        raise
    except PenjingError as error:
        return Outcome(leg.trial, leg.rung, failed=str(error))


def outcome_of(leg: Leg, found: list[Training]) -> Outcome:
    """What came of a leg whose runs, one a fold, have been carried."""
    scores = [it.watch.best for it in found]
    last = found[-1]
    return Outcome(
        leg.trial,
        leg.rung,
        score=statistics.fmean(scores),
        spread=statistics.stdev(scores) if len(scores) > 1 else None,
        step=last.watch.step,
        steps=last.steps,
        seconds=sum(it.watch.seconds for it in found),
        trainable=count(last.made.model)[1],
        mib=_forecast(last).mib,
        latency_ms=_latency_ms(last),
    )


def folder_of(trials: Path, trial: int, fold: int | None = None) -> Path:
    """Where a trial's run (of one fold) stands."""
    return trials / (f"{trial:03d}" if fold is None else f"{trial:03d}-fold{fold + 1}")


def carried(folder: Path, job: Job, share: float = 1.0) -> Training:
    """A run begun in this folder, or gone on with, up to a share of its steps."""
    it = begun(folder, job)
    with it.run.held():
        advance(it, until=until(it, share))
    return it


def until(it: Training, share: float) -> int:
    """The step at which this share of a run is done."""
    return max(1, round(share * it.steps))


def begun(folder: Path, job: Job) -> Training:
    """A run in this folder, new or where its last saved state is."""
    if (folder / "spec.yaml").is_file():
        run = Run(folder)
    else:
        run = runs.new(job.spec.model_copy(update={"out": str(folder.parent), "name": folder.name}))
    with run.held():
        return begin(run, job, introduced=False)


def _forecast(it: Training) -> Forecast:
    job, made, tokens, n_rows = it.job, it.made, it.train.tokens, len(it.job.data.train)
    alone = forecast_of(job.spec, job.machine, made, tokens, n_rows, asked=asked_of(it.train))
    return with_teachers(alone, job.spec, job.machine, made, tokens, n_rows)


def forecast_s(spec: Spec, shared: Pool) -> float:
    """Seconds that a whole trial should take, by a rehearsal of its first step on every fold's rows."""
    job = shared.job(spec)
    train, _ = job.parts or parts_of(job)
    n_rows, used = len(job.data.train), np.unique(train.tokens.ids)
    steps = n_steps(spec, n_rows)
    made = ready(spec, job.task, job.data.names, job.base, job.machine, used, steps=steps)
    formula = forecast_of(spec, job.machine, made, train.tokens, n_rows)
    settings = spec.train
    expected = rehearse(
        made, job.task, train, batch=settings.batch, micro_tokens=settings.micro_tokens, expected=formula
    )
    whole = with_teachers(expected, spec, job.machine, made, train.tokens, n_rows)
    return whole.seconds * max(1, len(shared.folds))


def _latency_ms(it: Training) -> float:
    """Median milliseconds of a validation sequence answered alone; of its states, where the task answers in
    its own way, to which a head adds little."""
    tokens, model = it.valid.tokens, it.made.model
    answer = model.states if it.job.task.infer else model
    taken = []
    for row in range(min(ALONE, len(tokens))):
        one = tokens.take(np.array([row]))
        began = time.perf_counter()
        over(model, one, lambda batch: answer(batch)[:1])
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)
