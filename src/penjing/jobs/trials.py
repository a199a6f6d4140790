"""A spec as a trial among others: for trainings that share a base and run together (`engine/bank.py`)."""

from __future__ import annotations

from penjing.device import Machine
from penjing.engine import optim
from penjing.engine.bank import Trial
from penjing.errors import NotSupported
from penjing.jobs.prepare import Ready, n_steps, ready, stream
from penjing.models.load import Base, twin_of
from penjing.records import Part
from penjing.spec import Spec
from penjing.task import Task


def trial_of(
    name: str, spec: Spec, task: Task, train: Part, names: list[str], base: Base, machine: Machine
) -> tuple[Trial, Ready]:
    """The training of a spec for a bank, over a twin of the base, which itself stays as it is.

    `names` are the labels'. Every trial's `base` and `machine` must be the same.

    Raises:
        NotSupported: the spec or its method brings techniques, or the task solves for its head; such belong
        to a run of their own.
    """
    if task.fit:
        raise NotSupported(
            f"Trials that train together learn by gradients alone; `{name}` has the task `{task.name}`, "
            "whose head is solved for at each validation. Run it by itself."
        )
    steps = n_steps(spec, len(train))
    made = ready(spec, task, names, twin_of(base), machine, None, steps=steps)
    if made.techniques:
        raise NotSupported(
            f"Trials that train together have no techniques; `{name}` has `{made.techniques[0].name}`. Run "
            "it by itself."
        )
    trial = Trial(
        name,
        made.model,
        lambda step: stream(spec, task, train, start=step),
        task.loss,
        optim.optimizer(made.model, spec.train, made.lr),
        optim.schedule(spec.train, steps),
        steps,
        clip=spec.train.clip,
        seed=spec.seed,
    )
    return trial, made
