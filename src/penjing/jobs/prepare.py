"""From a spec to all that a job needs: rows, names, targets, tokens, base, model. Each can be had alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from penjing import plugin
from penjing.data import batches, parts
from penjing.data import split as splitting
from penjing.data.read import read
from penjing.device import Machine
from penjing.engine.loop import seed_of
from penjing.engine.optim import DECAY_ALONE, own_rate, quicken
from penjing.errors import DataError, SpecError
from penjing.jobs.bases import applied, base_of, length_of_images, refuse_lost
from penjing.jobs.news import News, Tell, silent
from penjing.keys import TrainSpec
from penjing.models.checkpoint import beyond_pooling
from penjing.models.dropout import set_dropout
from penjing.models.embedding import train_rows_in_use
from penjing.models.load import Base
from penjing.models.model import Model
from penjing.models.precision import recompute
from penjing.models.word_head import words_of
from penjing.records import NO_ROWS, Batch, Method, Part, Rows, Technique
from penjing.spec import Spec
from penjing.task import Task

READING = ("text", "label", "encoding", "delimiter", "drop_empty")  # keys of `data` on how rows are read
LONGEST = 512  # tokens a row when `data.max_length` is not given


@dataclass(frozen=True)
class Data:
    """Rows of a job by split, and the names of their labels."""

    train: Rows
    valid: Rows
    test: Rows | None
    names: list[str]
    sources: dict[str, Any]
    notes: tuple[str, ...]


NO_DATA = Data(NO_ROWS, NO_ROWS, None, [], {}, ())  # of an objective, which binds to its base alone


@dataclass(frozen=True)
class Ready:
    """A job's model and how it trains."""

    base: Base
    method: Method
    model: Model
    techniques: tuple[Technique, ...]
    lr: float


def task_of(spec: Spec) -> Task:
    """The spec's task, built."""
    task: Task = plugin.build("tasks", spec.task)
    return task


def techniques_of(spec: Spec) -> tuple[Technique, ...]:
    """The spec's techniques, built.

    Raises:
        SpecError: a technique is named twice, or two of them want what only one can have.
    """
    built: tuple[Technique, ...] = tuple(plugin.build("techniques", t) for t in spec.techniques)
    names = [t.name for t in built]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"`techniques` names `{twice[0]}` twice. Keep one.")
    for place, does in (("backward", "how gradients are made"), ("weights", "which weights are saved")):
        makers = [t.name for t in built if getattr(t, place)]
        if len(makers) > 1:
            raise SpecError(
                f"`{makers[0]}` and `{makers[1]}` both decide {does}; a run can have one such technique. "
                f"Drop one."
            )
    return built


def bound(task: Task, base: Base, data: Data) -> Task:
    """The task on this base, these labels and these train rows; itself where it is the same on all."""
    parts.refuse_unseen(task, base)
    own = task.measure(data.train, data.names) if task.measure and len(data.train) else task
    if not own.bind:
        return own
    fit = own.bind(base, data.names, weights=True)
    notes = tuple(dict.fromkeys((*own.notes, *fit.notes)))
    return replace(fit, settled={**own.settled, **fit.settled}, notes=notes)


def rows_of(spec: Spec, task: Task, tell: Tell = silent) -> Data:
    """Read and split the rows; labels of validation and test rows are checked against train's.

    Raises:
        DataError: anything wrong with files, columns, rows or labels.
        SpecError: no train rows were named.
    """
    data = spec.data
    if not data.train and task.learns:
        raise SpecError(
            "`data.train` must name the rows to learn from; it is empty. Say `--train tickets.csv`."
        )
    tell(News("stage", "reading rows"))

    def get(source: Any, like: Rows = NO_ROWS) -> Rows:
        said = {key: getattr(data, key) for key in READING}
        return rows_from(task, source, **said | dict(like.guessed))

    train = get(data.train) if data.train else NO_ROWS
    test = get(data.test, train) if data.test else None
    notes = list(train.notes)
    names = task.label_names(train if data.train or test is None else test)
    valid = get(data.valid, train) if data.valid else None
    notes += () if valid is None else valid.notes
    if task.draw:
        train, valid, said = task.draw(train, valid, names, data.valid_share, spec.seed)
        notes += said
    elif valid is None:
        groups = task.groups(train)
        kept, held = splitting.split(train, share=data.valid_share, seed=spec.seed, groups=groups)
        train, valid = train.take(kept), train.take(held)
        notes.append(
            f"{len(valid):,} of {len(kept) + len(held):,} train rows {'is' if len(valid) == 1 else 'are'} "
            f"held out for validation (`data.valid_share`)"
        )
    for name, rows in (("valid", valid), ("test", test)):
        if rows is not None and not len(rows):
            raise DataError(f"`data.{name}` holds no rows. Give rows with labels, or leave the key out.")
        if rows is not None:
            task.encode(rows, names)
    task.weigh(task.encode(train, names), names)
    notes += () if test is None else test.notes
    sources = {
        name: {"source": source, "rows": len(rows), "sha256": digest(rows)}
        for name, source, rows in (
            ("train", data.train, train),
            ("valid", data.valid, valid),
            ("test", data.test, test),
        )
        if rows is not None
    }
    return Data(train, valid, test, names, sources, tuple(dict.fromkeys(notes)))


