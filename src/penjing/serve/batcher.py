"""Continuous micro-batches: one worker thread takes what waits, a pass at a time.

Nothing is waited for: a lone request is answered at once, and while a pass runs others gather behind it. A
pass holds sequences of many requests, of like length, of all bundles that share a trunk (lanes.py), up to a
budget of tokens; requests longer than that go on in the next pass, beside those that came meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from penjing.errors import PenjingError
from penjing.records import Batch
from penjing.serve.asked import Busy, Closing, Late
from penjing.serve.job import SWIFT, Job
from penjing.serve.lanes import Lane, Lanes, with_states
from penjing.serve.opened import Opened
from penjing.serve.registry import Version
from penjing.serve.talker import Talk, Talker

LOG = logging.getLogger("penjing.serve")
WINDOW = 4  # passes' worth of tokens that are looked at for sequences of like length
CHARS = 3.0  # characters a token, until it was seen of a version
LEAST_CHARS, MOST_CHARS = 0.5, 16.0  # a text that is cut says nothing of others, however long it is
IMAGE = 600  # an image counts as so many characters: its bytes say nothing of its patches


class Batcher:
    """The worker and its queue. `start` it, `submit` requests, `close` it: what was taken is finished first.

    tokens: computed in one pass. most: tokens that may wait (beyond, requests are refused), as guessed from
    their characters. A request is refused, too, where the queue is longer than its deadline.
    """

    def __init__(self, lanes: Lanes, *, tokens: int = 2048, most: int = 262_144) -> None:
        self.lanes, self.tokens, self.most = lanes, tokens, most
        self.pace = SWIFT  # tokens a second, lately
        self._chars: dict[Version, float] = {}
        self.waiting = 0  # tokens, guessed
        self.passes: list[tuple[int, int, float]] = []  # (sequences, tokens, seconds) since `drain_passes`
        self._new: list[Job] = []
        self._talks: list[Talk] = []
        self._jobs: list[Job] = []
        self._talker = Talker()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="penjing-batcher", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self, *, within_s: float = 30.0) -> bool:
        """Take nothing more and finish what was taken; False where that took longer."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the worker is there to answer."""
        return self._thread.is_alive()

    @property
    def wait_s(self) -> float:
        """How long what waits will take, as it went lately."""
        return self.waiting / self.pace

    def guess(self, opened: Opened, inputs: Sequence[Any]) -> int:
        """About how many tokens inputs have for a bundle, before anything reads them."""
        chars = self._chars.get(opened.version, CHARS)
        return max(1, round(sum(_characters(one) for one in inputs) / chars))

    def submit(self, opened: Opened, verb: str, inputs: Sequence[Any], *, within_s: float) -> Job:
        """Queue a request; its `future` has the answers.

        Raises:
            Busy: the queue is full, or so long that the deadline would pass.
            Closing: the service is stopping.
        """
        size = self.guess(opened, inputs)
        job = Job(opened, verb, inputs, time.monotonic() + within_s, size)
        with self._wake:
            self._admit(size, within_s)
            self._new.append(job)
            self._wake.notify()
        job.future.add_done_callback(lambda _: self._freed(size))
        return job

    def talk(self, talk: Talk, *, within_s: float) -> Talk:
        """Queue a text to be said, token by token; raises as `submit` does."""
        with self._wake:
            self._admit(talk.size, within_s)
            self._talks.append(talk)
            self._wake.notify()
        talk.future.add_done_callback(lambda _: self._freed(talk.size))
        return talk

    def drain_passes(self) -> list[tuple[int, int, float]]:
        """The passes since the last call: sequences, tokens and seconds of each."""
        with self._wake:
            found, self.passes = self.passes, []
        return found

    def _admit(self, size: int, within_s: float) -> None:
        if self._closing:
            raise Closing("The service is stopping and takes nothing more. Ask another, or try again later.")
        if self.waiting and (self.waiting + size > self.most or self.wait_s > 0.8 * within_s):
            raise Busy(
                f"About {self.waiting:,} tokens wait, which takes about {self.wait_s:.0f} s. Try again then.",
                min(60.0, self.wait_s / 2 + 0.1),
            )
        self.waiting += size

    def _freed(self, size: int) -> None:
        with self._wake:
            self.waiting -= size

    def _work(self) -> None:
        with torch.inference_mode():
            while self._gather():
                self._prune()
                if self._jobs:
                    self._pass()
                if self._talker.busy:
                    with self.lanes.lock:
                        self._talker.step()

    def _gather(self) -> bool:
        """Take in what came; wait where there is nothing to do. False at the end."""
        with self._wake:
            while not (self._new or self._talks or self._jobs or self._talker.busy):
                if self._closing:
                    return False
                self._wake.wait()
            new, self._new = self._new, []
            talks, self._talks = self._talks, []
        for job in new:
            if not job.future.cancelled():
                self._tried([job], job.begin)
                if job.n_tokens:
                    self._learn(job)
        self._jobs += [job for job in new if job.part is not None and not job.future.done()]
        for talk in talks:
            self._talker.take(talk)
        return True

    def _learn(self, job: Job) -> None:
        """Characters a token, as the texts of a version have them lately."""
        known = self._chars.get(job.opened.version, CHARS)
        seen = sum(_characters(one) for one in job.inputs) / job.n_tokens
        seen = min(max(seen, LEAST_CHARS), MOST_CHARS)
        self._chars[job.opened.version] = known + 0.05 * (seen - known)

    def _prune(self) -> None:
        """Leave those that nobody waits for any more."""
        now = time.monotonic()
        for job in self._jobs:
            if now > job.deadline:
                _fail(job, Late("The deadline passed before the answer was there. Ask for less, or later."))
        self._jobs = [job for job in self._jobs if not job.future.done()]

    def _pass(self) -> None:
        lane_of = {id(job): self.lanes.of(job.opened) for job in self._jobs}
        picked = pick(self._jobs, self.tokens, lane_of)
        began = time.perf_counter()
        for job, _ in picked:
            job.began = job.began or time.monotonic()
        n_sequences = sum(len(which) for _, which in picked)
        shares = [int(job.lengths[which].sum()) for job, which in picked]
        n_tokens = sum(shares)
        with self.lanes.lock:
            self._compute(lane_of[id(picked[0][0])], picked)
        seconds = time.perf_counter() - began
        for (job, _), own in zip(picked, shares, strict=True):
            job.cost_s += seconds * own / max(1, n_tokens)
        if n_tokens > 0.1 * self.tokens:  # small passes say nothing of a queue
            self.pace += 0.2 * (n_tokens / max(seconds, 1e-6) - self.pace)
        with self._wake:
            self.passes.append((n_sequences, n_tokens, seconds))
            del self.passes[:-10_000]
        self._jobs = [job for job in self._jobs if not job.future.done()]

    def _compute(self, lane: Lane, picked: list[tuple[Job, np.ndarray]]) -> None:
        """One pass. Where it fails, each request is tried alone, so that only the one at fault fails."""
        jobs = [job for job, _ in picked]
        if not jobs[0].opened.runs_packed:
            for job, which in picked:
                self._tried([job], partial(self._alone, job, which))
            return
        batches: list[Batch] = []

        def run() -> list[torch.Tensor]:
            batches.extend(_on(job, job.batch(which)) for job, which in picked)
            return lane.states([(job.opened, b) for job, b in zip(jobs, batches, strict=True)])

        found = self._tried(jobs, run, alone=len(jobs) == 1)
        if found is None:
            for one in picked if len(picked) > 1 else ():
                self._compute(lane, [one])
            return
        for (job, which), batch, states in zip(picked, batches, found, strict=True):
            whole = with_states(batch, states)
            self._tried([job], partial(job.take, which, whole))

    @staticmethod
    def _alone(job: Job, which: np.ndarray) -> None:
        job.take(which, _on(job, job.batch(which)))

    def _tried(self, jobs: Sequence[Job], do: Any, *, alone: bool = True) -> Any:
        """What `do` gives; None where it failed, and then, `alone`, the request fails with it."""
        try:
            return do()
        except Exception as error:
            if not isinstance(error, PenjingError):
                LOG.exception("%s of %s failed", jobs[0].verb, jobs[0].opened.version)
            for job in jobs if alone else ():
                _fail(job, error)
            return None


