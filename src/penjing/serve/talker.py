"""Texts being said: a flow a model, each with the lines of many requests, one word more of all at each
turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from penjing.errors import PenjingError
from penjing.models.flow import Flow, Line, line_of
from penjing.models.generate import Prompts, Said, generate
from penjing.models.spoken import Spoken
from penjing.serve.asked import Late
from penjing.serve.opened import Opened

LOG = logging.getLogger("penjing.serve")
TOKENS = 16_384  # under way in one flow at most: what was read, and what may still be said


@dataclass(eq=False)
class Talk:
    """One text to be said. `prompts` has one row. `heard` is called in the worker with all ids so far, after
    each word; `ends` are texts that end it. `future` gets what was said and the seconds it waited."""

    opened: Opened
    prompts: Prompts
    deadline: float
    heard: Callable[[Sequence[int]], None] | None = None
    ends: Sequence[str] = ()
    future: Future[tuple[Said, float]] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    began: float | None = None
    line: Line | None = None
    spoken: Spoken = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.spoken = Spoken(self.prompts.text)

    @property
    def size(self) -> int:
        """Tokens to read and to say at most."""
        return len(self.prompts.rows[0]) + self.prompts.how.max_new

    def hears(self) -> bool:
        """Tell what is there; whether one of `ends` is in it."""
        assert self.line is not None
        if self.heard is not None:
            self.heard(self.line.said)
        if not self.ends:
            return False
        text = self.spoken.more(self.line.said)
        return any(end in text for end in self.ends)


class Talker:
    """Every text under way; belongs to the worker's thread."""

    def __init__(self) -> None:
        self._flows: dict[Opened, Flow] = {}
        self._waiting: dict[Opened, list[Talk]] = {}
        self._going: dict[Opened, list[Talk]] = {}

    @property
    def busy(self) -> bool:
        """Whether there is anything to say."""
        return bool(self._waiting or self._going)

    def take(self, talk: Talk) -> None:
        """Let a text begin as soon as there is room."""
        self._waiting.setdefault(talk.opened, []).append(talk)

    def step(self) -> None:
        """Begin what may begin, then one word more of every text."""
        for opened in {*self._waiting, *self._going}:
            try:
                self._turn(opened)
            except Exception as error:
                if not isinstance(error, PenjingError):
                    LOG.exception("a text of %s failed", opened.version)
                for talk in self._going.pop(opened, []):
                    _fail(talk, error)
            if not self._going.get(opened):
                self._going.pop(opened, None)
                self._flows.pop(opened, None)

    def _turn(self, opened: Opened) -> None:
        model: Any = opened.bundle.model
        flow = self._flows.setdefault(opened, Flow(model))
        flow.step()
        going = self._heard(flow, self._going.get(opened, []))
        fresh = self._admitted(opened, sum(talk.size for talk in going))
        self._going[opened] = [*going, *fresh]
        lines = {talk.line: talk for talk in fresh if talk.line is not None}
        back = [lines[line] for line in flow.join([*lines])]
        if back:
            self._waiting[opened] = [*back, *self._waiting.get(opened, [])]
        self._going[opened] = [*going, *self._heard(flow, [talk for talk in fresh if talk not in back])]

    def _admitted(self, opened: Opened, under_way: int) -> list[Talk]:
        """Those that begin now: in order, as many as there is room for, at least one."""
        waiting, fresh = self._waiting.pop(opened, []), list[Talk]()
        while waiting and (not under_way or under_way + waiting[0].size <= TOKENS):
            talk = waiting.pop(0)
            if talk.future.cancelled() or self._late(talk):
                continue
            talk.began = talk.began or time.monotonic()
            try:
                if talk.prompts.how.beams > 1:
                    self._at_once(talk)
                    continue
                asked = talk.prompts
                model: Any = opened.bundle.model
                talk.line = line_of(
                    model,
                    asked.rows[0],
                    asked.how,
                    stop=asked.stop,
                    limit=asked.limit,
                    allow=asked.allow,
                )
            except Exception as error:
                _fail(talk, error)
                continue
            fresh.append(talk)
            under_way += talk.size
        if waiting:
            self._waiting[opened] = waiting
        return fresh

    def _heard(self, flow: Flow, talks: list[Talk]) -> list[Talk]:
        """Tell what was said; those that go on."""
        on: list[Talk] = []
        gone: list[Line] = []
        for talk in talks:
            line = talk.line
            assert line is not None
            ended = talk.hears()
            if line.over or ended:
                _finish(talk, line.answer)
            elif not talk.future.cancelled() and not self._late(talk):
                on.append(talk)
                continue
            gone.append(line)
        flow.sweep(gone)
        return on

    def _at_once(self, talk: Talk) -> None:
        """Beams are searched to their end, beside nothing."""
        asked = talk.prompts
        model: Any = talk.opened.bundle.model
        found = generate(model, asked.rows, asked.how, stop=asked.stop, limit=asked.limit, allow=asked.allow)
        said = found[0][0]
        if talk.heard is not None:
            talk.heard(said.ids)
        _finish(talk, said)

    def _late(self, talk: Talk) -> bool:
        late = time.monotonic() > talk.deadline
        if late:
            _fail(talk, Late("The deadline passed before the text was whole. Ask for fewer tokens."))
        return late


def _finish(talk: Talk, said: Said) -> None:
    if not talk.future.done() and talk.future.set_running_or_notify_cancel():
        talk.future.set_result((said, (talk.began or talk.arrived) - talk.arrived))


def _fail(talk: Talk, error: BaseException) -> None:
    if not talk.future.done() and talk.future.set_running_or_notify_cancel():
        talk.future.set_exception(error)
