"""Tune: spec -> rows -> base -> method -> task -> loop -> best bundle, scores, report.

Begin a run, or go on with one; what happens on the way is in `training.py`.
"""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing import run as runs
from penjing import spec as specs
from penjing.engine.ranks import Ranks
from penjing.errors import NotSupported, PenjingError
from penjing.files import CannotWrite, write_text
from penjing.jobs.feeding import opened_corpus
from penjing.jobs.job import Job
from penjing.jobs.launch import launch
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.prepare import task_of
from penjing.jobs.report import PAGE, report
from penjing.jobs.several import machine_of, refuse_alone, together, wants_launch
from penjing.jobs.training import advance, begin, finish, opened
from penjing.models.load import Base
from penjing.places import typed
from penjing.run import Run
from penjing.spec import Spec

# Keys that may change while a run is stopped: none of them changes what is learned.
FREE = (
    "out", "name", "language", "train.micro_tokens", "train.minutes", "train.save_s", "data.cache",
    "train.trunk_cache", "train.cache_gib", "train.processes", "trackers",
)  # fmt: skip


def tune(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    tell: Tell = silent,
    **keywords: Any,
) -> Run:
    """Tune a base on rows and return the finished Run.

    `source` is a spec file, a mapping or a Spec; keywords are as in `spec.read`, such as
    `tune(base="minilm", train="tickets.csv")`.

    Raises:
        SpecError, DataError: what was asked for or the rows are not usable.
        NotSupported, WontFit, CannotWrite, TrainingFailed: the machine, the base, the disk or the training.
    """
    spec = specs.read(source, sets=sets, **keywords)
    runs.refuse_named(spec)  # before anything is read
    if wants_launch(spec.train.processes):
        return _launched(runs.new(spec), spec.train.processes, tell)
    with together(spec, spec.train.processes) as ranks:
        job = _opened(spec, tell, ranks)
        made = ranks.gather(runs.new(spec).folder if ranks.first else None)
        run = Run(made[0], mute=not ranks.first)
        with run.held():
            return _carry(run, job)


def member(folder: str | Path, *, tell: Tell = silent) -> None:
    """Carry a run as one of the processes that were launched for it, however many the spec asks for."""
    _go_on(runs.open_run(folder), 1, tell)


def _launched(run: Run, processes: int, tell: Tell) -> Run:
    """Let processes of their own carry a run; a folder in which nothing was begun is taken away again."""
    try:
        launch(run.folder, processes, tell)
    except PenjingError:
        if not run.read("lineage.json"):
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return Run(run.folder)


def resume(
    folder: str | Path | None = None,
    *,
    out: str = "runs",
    processes: int | None = None,
    tell: Tell = silent,
) -> Run:
    """Go on with a run that was stopped, killed or died, exactly where its last saved state is; of a run that
    lacks its report only, that is written.

    Without `folder`, the newest such run below `out` that no process holds. `processes`: another number than
    it began with.

    Raises:
        NotSupported: there is no such run, it is done, going on or a search's, or its spec, rows or base have
            changed.
    """
    run = runs.open_run(folder) if folder is not None else runs.newest(out, states=("open", "died"))
    if run.verb != "tune":
        raise NotSupported(
            f"A run of `tune` was to be resumed; {run.folder} is a search's. Go on with it by `penjing "
            f"{run.verb} --resume {typed(run.folder)}`."
        )
    wanted = 1 if _unreported(run) else processes or run.spec.train.processes
    if wants_launch(wanted):
        _refuse_done(run)
        return _launched(run, wanted, tell)
    return _go_on(run, wanted, tell)


def _go_on(run: Run, processes: int, tell: Tell) -> Run:
    with together(run.spec, processes) as ranks:
        run = replace(run, mute=not ranks.first)
        with run.held():
            if _unreported(run):
                return _reported(run)
            _refuse_done(run)
            before = run.read("lineage.json")
            if before:
                _same_spec(run, before)
            job = _opened(run.spec, tell, ranks)
            if before:
                same_rows(run, job.data.sources)
                same_base(run, job.base)
            return _carry(run, job)


def _unreported(run: Run) -> bool:
    """Whether all is done but the page: the disk was full, or a kill fell before it."""
    return run.state == "done" and not (run.folder / PAGE).is_file()


def _reported(run: Run) -> Run:
    if not run.mute:
        (run.folder / "error.txt").unlink(missing_ok=True)
        report(run)
    return run


def _refuse_done(run: Run) -> None:
    if run.state == "done":
        raise NotSupported(
            f"The run {run.folder} was to be resumed; it is done. See {run.folder / PAGE}, or "
            f"start a new run: `penjing tune {typed(run.folder / 'spec.yaml')} --name NAME`."
        )


def _opened(spec: Spec, tell: Tell, ranks: Ranks) -> Job:
    """Rows and base of a task, or corpus and base of an objective."""
    task = task_of(spec)
    refuse_alone(spec, task, ranks)
    machine = machine_of(spec, ranks)
    with ranks.first_ahead():  # the others find in the cache what it read
        job = (opened_corpus if task.feed else opened)(spec, tell if ranks.first else silent, machine)
    return replace(job, ranks=ranks)


def _same_spec(run: Run, before: dict[str, Any]) -> None:
    old, new = _flat(before.get("spec", {})), _flat(run.spec.written())
    other = sorted(key for key in old.keys() | new.keys() if key not in FREE and old.get(key) != new.get(key))
    if other and old:
        raise NotSupported(
            f"`{other[0]}` in {run.folder / 'spec.yaml'} is {new.get(other[0])!r}; the run began with "
            f"{old.get(other[0])!r}. What is learned would be neither: put it back to resume, or start a new "
            f"run. Only {', '.join(FREE)} may change."
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def same_base(run: Run, base: Base) -> None:
    """See that this is the base that a run began with, where it has begun.

    Raises:
        NotSupported: it is another.
    """
    before = run.read("lineage.json")
    if before and before["base"]["sha256"] != base.sha256:
        raise NotSupported(
            f"The base `{base.name}` is not the one that {run.folder} began with: its SHA-256 was "
            f"{before['base']['sha256'][:16]}… and is {base.sha256[:16]}…. Put the old one back to "
            f"resume, or start a new run."
        )


def same_rows(run: Run, sources: Mapping[str, Any]) -> None:
    """See that these are the rows that a run began with, where it has begun.

    Raises:
        NotSupported: they are others.
    """
    before = run.read("lineage.json")
    known = before.get("data", {})
    for name, source in sources.items() if before else ():
        if known.get(name, {}).get("sha256") != source["sha256"]:
            raise NotSupported(
                f"The rows of `data.{name}` ({source['source']}) are not those that {run.folder} began with "
                f"(another SHA-256). Put the old rows back to resume, or start a new run."
            )


def _carry(run: Run, job: Job) -> Run:
    """Begin or go on; whatever happens is told in the run's folder."""
    if not run.mute:
        with contextlib.suppress(OSError):
            (run.folder / "error.txt").unlink(missing_ok=True)
    try:
        for note in (*job.machine.notes, *job.data.notes):
            job.tell(News("note", note))
        training = begin(run, job)
        advance(training)
        finish(training)
    except Exception as error:
        if run.mute:
            raise
        text = f"{error}\n" if isinstance(error, PenjingError) else traceback.format_exc()
        with contextlib.suppress(CannotWrite):  # where the disk is full, the error itself says so
            write_text(run.folder / "error.txt", text)
        raise
    return run
