"""Penjing's side of the race: what `penjing tune` puts together, without validating, saving and reporting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.systems import Job
from penjing import spec as specs
from penjing.data import batches
from penjing.device import Machine, choose
from penjing.engine import optim
from penjing.engine.bank import Bank
from penjing.engine.loop import train_steps
from penjing.engine.scoring import outputs
from penjing.jobs.prepare import Data, Part, Ready, load_base, n_steps, part_of, ready, rows_of, task_of
from penjing.jobs.prepare import stream as prepared_stream
from penjing.jobs.trials import trial_of
from penjing.models.load import Base, twin_of
from penjing.models.sizing import count, flops_a_token
from penjing.records import Batch, Step
from penjing.spec import Spec
from penjing.task import Task


@dataclass(frozen=True)
class Ours:
    """Everything of one Penjing training."""

    spec: Spec
    task: Task
    machine: Machine
    data: Data
    base: Base
    made: Ready
    train: Part
    steps: int


def build(job: Job, *, dropout: bool = True) -> Ours:
    """Rows, base and model of a job. Without `dropout` all of it is off."""
    given, split = job.settings, job.split
    steps = job.steps or given.steps(split.n_rows["train"])
    head: dict[str, Any] = {"pooling": given.ours_head}
    if not dropout:
        head["head_dropout"] = 0.0
    lora = {
        "rank": given.rank,
        "alpha": given.alpha,
        "dropout": given.lora_dropout if dropout else 0.0,
        "targets": given.targets,
    }
    spec = specs.read(
        base=given.base,
        task={"classify": head},
        method={job.system.method: lora if job.system.method == "lora" else job.system.options},
        train=split.train,
        valid=split.valid,
        test=split.test,
        text="text",
        label="label",
        max_length=given.max_length,
        batch=given.batch,
        steps=steps,
        lr=given.rate(job.system.method),
        head_lr=given.head_lr or given.rate(job.system.method),
        schedule=given.schedule,
        warmup=given.warm_steps(steps),
        weight_decay=given.weight_decay,
        clip=given.clip,
        group_by_length=job.system.grouped,
        dropout=None if dropout else 0.0,
        seed=given.seed,
        device=given.device,
        precision=job.system.precision,
    )
    task, machine = task_of(spec), choose(spec.device, spec.precision)
    data = rows_of(spec, task)
    found = {"train": len(data.train), "valid": len(data.valid), "test": len(data.test or ())}
    assert found == split.n_rows, f"Penjing reads {found} rows, the CSV files hold {split.n_rows}"
    base = load_base(spec, machine)
    train = part_of(spec, task, data.train, data.names, base, weigh=True)
    steps, used = n_steps(spec, len(data.train)), np.unique(train.tokens.ids)
    own = twin_of(base) if job.system.trials > 1 else base  # the bank's trials are made of the base, too
    made = ready(spec, task, data.names, own, machine, used, steps=steps)
    return Ours(spec, task, machine, data, base, made, train, steps)


def loop(ours: Ours, stream: Iterator[list[Batch]] | None = None) -> Iterator[Step]:
    """The training, step by step; over the run's own batches unless a stream is given."""
    settings = ours.spec.train
    return train_steps(
        ours.made.model,
        prepared_stream(ours.spec, ours.task, ours.train) if stream is None else stream,
        ours.task.loss,
        optim.optimizer(ours.made.model, settings, ours.made.lr),
        optim.schedule(settings, ours.steps),
        steps=ours.steps,
        clip=settings.clip,
        seed=ours.spec.seed,
        techniques=ours.made.techniques,
    )


def bank(ours: Ours, n_trials: int) -> Bank:
    """So many trials of the training, with seeds and rates of their own."""
    values = ours.spec.written()
    trials = []
    for i in range(n_trials):
        settings = {**values["train"], "lr": ours.made.lr * (1 + i / n_trials)}
        spec = specs.read({**values, "seed": i, "train": settings})
        trials.append(
            trial_of(str(i), spec, ours.task, ours.train, ours.data.names, ours.base, ours.machine)[0]
        )
    return Bank(trials)


def stepful(ours: Ours, rows: np.ndarray) -> list[Batch]:
    """One step's micro-batches of these train rows."""
    tokens = ours.train.tokens
    pieces = batches.cut(rows, tokens.lengths, tokens=ours.spec.train.micro_tokens)
    return [batches.pack(tokens, piece, ours.train.targets, ours.train.weights) for piece in pieces]


def accuracy(ours: Ours, split: str) -> float:
    """Share of a split's rows whose likeliest label is right."""
    rows = ours.data.valid if split == "valid" else ours.data.test
    assert rows is not None
    part = part_of(ours.spec, ours.task, rows, ours.data.names, ours.base)
    found = outputs(ours.made.model, part.tokens, tokens=ours.spec.train.micro_tokens)
    return float((found.argmax(1).numpy() == part.targets).mean())


def facts(ours: Ours) -> dict[str, Any]:
    """What the parent wants to know of rows and model: FLOPs a real token, tokens a row, precision."""
    lengths = ours.train.tokens.lengths.astype(float)
    seen = float((lengths**2).sum() / lengths.sum())  # keys that the mean token attends to
    return {
        "flops_a_token": flops_a_token(ours.made.model, seen),
        "trainable": count(ours.made.model)[1],
        "tokens_a_row": float(lengths.mean()),
        "longest": int(lengths.max()),
        "precision": ours.machine.precision,
        "packed": ours.base.way.packed,
        "threads": ours.machine.threads,
    }
