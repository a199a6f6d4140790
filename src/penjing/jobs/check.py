"""Everything that can go wrong, looked at before a weight is loaded; and what a batch really holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from penjing import plugin
from penjing import spec as specs
from penjing.data import clean
from penjing.data.images import image_summary
from penjing.data.pixels import image_tokens
from penjing.data.tokenize import tokenize
from penjing.device import Machine, choose, free_mib
from penjing.engine import trunk
from penjing.errors import NotSupported, PenjingError
from penjing.files import cache_folder
from penjing.jobs.bases import base_of
from penjing.jobs.beside import with_teachers
from penjing.jobs.caching import most_bytes, why_not
from penjing.jobs.expected import forecast_of
from penjing.jobs.feeding import corpus_of, refuse_unused, texts_of
from penjing.jobs.news import Tell, silent
from penjing.jobs.odd import laid_said, unknown_said, warm_up_said
from penjing.jobs.parent import fitting
from penjing.jobs.prepare import (
    NO_DATA,
    Data,
    Ready,
    bound,
    max_length,
    n_passes,
    n_steps,
    part_of,
    ready,
    rows_of,
    span,
    stream,
    task_of,
    techniques_of,
)
from penjing.jobs.sampled import Sample, asked_of, of_corpus
from penjing.models.load import Base
from penjing.models.sizing import MARGIN_MIB
from penjing.plural import counted
from penjing.records import NO_ROWS, Part
from penjing.run import refuse_named
from penjing.spec import Spec
from penjing.task import Task

SAMPLED = 2000  # rows whose tokens are counted for the forecast


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, `note` (worth knowing) or `error` (the job would stop here)."""

    state: str
    about: str
    text: str


def _look(found: list[Finding], about: str, job: Callable[[], Any]) -> Any:
    """Run one examination; its error is a finding, and hides no other."""
    try:
        return job()
    except PenjingError as error:
        found.append(Finding("error", about, str(error)))
    return None


def check(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    tell: Tell = silent,
    **keywords: Any,
) -> list[Finding]:
    """Look at spec, plug-ins, machine, base's files, method on the base's shapes, rows, disk and memory.

    No weight is loaded. Every error is found in one go where it can be: a bad column does not hide a missing
    base.

    Raises:
        SpecError: the spec itself cannot be read.
    """
    spec = specs.read(source, sets=sets, **keywords)
    found: list[Finding] = []
    found.append(Finding("ok", "spec", "every key and setting is known"))
    task: Task | None = _look(found, "task", lambda: task_of(spec))
    _look(found, "method", lambda: plugin.build("methods", spec.method))
    _look(found, "techniques", lambda: techniques_of(spec))
    machine: Machine | None = _look(found, "machine", lambda: choose(spec.device, spec.precision))
    if machine:
        what = f"{machine.device}, {machine.precision}, {counted(machine.threads, 'thread')}"
        found.append(Finding("ok", "machine", what))
        for note in machine.notes:
            found.append(Finding("note", "machine", note))
    base: Base | None = _look(found, "base", lambda: base_of(spec, "meta"))
    if base:
        _look(found, "base", lambda: max_length(spec, base))
        if spec.parent:
            _look(found, "parent", lambda: fitting(spec, base))
        found.append(
            Finding(
                "ok",
                "base",
                f"{_named(base)}: {base.kind}, {base.n_layers} layers, "
                + (f"{_pixels(base)}" if base.way.sight else f"at most {base.limit} tokens"),
            )
        )
    feeds = task is not None and task.feed is not None
    data: Data | None = None
    if task and not feeds:
        data = _look(found, "rows", lambda: rows_of(spec, task, tell))
    if data:
        assert task is not None
        _tell_rows(spec, data, found, images=task.sees)
    if task and base and feeds:
        _look(found, "corpus", lambda: _tell_corpus(spec, task, base, tell, found))
    made: Ready | None = None
    if task and machine and base:
        seen = data or Data(NO_ROWS, NO_ROWS, None, ["a", "b"], {}, ())
        names, steps = seen.names, n_steps(spec, max(1, len(seen.train)))
        asked: Task | None = _look(found, "task", lambda: bound(task, base, seen))
        for note in asked.notes if asked else ():
            found.append(Finding("note", "task", note))
        if asked:
            made = _look(found, "method", lambda: ready(spec, asked, names, base, machine, None, steps=steps))
    _look(found, "name", lambda: refuse_named(spec))
    _tell_place(spec, made, found)
    if made and asked and machine and data and len(data.train):
        _look(found, "cost", lambda: _tell_cost(spec, asked, machine, made, data, found))
    if made and asked and machine and feeds and not any(one.state == "error" for one in found):
        _look(found, "cost", lambda: _tell_cost_of_corpus(spec, asked, machine, made, found))
    return found


