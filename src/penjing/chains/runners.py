"""Who carries the legs of a search: this process one after another, a bank of them at once, a Ray cluster.

A runner is told legs by `start` and gives their outcomes by `wait`, always that of the leg begun first: so
what a search decides depends on its spec and not on which machine was quicker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penjing.chains.asked import Asked
from penjing.chains.trial import Leg, Outcome, Pool, carry, carry_together, pool
from penjing.errors import NotSupported, SpecError
from penjing.jobs.news import silent
from penjing.spec import Spec


@dataclass(frozen=True)
class Runner:
    """`start(leg)` takes a leg, `wait()` gives the outcome of the oldest one, `close()` lets go."""

    start: Callable[[Leg], None]
    wait: Callable[[], Outcome]
    close: Callable[[], None]


def alone(shared: Pool) -> Runner:
    """Legs one after another in this process."""
    waiting: deque[Leg] = deque()
    return Runner(waiting.append, lambda: carry(waiting.popleft(), shared), waiting.clear)


def banked(shared: Pool) -> Runner:
    """Legs in this process; those over one base that wait together train at once, where they can (a bank)."""
    waiting: deque[Leg] = deque()
    done: dict[int, Outcome] = {}  # by trial, of which one leg waits at most

    def wait() -> Outcome:
        first = waiting[0]
        if first.trial not in done:
            alike = [leg for leg in waiting if leg.trial not in done]
            alike = [leg for leg in alike if _reading(leg.spec) == _reading(first.spec)]
            done.update({outcome.trial: outcome for outcome in carry_together(alike, shared)})
        return done.pop(waiting.popleft().trial)

    return Runner(waiting.append, wait, waiting.clear)


def _reading(spec: Spec) -> tuple[Any, ...]:
    """What trials of one bank have in common."""
    return spec.origin, spec.data.max_length, spec.train.dropout, spec.train.micro_tokens


def on_ray(address: str, asked: Asked) -> Runner:
    """Legs as tasks of a Ray cluster (`ray://host:10001`), or of this machine's own (`ray`).

    The folder of the search and the files it names must be the same places on every machine. A task takes one
    processor core of Ray's count, and one GPU where the spec's device is one.

    Raises:
        NotSupported: Ray is not installed, or the cluster does not answer.
        SpecError: the address is none of Ray's.
    """
    if address != "ray" and not address.startswith("ray://"):
        raise SpecError(
            f"`--on` takes ray://HOST:PORT of a Ray cluster, or ray for one on this machine; it is "
            f"`{address}`. Leave it out to search without Ray."
        )
    try:
        import ray
    except ImportError as error:
        raise NotSupported(
            f"`--on {address}` needs Ray; it is not installed. Install it with `pip install "
            f"'penjing[cluster]'`, or leave `--on` out to search on this machine."
        ) from error
    try:
        ray.init(address=None if address == "ray" else address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NotSupported(
            f"The Ray cluster at `{address}` was to run the trials; it did not answer "
            f"({str(error).strip().splitlines()[0][:160]}). Start it with `ray start --head`, or mend the "
            "address."
        ) from error
    task = ray.remote(num_gpus=1 if asked.first.device.startswith("cuda") else 0)(_carry_there)
    waiting: deque[Any] = deque()
    return Runner(
        lambda leg: waiting.append(task.remote(leg, asked.first.anchored(), asked.search.folds)),
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
