"""Who carries out many like tasks: this process, several processes of this machine, a Ray cluster.

A task is a function of a module (so that it can be named to another process) that writes a file and gives
nothing:
what is done stands on disk, and a crew that dies loses no more than what was in hand.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from penjing.errors import NotSupported, SpecError, TrainingFailed

Task = Callable[..., None]


def each(
    task: Task, calls: Sequence[tuple[Any, ...]], *, processes: int, on: str | None = None
) -> Iterator[int]:
    """Carry out `task(*call)` for all calls; gives how many are done, each time one is.

    Raises:
        NotSupported, SpecError: of Ray, as `ray_of` says.
        TrainingFailed: a process was killed from outside.
    """
    if on is not None:
        yield from _on_ray(task, calls, on)
    elif processes == 1 or len(calls) < 2:
        for done, call in enumerate(calls, start=1):
            task(*call)
            yield done
    else:
        yield from _on_processes(task, calls, min(processes, len(calls)))


def _on_processes(task: Task, calls: Sequence[tuple[Any, ...]], processes: int) -> Iterator[int]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    # Not fork: a child of a process with Arrow's or torch's threads may wait for ever.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(task, *call) for call in calls]
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                yield done
        except BrokenProcessPool as error:
            raise TrainingFailed(
                "One of the processes was to finish its part; it was killed, most often because memory ran "
                "out. What "
                "was done is kept: run the same command again, with `--processes 1` where memory is short."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _on_ray(task: Task, calls: Sequence[tuple[Any, ...]], address: str) -> Iterator[int]:
    ray = ray_of(address)
    try:
        remote = ray.remote(task)
        waiting = deque(remote.remote(*call) for call in calls)
        for done in range(1, len(calls) + 1):
            ray.get(waiting.popleft())
            yield done
    finally:
        ray.shutdown()


def ray_of(address: str) -> Any:
    """Ray, connected to the cluster at `ray://host:port`, or to one of this machine (`ray`).

    Raises:
        NotSupported: Ray is not installed, or the cluster does not answer.
        SpecError: the address is none of Ray's.
    """
    if address != "ray" and not address.startswith("ray://"):
        raise SpecError(
            f"`--on` takes ray://HOST:PORT of a Ray cluster, or ray for one on this machine; it is "
            f"`{address}`. Leave "
            f"it out to work without Ray."
        )
    try:
        import ray
    except ImportError as error:
        raise NotSupported(
            f"`--on {address}` needs Ray; it is not installed. Install it with `pip install "
            f"'penjing[cluster]'`, or "
            f"leave `--on` out to work on this machine."
        ) from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "ray":  # one that runs here, or else one of this process, which nobody needs to look at
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NotSupported(
            f"The Ray cluster at `{address}` was to do the work; it did not answer "
            f"({str(error).strip().splitlines()[0][:160]}). Start it with `ray start --head`, mend the "
            f"address, or set RAY_AUTH_MODE=token where it asks for a token."
        ) from error
    return ray