def _named(base: Base) -> str:
    if base.grown:
        return base.name if base.way.sight else f"{base.name}, words of {base.folder}"
    return str(base.folder)


def _pixels(base: Base) -> str:
    assert base.way.sight is not None
    (height, width), (tall, wide) = base.way.sight.fit.size, base.way.sight.patch
    return f"images of {height} x {width} pixels in patches of {tall} x {wide}"


def _tell_corpus(spec: Spec, task: Task, base: Base, tell: Tell, found: list[Finding]) -> None:
    refuse_unused(spec, task)
    data, _ = corpus_of(spec, bound(task, base, NO_DATA), texts_of(spec), base, tell)
    for note in data.notes:
        found.append(Finding("ok", "corpus", note))


def _tell_rows(spec: Spec, data: Data, found: list[Finding], *, images: bool) -> None:
    parts = {"train": data.train, "valid": data.valid, **({} if data.test is None else {"test": data.test})}
    sizes = ", ".join(f"{len(rows):,} {name}" for name, rows in parts.items())
    steps = n_steps(spec, len(data.train))
    of_labels = f", {len(data.names):,} labels" if len(data.names) > 1 else ""
    found.append(Finding("ok", "rows", f"{sizes} rows{of_labels}; {counted(steps, 'step')}"))
    if cold := warm_up_said(spec.train, steps):
        found.append(Finding("note", "train", cold))
    for note in data.notes:
        found.append(Finding("note", "rows", note))
    about = clean.summary(parts, near=False)
    if images:
        about = image_summary(about, parts)
    for remark in clean.remarks(about, classes=len(data.names) > 1):
        found.append(Finding("note", "rows", remark))


def _tell_place(spec: Spec, made: Ready | None, found: list[Finding]) -> None:
    """Where the run and what is derived will be written, and whether there is room."""
    place = Path(spec.out)
    standing = next((p for p in (place, *place.absolute().parents) if p.exists()), Path("/"))
    if not standing.is_dir():
        found.append(
            Finding("error", "out", f"{standing} is a file; runs need a folder. Give another with `out:`.")
        )
        return
    if not os.access(standing, os.W_OK | os.X_OK):
        found.append(
            Finding("error", "out", f"{standing} cannot be written to. Give another folder with `out:`.")
        )
        return
    free = shutil.disk_usage(standing).free / 2**20
    need = _mib_on_disk(made) if made else 0.0
    text = f"{place} can be written, {free:,.0f} MiB free; the run takes about {need:,.0f} MiB"
    if need > free:
        found.append(
            Finding(
                "error", "out", f"{text}. Make room, give another folder with `out:`, or take `method: lora`."
            )
        )
    else:
        found.append(Finding("ok", "out", text))
    if cache_folder() is None:
        text = "no cache folder can be written, so tokens are made anew each time. Set PENJING_CACHE."
        found.append(Finding("note", "cache", text))