def pick(
    jobs: Sequence[Job], tokens: int, lane_of: dict[int, Lane] | None = None
) -> list[tuple[Job, np.ndarray]]:
    """The sequences of the next pass: those of the request whose turn it is, longest first, and of others in
    its lane those nearest in length, up to the budget. A sequence longer than the budget has a pass of its
    own.
    """
    lanes: dict[int, Any] = {id(job): None for job in jobs} if lane_of is None else lane_of
    first = min(jobs, key=lambda job: job.turn)
    window: list[Job] = []
    total = 0
    for job in sorted((j for j in jobs if lanes[id(j)] is lanes[id(first)]), key=lambda job: job.turn):
        window.append(job)
        total += job.n_left
        if total >= WINDOW * tokens:
            break
    owners = np.repeat(np.arange(len(window)), [len(job.left) for job in window])
    which = np.concatenate([job.left for job in window])
    lengths = np.concatenate([job.lengths[job.left] for job in window])
    order = np.argsort(-lengths, kind="stable")
    sums = np.cumsum(lengths[order])
    at = int(np.flatnonzero(owners[order] == 0)[0])
    before = int(sums[at - 1]) if at else 0
    end = max(at + 1, int(np.searchsorted(sums, before + tokens, side="right")))
    room = tokens - (int(sums[end - 1]) - before)
    while at and lengths[order[at - 1]] <= room:
        at -= 1
        room -= int(lengths[order[at]])
    chosen = order[at:end]
    return [
        (job, which[chosen[owners[chosen] == i]])
        for i, job in enumerate(window)
        if (owners[chosen] == i).any()
    ]


def _on(job: Job, batch: Batch) -> Batch:
    return batch.to(job.opened.bundle.machine.device)


def _fail(job: Job, error: BaseException) -> None:
    if not job.future.done() and job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)


def _characters(one: Any) -> int:
    """About how much there is to read in an input."""
    if isinstance(one, str):
        return len(one)
    if isinstance(one, bytes):
        return IMAGE
    if isinstance(one, dict):
        return sum(_characters(value) for value in one.values())
    return sum(_characters(value) for value in one) if isinstance(one, list | tuple) else 1