def rows_from(task: Task, source: Any, *, labelled: bool = True, **reading: Any) -> Rows:
    """The rows of a source as the task reads them; `reading` holds keys of a spec's section `data`."""
    if task.rows:
        return task.rows(source, labelled=labelled, **reading)
    return read(source, labelled=labelled, multi_label=task.multi_label, **reading)


def digest(rows: Rows) -> str:
    """SHA-256 over texts and labels, so that other rows are never taken for the same."""
    state = hashlib.sha256()
    for text, labels in zip(rows.texts, rows.labels, strict=True):
        state.update(text.encode("utf-8", "surrogatepass") + b"\x1f" + "\x1e".join(labels).encode() + b"\n")
    for item in rows.items or ():
        state.update(repr(item).encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def max_length(spec: Spec, base: Base) -> int:
    """Tokens a row: `data.max_length`, checked against the base's limit, less what the method takes of it.

    Raises:
        SpecError: the base cannot take rows that long, or the method leaves no room for them.
    """
    wanted = spec.data.max_length
    method: Method = plugin.build("methods", spec.method)
    if base.way.sight:
        return length_of_images(base, wanted)
    room, taken = base.limit - method.virtual, ""
    if method.virtual:
        taken = f", of which `method: {method.name}` takes {method.virtual}"
    if room < 2:
        raise SpecError(
            f"Rows of a few tokens need room; the base `{base.name}` takes at most {base.limit} "
            f"tokens{taken}. Set `method.tokens` to {max(1, base.limit // 4)} or less."
        )
    if wanted is not None and wanted > room:
        raise SpecError(
            f"`data.max_length` is {wanted}; the base `{base.name}` takes at most {base.limit} "
            f"tokens{taken}. Set it to {room} or less; longer rows are cut and counted."
        )
    return wanted or min(room, LONGEST)


def part_of(
    spec: Spec,
    task: Task,
    rows: Rows,
    names: list[str],
    base: Base,
    *,
    weigh: bool = False,
    tell: Tell = silent,
) -> Part:
    """Tokens and targets of one split."""

    def progress(done: int, total: int) -> None:
        tell(News("progress", "tokenizing", done, total))

    return parts.part_of(
        task,
        base,
        rows,
        names,
        max_length(spec, base),
        weigh=weigh,
        cache=spec.data.cache,
        progress=progress,
        tell=lambda sentence: tell(News("note", sentence)),
    )


def card_of(spec: Spec, task: Task, machine: Machine, names: list[str], made: Ready) -> dict[str, Any]:
    """What a bundle's card says from the beginning of a run."""
    asked = plugin.Choice(spec.task.name, {**spec.task.settings, **task.settled})
    return {
        "task": asked.written(),
        "method": spec.method.written() if task.learns else made.method.name,
        "labels": names,
        "max_length": max_length(spec, made.base),
        "precision": machine.precision,
        "dense": getattr(made.model.head, "dense", None) is not None,
    }


def stream(
    spec: Spec,
    task: Task,
    part: Part,
    *,
    start: int = 0,
    batch: int | None = None,
    micro_tokens: int | None = None,
) -> Iterator[list[Batch]]:
    """The micro-batches of step `start`, `start + 1`, … as spec and task want them, or in other sizes."""
    settings, lengths = spec.train, batches.lengths_of(part)
    size, most, order = batch or settings.batch, micro_tokens or settings.micro_tokens, task.order
    deal = (lambda epoch: order(part, size, spec.seed, epoch)) if order else None
    if task.joint:
        most = 10**12  # one pass: the loss compares rows of a step
    dealt = batches.steps(
        lengths, batch=size, seed=spec.seed, group=settings.group_by_length, start=start, deal=deal
    )
    for number, rows in enumerate(dealt, start):
        if task.vary is None:
            pieces = batches.cut(rows, lengths, tokens=most)
            yield [batches.packed(part, piece) for piece in pieces]
            continue
        shown = task.vary(part, rows, seed_of(spec.seed, number))
        pieces = batches.cut(np.arange(len(shown)), batches.lengths_of(shown), tokens=most)
        yield [_renamed(batches.packed(shown, piece), rows) for piece in pieces]


def _renamed(batch: Batch, rows: np.ndarray) -> Batch:
    """A batch of a step's own part, its sequences called by their places in the whole."""
    return replace(batch, rows=tuple(int(rows[r]) for r in batch.rows))


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def load_base(spec: Spec, machine: Machine, tell: Tell = silent) -> Base:
    """The base, on the machine's device."""
    tell(News("stage", f"loading the base {spec.base}"))
    base = base_of(spec, machine.device)
    if not base.way.packed and not base.way.sight:
        said = f"this base runs padded, not packed ({base.way.reason}); results are the same, speed is less"
        tell(News("note", said))
    if beyond := beyond_pooling(base.folder):
        tell(News("note", f"{' and '.join(beyond)} after the base's pooling is left out: vectors are others"))
    return base


# Of a task that learns nothing.
UNTRAINED = Method("none", lambda trunk: trunk.requires_grad_(False), lr=0.0, saves="changed")


def ready(
    spec: Spec,
    task: Task,
    names: list[str],
    base: Base,
    machine: Machine,
    used: np.ndarray | None,
    *,
    steps: int | None = None,
    sharded: bool = False,
) -> Ready:
    """Make the base trainable and put the task's head on it.

    used: token ids of the train rows. steps: of the whole run, for methods that plan by them. sharded:
    weights will lie in shares over several processes.
    """
    method: Method = plugin.build("methods", spec.method) if task.learns else UNTRAINED
    refuse_lost(base, method)
    techniques = techniques_of(spec)
    torch.manual_seed(spec.seed)
    if spec.train.dropout is not None:
        set_dropout(base.trunk, spec.train.dropout)
    trunk = applied(method, base)
    if method.techniques:
        assert steps is not None, f"`{method.name}` plans by the run's steps"
        techniques = (*method.techniques(trunk, steps), *techniques)
    for technique in techniques:
        if technique.plan:
            assert steps is not None, f"`{technique.name}` plans by the run's steps"
            technique.plan(steps)
    plain = spec.train.optimizer in DECAY_ALONE and not any(t.stream for t in techniques)
    plain = plain and spec.train.strategy != "fsdp"  # however many processes: others may resume it
    head = task.head(base.width, names, base.pooling, base.pooler).to(next(trunk.parameters()).device)
    if used is not None and plain and method.saves == "full" and not (base.way.sight or words_of(head)):
        train_rows_in_use(trunk, used)
    model = Model(trunk, head, base.way).prepare(machine.precision, sharded=sharded)
    if task.vary and model.frozen:
        model.frozen = replace(model.frozen, reason=f"`{task.name}` reads rows otherwise at each step")
    if spec.train.checkpointing and not recompute(trunk):
        raise SpecError(
            f"`train.checkpointing` is on; {type(base.trunk).__name__} offers no layer to recompute. Leave "
            f"it off and lower `train.micro_tokens` to save memory."
        )
    lr = own_rate(spec.train, method, base.width)
    if not spec.parent:
        quicken(head, trunk, spec.train, lr)
    return Ready(base, method, model, techniques, lr)


def n_steps(spec: Spec, n_rows: int) -> int:
    """Optimizer steps of the run: the one clock."""
    return steps_of(spec.train, n_rows)


def steps_of(settings: TrainSpec, n_rows: int) -> int:
    """Optimizer steps over so many rows.

    Without `steps` or `epochs`: 5 passes, or as many as make 400 steps, at most 20.
    """
    if settings.steps is not None:
        return settings.steps
    a_pass = math.ceil(n_rows / settings.batch)
    passes = settings.epochs if settings.epochs is not None else min(20, max(5, math.ceil(400 / a_pass)))
    return max(1, round(passes * a_pass))


def n_passes(spec: Spec, n_rows: int) -> float:
    """How often the run goes over its train rows."""
    return n_steps(spec, n_rows) / math.ceil(n_rows / spec.train.batch)