def _mib_on_disk(made: Ready) -> float:
    """best/ and last/, each twice while it is replaced: last/ holds what trains and two moments of it."""
    parameters = list(made.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    kept = sum(p.numel() for p in parameters) if made.method.saves == "full" else trained
    return 2 * 4 * (kept + 3 * trained) / 2**20


def _tell_cost(
    spec: Spec, task: Task, machine: Machine, made: Ready, data: Data, found: list[Finding]
) -> None:
    rows = data.train.take(np.arange(0, len(data.train), max(1, len(data.train) // SAMPLED)))
    longest, words = max_length(spec, made.base), 0.0
    if made.base.way.sight:
        tokens = image_tokens(len(rows), longest)
    elif task.part:
        part = task.part(made.base, rows, data.names, longest, labelled=True)
        tokens, words = part.tokens, asked_of(part)
        found += [Finding("note", "rows", note) for note in laid_said(part, rows, f"of {len(rows):,} train")]
    else:
        tokens = tokenize(made.base.tokenizer, rows.texts, max_length=longest, cache=False)
    if not made.base.way.sight and (unknown := unknown_said(tokens.ids, made.base)):
        found.append(Finding("note", "base", unknown))
    if tokens.cut:
        text = f"{tokens.cut / len(rows):.1%} of rows are longer than {longest} tokens; their ends are cut"
        found.append(Finding("note", "rows", text))
    _tell_kept(spec, made, data, float(tokens.lengths.mean()), found)
    _tell_forecast(spec, machine, made, Sample(tokens, len(data.train), words), found)


def _tell_cost_of_corpus(spec: Spec, task: Task, machine: Machine, made: Ready, found: list[Finding]) -> None:
    _tell_forecast(spec, machine, made, of_corpus(spec, task, made.base, texts_of(spec)), found)


def _tell_forecast(spec: Spec, machine: Machine, made: Ready, seen: Sample, found: list[Finding]) -> None:
    alone = forecast_of(spec, machine, made, seen.tokens, seen.n_rows, asked=seen.asked)
    expected = with_teachers(alone, spec, machine, made, seen.tokens, seen.n_rows)
    weights = 4 * expected.parameters / 2**20
    need, free = weights + expected.mib * MARGIN_MIB, free_mib(machine.device)
    text = (
        f"{expected.trainable:,} of {expected.parameters:,} parameters train; about {span(expected.seconds)} "
        f"and up to {need:,.0f} MiB of memory beside this process, {free:,.0f} MiB are free"
    )
    advice = "Try `method: lora`, a smaller `train.micro_tokens`, or `train.checkpointing: true`"
    if weights + 12 * expected.trainable / 2**20 > free:  # before a single activation
        found.append(Finding("error", "cost", f"{text}. It does not fit. {advice}."))
    elif need > free:
        found.append(Finding("note", "cost", f"{text}. It may not fit. {advice}."))
    else:
        found.append(Finding("ok", "cost", text))


def _tell_kept(spec: Spec, made: Ready, data: Data, mean_length: float, found: list[Finding]) -> None:
    """How much the trunk cache will hold, where there will be one."""
    if why_not(spec.train, made.model, made.techniques, n_passes(spec, len(data.train))):
        return
    assert made.model.frozen is not None
    n_rows = len(data.train) + len(data.valid)
    need = trunk.size_of(made.model, n_rows, round(n_rows * mean_length))
    text = (
        f"states of {trunk.layers_said(made.model.frozen.depth)} are computed once and kept: about "
        f"{trunk.mib(need)} of {spec.train.cache_gib:g} GiB (`train.cache_gib`)"
    )
    fits = need <= most_bytes(spec.train)
    more = "" if fits else ". They do not fit, so those layers run at every step: raise `train.cache_gib`."
    found.append(Finding("ok" if fits else "note", "cache", text + more))


@dataclass(frozen=True)
class Shown:
    """One row as the model reads it: its tokens, special ones too, what is learned from the whole, and from
    each token where that is asked for (empty where nothing is). `marks`, where the model learns to say words:
    whether it learns to say this token."""

    where: str
    tokens: list[str]
    learned: str
    each: list[str]
    marks: list[bool] = field(default_factory=list)


def show_batch(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    rows: int = 4,
    **keywords: Any,
) -> list[Shown]:
    """The first rows of the first step, as training will see them: all tokens are read, and the row's label
    or those of its tokens are learned.

    Raises:
        NotSupported: the task learns from a corpus. SpecError, DataError: what was asked for is not usable.
    """
    spec = specs.read(source, sets=sets, **keywords)
    task = task_of(spec)
    if task.feed:
        raise NotSupported(
            f"The rows of a batch were to be shown with what is learned of them; `task: {task.name}` learns "
            "from a corpus and has none. Leave `--show-batch` out; the report of a pretraining shows the "
            "model at work on pieces of text."
        )
    data = rows_of(spec, task)
    base = base_of(spec, "meta")
    task = bound(task, base, data)
    part = part_of(spec, task, data.train, data.names, base)
    batches = next(stream(spec, task, part))
    shown = []
    for one in islice((one for batch in batches for one in batch.rows), rows):
        ids = part.tokens.ids[part.tokens.starts[one] : part.tokens.starts[one + 1]]
        tokens = [_pixels(base)] if task.sees else base.tokenizer.convert_ids_to_tokens([int(i) for i in ids])
        marks: list[bool] = []
        if task.speaks and part.tokens.labels is not None:
            labels = part.tokens.labels[part.tokens.starts[one] : part.tokens.starts[one + 1]]
            marks = [False, *(labels[:-1] != -100).tolist()]
            tokens = [_readable(base.tokenizer, int(i), piece) for i, piece in zip(ids, tokens, strict=True)]
        whole, each = (task.learned or _of_row)(part, one, data.names)
        row = one if part.owners is None else int(part.owners[one])
        shown.append(Shown(data.train.where(row), tokens, whole, each, marks))
    return shown


def _readable(tokenizer: Any, token: int, piece: str) -> str:
    """A token as people write it; part of a character stays as the tokenizer has it."""
    text: str = tokenizer.decode([token])
    return piece if not text or "\ufffd" in text else text


def _of_row(part: Part, row: int, names: list[str]) -> tuple[str, list[str]]:
    """A row's target as words: labels by name, numbers as they are."""
    target = part.targets[row]
    if isinstance(target, np.integer) and names:
        return names[int(target)], []
    if names and np.ndim(target) and len(target) == len(names):
        return ", ".join(names[c] for c in np.flatnonzero(target)) or "no label", []
    return ", ".join(f"{float(x):g}" for x in np.ravel(target)), []
