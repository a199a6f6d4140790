"""Several processes for one job: joining those that were started together, and what they cannot do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

import torch

from penjing.device import Machine, choose
from penjing.engine.ranks import Ranks, joined, world_outside
from penjing.engine.sharding import METHODS
from penjing.errors import NotSupported
from penjing.spec import Spec
from penjing.task import Task


def wants_launch(processes: int) -> bool:
    """True where a job asks for processes and nobody has started them."""
    return processes > 1 and world_outside() == 1


@contextlib.contextmanager
def together(spec: Spec, processes: int) -> Iterator[Ranks]:
    """Inside, this process is one of those that train by this spec; with `processes` 1 and no torchrun,
    alone.

    Raises:
        NotSupported: others were started than asked for, or there are fewer GPUs.
    """
    device = torch.device(_device(spec))
    wanted = processes if processes > 1 else None
    with joined(spec.train.strategy, device, wanted=wanted) as ranks:
        yield ranks


def _device(spec: Spec) -> str:
    """The device of this process: of several, the GPU of its number."""
    if world_outside() == 1:
        return "cpu"  # joins nobody
    name = spec.device if spec.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if not name.startswith("cuda"):
        return name
    own = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    if name != "cuda":
        raise NotSupported(
            f"`device: {name}` names one GPU, and {world_outside()} processes take one each. Say "
            f"`device: cuda`, and choose GPUs by CUDA_VISIBLE_DEVICES."
        )
    if own >= torch.cuda.device_count():
        raise NotSupported(
            f"{world_outside()} processes were started, which take a GPU each; this machine has "
            f"{torch.cuda.device_count()}. Lower `train.processes`, or say `device: cpu`."
        )
    return f"cuda:{own}"


def machine_of(spec: Spec, ranks: Ranks) -> Machine:
    """Where this process works and how; all of them in the precision that the first one chose."""
    if ranks.world == 1:
        return choose(spec.device, spec.precision)
    with ranks.first_ahead():
        machine = choose(_device(spec), spec.precision)
    return replace(machine, precision=ranks.gather(machine.precision)[0])


def refuse_alone(spec: Spec, task: Task, ranks: Ranks) -> None:
    """See that several processes can do what the spec asks.

    Raises:
        NotSupported: they cannot.
    """
    if ranks.world == 1:
        return
    if task.joint or not task.learns:
        why = "its loss compares the rows of a step with each other" if task.joint else "it makes no step"
        raise NotSupported(
            f"`train.processes: {ranks.world}` would deal the rows of each step out; `task: {task.name}` "
            f"cannot be dealt out, as {why}. Train by one process."
        )
    if not ranks.sharded:
        return
    what = ""
    if spec.method.name not in METHODS:
        what = f"`method: {spec.method.name}` is not among {', '.join(METHODS)}"
    elif spec.method.settings.get("quantize"):
        what = f"`{spec.method.name}.quantize` keeps the base in types that are not dealt out"
    elif spec.techniques:
        what = f"`{spec.techniques[0].name}` works on whole weights"
    elif task.fit:
        what = f"`task: {task.name}` solves for its head"
    if what:
        raise NotSupported(
            f"`train.strategy: fsdp` leaves each of {ranks.world} processes a share of every weight; {what}. "
            f"Take `train.strategy: ddp`."
        )
