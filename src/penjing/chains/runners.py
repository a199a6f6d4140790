"""Who carries the legs of a search: this process one after another, a bank of them at once, a Ray cluster.

A runner is told legs by `start` and gives their outcomes by `wait`, always that of the leg begun first: so
what a search decides depends on its spec and not on which machine was quicker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penjing.chains.asked import Asked
from penjing.chains.crowd import carry_oldest, seats
from penjing.chains.trial import Leg, Outcome, Pool, carry, pool
from penjing.jobs.crew import ray_of
from penjing.jobs.news import silent
from penjing.spec import Spec


@dataclass(frozen=True)
class Runner:
    """`start(leg)` takes a leg, `wait()` gives the outcome of the oldest one, `close()` lets go.

    `seats`: how many legs at a time it gains from.
    """

    seats: int
    start: Callable[[Leg], None]
    wait: Callable[[], Outcome]
    close: Callable[[], None]


def alone(shared: Pool) -> Runner:
    """Legs one after another in this process."""
    waiting: deque[Leg] = deque()
    return Runner(1, waiting.append, lambda: carry(waiting.popleft(), shared), waiting.clear)


def banked(shared: Pool, ends: Sequence[Spec]) -> Runner:
    """Legs in this process; those that wait beside the oldest and can share a bank with it train at once.
    `ends` are the specs at the ends of the space: what is to be expected.
    """
    waiting: deque[Leg] = deque()
    done: dict[int, Outcome] = {}  # by trial, of which one leg waits at most

    def wait() -> Outcome:
        if waiting[0].trial not in done:
            outcomes = carry_oldest([leg for leg in waiting if leg.trial not in done], shared)
            done.update({outcome.trial: outcome for outcome in outcomes})
        return done.pop(waiting.popleft().trial)

    return Runner(seats(ends, shared), waiting.append, wait, waiting.clear)


def on_ray(address: str, asked: Asked) -> Runner:
    """Legs as tasks of a Ray cluster (`ray://host:10001`), or of this machine's own (`ray`).

    The folder of the search and the files it names must be the same places on every machine. A task takes one
    processor core of Ray's count, and one GPU where the spec's device is one.

    Raises:
        NotSupported: Ray is not installed, or the cluster does not answer.
        SpecError: the address is none of Ray's.
    """
    ray = ray_of(address)
    on_gpu = asked.first.device.startswith("cuda")
    task = ray.remote(num_gpus=1 if on_gpu else 0)(_carry_there)
    waiting: deque[Any] = deque()
    return Runner(
        max(1, int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))),
        lambda leg: waiting.append(
            task.remote(replace(leg, folder=leg.folder.absolute()), asked.first, asked.search.folds)
        ),
        lambda: ray.get(waiting.popleft()),
        ray.shutdown,
    )


_THERE: dict[str, Pool] = {}  # what a worker process of a cluster has read, kept for its next leg


def _carry_there(leg: Leg, first: Spec, folds: int | None) -> Outcome:
    key = str(leg.folder)
    if key not in _THERE:
        _THERE.clear()
        _THERE[key] = pool(first, folds, silent)
    return carry(leg, _THERE[key])
