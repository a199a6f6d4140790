"""A service: models, the batcher that answers for them, and whoever records, limits and counts."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from penjing.errors import DataError, SpecError
from penjing.models.generate import Prompts, Said
from penjing.serve.asked import Answered, Asked, Caller, Forbidden, Late, Recorder, refuse_unreadable
from penjing.serve.audit import Audit
from penjing.serve.batcher import Batcher
from penjing.serve.metrics import Metrics, exposed
from penjing.serve.models import Chosen, Models
from penjing.serve.opened import Opened
from penjing.serve.registry import Version
from penjing.serve.shared import Shared, alone
from penjing.serve.speaking import Growing, prompts_to_answer
from penjing.serve.talker import Talk

LOG = logging.getLogger("penjing.serve")
SHADOWS = 64  # requests that shadows work on at once; more are not shadowed


@dataclass(frozen=True)
class Reply:
    """Answers, who gave them, and what it took. `recorded`: None where nobody records."""

    id: str
    opened: Opened
    way: str
    answers: list[Any]
    n_tokens: int
    queue_s: float
    seconds: float
    recorded: bool | None = None


@dataclass
class Service:
    """What the routes call. `start` and `stop` it inside the event loop."""

    models: Models
    batcher: Batcher
    recorder: Recorder | None = None
    shared: Shared = field(default_factory=alone)
    audit: Audit = field(default_factory=Audit)
    within_s: float = 30.0
    most_inputs: int = 1024

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.models, self.batcher)
        self.audit.lost = self.metrics.unaudited.inc
        self._ready = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._shadows = 0
        # Models open one after the other: whoever waits for one must not hold a thread that others need.
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="penjing-opener")

    @property
    def ready(self) -> bool:
        """Whether requests are taken, and somebody is there to answer them."""
        return self._ready and self.batcher.alive

    async def start(self, names: Sequence[str] = ()) -> None:
        """Open the live versions of these models, then answer, and follow what changes on disk."""
        self.batcher.start()
        for name in names:
            await asyncio.to_thread(self.models.begin, name)
        self._keep(asyncio.create_task(self._follow()))
        if self.shared.replica:
            self._keep(asyncio.create_task(self._tell()))
        self._ready = True

    async def stop(self, *, within_s: float = 30.0) -> None:
        """Take nothing more and finish what was taken."""
        self._ready = False
        done = await asyncio.to_thread(self.batcher.close, within_s=within_s)
        if not done:
            LOG.warning("stopped with requests unfinished after %.0f s", within_s)
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._opener.shutdown(wait=False, cancel_futures=True)
        self.audit.note("stopped", {"finished": done})
        self.audit.close()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.metrics.observe_passes()  # however seldom somebody reads them
            try:
                await asyncio.to_thread(self.models.follow)
            except Exception:
                LOG.exception("the registry could not be followed; what is served stays")

    async def _tell(self) -> None:
        """Leave what this replica counts where the others find it."""
        while True:
            try:
                await self.shared.tell(self.metrics.families(self.shared.replica))
            except Exception:
                LOG.exception("the other replicas could not be told what this one counts")
            await asyncio.sleep(1.0)

    async def exposition(self) -> bytes:
        """What Prometheus reads: of this process, and of the other replicas where there are any."""
        own = self.metrics.families(self.shared.replica)
        return exposed([own, *await self.shared.told()])

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def found(self, name: str, caller: Caller) -> tuple[Chosen, Opened]:
        """Who answers a name, opened.

        Raises:
            Forbidden, Unknown, Closing
        """
        if not caller.may_ask(name.partition("@")[0]):
            raise Forbidden(f"This key may not ask `{name[:80]}`. Use one whose scopes name it.")
        chosen = self.models.choose(name)
        opened = self.models.opened(chosen.version)
        if opened is None:
            opened = await self._open(chosen.version)
        return chosen, opened

    async def _open(self, version: Version) -> Opened:
        return await asyncio.get_running_loop().run_in_executor(self._opener, self.models.open, version)

    async def ask(
        self,
        name: str,
        verb: str,
        inputs: Sequence[Any],
        *,
        caller: Caller | None = None,
        within_s: float | None = None,
    ) -> Reply:
        """Answers to inputs (verb predict), or their vectors (embed).

        Raises:
            PenjingError: unknown, refused, late, or not what the task takes.
        """
        caller = caller or Caller()
        began, at, number = time.perf_counter(), time.time(), f"req_{secrets.token_hex(12)}"
        within_s = min(within_s or self.within_s, self.within_s)
        chosen, opened = await self.found(name, caller)
        if not 1 <= len(inputs) <= self.most_inputs:
            raise SpecError(
                f"1 to {self.most_inputs:,} inputs were wanted; there are {len(inputs):,}. Send "
                f"{'fewer' if inputs else 'at least one'}."
            )
        refuse_unreadable(inputs, "the inputs")
        read = _read(opened, inputs)
        answers, n_tokens, queue_s = await self.answered(opened, verb, read, caller, within_s)
        reply = Reply(number, opened, chosen.way, answers, n_tokens, queue_s, time.perf_counter() - began)
        asked = self._asked(reply, at, verb, inputs, caller)
        if chosen.shadow is not None and self.recorder is not None and self._shadows < SHADOWS:
            self._keep(asyncio.create_task(self._shadow(chosen.shadow, asked, read, within_s)))
        return await self._noted(reply, asked)

    async def answered(
        self, opened: Opened, verb: str, inputs: Sequence[Any], caller: Caller | None, within_s: float
    ) -> tuple[list[Any], int, float]:
        """Answers of a version, tokens, and seconds waited; noted and recorded by nobody. Without a caller
        nobody's rate is used up. Raises as `ask`."""
        if verb == "predict" and opened.bundle.task.prompts is not None:
            prompts = await asyncio.to_thread(prompts_to_answer, opened.bundle, inputs)
            said = await self._all_said(opened, _each(prompts), caller, within_s)
            task, found = opened.bundle.task, [prompts.found(one) for one, _ in said]
            answers = task.answers(found, opened.bundle.labels, opened.bundle.card["chosen"])
            n_said = sum(len(one.ids) for one, _ in said)
            n_read = sum(map(len, prompts.rows))
            self.count(n_read, n_said, said[0][1])
            return answers, n_read + n_said, said[0][1]
        if caller is not None:
            await self.shared.take(caller.id, "tokens", self.batcher.guess(opened, inputs))
        job = self.batcher.submit(opened, verb, inputs, within_s=within_s)
        answers, n_tokens, queue_s = await self._within(job.future, within_s)
        self.count(n_tokens, 0, queue_s)
        return answers, n_tokens, queue_s

    async def _all_said(
        self, opened: Opened, each: Sequence[Prompts], caller: Caller | None, within_s: float
    ) -> list[tuple[Said, float]]:
        """What was said to each; where one is refused nobody waits for the others, so they end, too."""
        talks: list[Talk] = []
        try:
            for prompts in each:
                talks.append(await self.talk(opened, prompts, caller=caller, within_s=within_s))
            return await asyncio.gather(*(self._within(talk.future, within_s) for talk in talks))
        finally:
            for talk in talks:
                talk.future.cancel()

    async def talk(
        self,
        opened: Opened,
        prompts: Prompts,
        *,
        caller: Caller | None,
        within_s: float | None = None,
        heard: Any = None,
        ends: Sequence[str] = (),
    ) -> Talk:
        """Begin to say one text; raises as `Batcher.talk` does, or Busy: the caller's rate is used up."""
        within_s = min(within_s or self.within_s, self.within_s)
        talk = Talk(opened, prompts, time.monotonic() + within_s, heard, ends)
        if caller is not None:
            await self.shared.take(caller.id, "tokens", talk.size)
        return self.batcher.talk(talk, within_s=within_s)

    async def heard(
        self, opened: Opened, prompts: Prompts, *, caller: Caller, ends: Sequence[str] = ()
    ) -> AsyncGenerator[tuple[str, Said | None], None]:
        """A text as it grows, piece by piece; at its end also what was said in all."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()
        growing = Growing(prompts.text, ends)

        def hear(ids: Sequence[int]) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, list(ids))

        talk = await self.talk(opened, prompts, caller=caller, heard=hear, ends=ends)
        talk.future.add_done_callback(lambda _: loop.call_soon_threadsafe(queue.put_nowait, None))
        try:
            while (ids := await queue.get()) is not None:
                new = growing.more(ids)
                if new:
                    yield new, None
            said, queue_s = talk.future.result()
            self.count(len(prompts.rows[0]), len(said.ids), queue_s)
            yield growing.more(said.ids, last=True), said
        finally:
            talk.future.cancel()

    async def _within(self, future: Future[Any], within_s: float) -> Any:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), within_s + 5)
        except TimeoutError as error:
            raise Late("The deadline passed before the answer was there. Ask for less, or later.") from error

    async def _shadow(self, version: Version, asked: Asked, inputs: Sequence[Any], within_s: float) -> None:
        """Ask another version the same, for the recorder alone."""
        self._shadows += 1
        began = time.perf_counter()
        try:
            opened = await self._open(version)
            answers, n, queue_s = await self.answered(opened, asked.verb, inputs, None, within_s)
            reply = Reply(asked.id, opened, "shadow", answers, n, queue_s, time.perf_counter() - began)
            caller = Caller(asked.key)
            await self._noted(reply, self._asked(reply, asked.at, asked.verb, asked.inputs, caller))
        except Exception as error:
            self.metrics.refused.labels("shadow").inc()
            LOG.info("the shadow %s did not answer: %s", version, error)
        finally:
            self._shadows -= 1

    def _asked(self, reply: Reply, at: float, verb: str, inputs: Sequence[Any], caller: Caller) -> Asked:
        version = reply.opened.version
        return Asked(
            reply.id,
            at,
            version.name,
            version.number,
            version.sha256,
            verb,
            reply.way,
            tuple(inputs),
            caller.id,
        )

    async def noted(self, reply: Reply, verb: str, inputs: Sequence[Any], caller: Caller, at: float) -> Reply:
        """Count and record an answer that was said to somebody."""
        return await self._noted(reply, self._asked(reply, at, verb, inputs, caller))

    async def _noted(self, reply: Reply, asked: Asked) -> Reply:
        version = reply.opened.version
        self.metrics.answers.labels(version.name, version.number, reply.way).inc(len(reply.answers))
        self.audit.note(
            "asked",
            {"id": asked.id, "key": asked.key, "model": str(version), "verb": asked.verb, "way": asked.way}
            | {"inputs": len(asked.inputs), "tokens": reply.n_tokens, "seconds": round(reply.seconds, 4)},
        )
        if self.recorder is None or asked.verb == "embed":
            return reply
        about = Answered(tuple(reply.answers), reply.queue_s, reply.seconds, reply.n_tokens)
        try:
            await asyncio.to_thread(self.recorder, asked, about)
            recorded = True
        except Exception:
            LOG.exception("a request could not be recorded")
            self.metrics.unrecorded.inc()
            recorded = False
        return Reply(**{**vars(reply), "recorded": recorded})

    def count(self, n_read: int, n_said: int, queue_s: float) -> None:
        """Count the tokens of an answer, and its wait."""
        self.metrics.tokens.labels("read").inc(n_read)
        self.metrics.tokens.labels("said").inc(n_said)
        self.metrics.queued.observe(queue_s)


def _each(prompts: Prompts) -> list[Prompts]:
    return [Prompts(**{**vars(prompts), "rows": [row]}) for row in prompts.rows]


def _read(opened: Opened, inputs: Sequence[Any]) -> list[Any]:
    """Inputs as the bundle's task takes them. A model of images is given bytes: a text would be a path of the
    server's own files."""
    if not opened.bundle.task.sees:
        return list(inputs)
    found = []
    for i, one in enumerate(inputs):
        text = one.partition("base64,")[2] if isinstance(one, str) and one.startswith("data:") else one
        try:
            found.append(base64.b64decode(text, validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise DataError(
                f"`{opened.version.name}` reads images: base64 of a file's bytes, or a data: URL, was "
                "wanted; input "
                f"{i + 1} of {len(inputs)} is none."
            ) from error
    return found
