"""Each core goes over sequences of its own, with one thread, in place of all threads in each product.

OpenMP cuts every product into a piece a thread and waits for all; its idle threads sleep soon (threads.py),
so that between small products waking them takes as long as the work. MiniLM on two cores, 32 rows of 13
tokens, all threads against a share each: 66 and 53 ms in fp32, 58 and 38 in int8; 128 rows: 189 and 173, 182
and 132.

Threads stay, each with one of OpenMP's: who changes that number pays for a new team.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, lru_cache
from typing import TypeVar

import torch
from torch import Tensor

LEAST = 32  # tokens of a share for each core: Python's own work is done by one at a time
FEW = 64  # tokens that one thread is quicker with: a row in static int8 took 8.8 ms with two, 4.6 with one
Part = TypeVar("Part")


@lru_cache(maxsize=256)
def shares(lengths: tuple[int, ...], cores: int) -> tuple[tuple[int, ...], ...]:
    """Lengths of sequences, a run for every core of about as many tokens; one run where that cannot be, or
    is not worth it.
    """
    total, runs, done = sum(lengths), [list[int]() for _ in range(cores)], 0
    for n in lengths:  # each goes where its middle lies
        runs[min(cores - 1, (2 * done + n) * cores // (2 * total))].append(n)
        done += n
    sizes = [sum(run) for run in runs]
    even = min(sizes) >= LEAST * cores and max(sizes) * cores <= 1.5 * total
    return tuple(tuple(run) for run in runs) if even else (lengths,)


def cut(lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """`shares` for the threads that torch has here."""
    whole, cores = tuple(lengths), _own_threads()
    return shares(whole, cores) if cores > 1 and len(whole) >= cores else (whole,)


def each(work: Callable[[Part], Tensor], parts: Sequence[Part], n_tokens: int) -> list[Tensor]:
    """`work` of each part, all at once and a thread each; a single part of few tokens with one thread, else
    with all. Gradients are not recorded. What a part raises is raised when all have ended.
    """
    if len(parts) == 1 and (n_tokens >= FEW or _own_threads() == 1):
        return [work(parts[0])]
    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad

    def alone(part: Part) -> Tensor:
        with mode():
            return work(part)

    threads = _threads(os.getpid(), torch.get_num_threads())
    done = [threads.submit(alone, part) for part in parts]
    wait(done)
    return [one.result() for one in done]


def _own_threads() -> int:
    """Threads of torch here; 1 where autocast is on, which is known to this thread alone."""
    return 1 if torch.is_autocast_enabled("cpu") else torch.get_num_threads()


@cache
def _threads(process: int, n: int) -> ThreadPoolExecutor:
    """Of this process: a fork has none of its parent's."""
    all_there = threading.Barrier(n)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # the first time, a thread takes what was set last, by whomever
        all_there.wait()

    threads = ThreadPoolExecutor(n, thread_name_prefix="penjing-core", initializer=begin)
    wait([threads.submit(int) for _ in range(n)])
    torch.set_num_threads(n)  # what was set last holds for threads that somebody else begins
    return threads
