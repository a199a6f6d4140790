"""Requests as the service sees them: what a recorder is given, and why a request may be refused.

A recorder is a function `(Asked, Answered) -> None`. It is called in a thread, before the answer goes out: so
an answer that a client has seen with `x-penjing-recorded: true` is stored. Texts come as they were sent;
whoever keeps them masks them first (`penjing.pii.mask`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penjing.errors import DataError, PenjingError


@dataclass(frozen=True)
class Asked:
    """A request that was taken: when (Unix seconds), for which version, by which way, and what it asks.

    `verb`: predict, embed, complete or chat. `way`: live, canary, shadow (its answer is seen by nobody but
    the recorder) or pinned (the client named a version). `key`: the id of the API key, empty without keys.
    """

    id: str
    at: float
    name: str
    version: int
    sha256: str
    verb: str
    way: str
    inputs: tuple[Any, ...]
    key: str = ""


@dataclass(frozen=True)
class Answered:
    """What came of it: an answer an input as `Bundle.predict` gives them (empty where it failed, and then
    `error` says how), seconds in the queue and in all, tokens read and said."""

    answers: tuple[Any, ...]
    queue_s: float
    seconds: float
    n_tokens: int
    error: str = ""


Recorder = Callable[[Asked, Answered], None]
DEEPEST = 64  # lists and objects within each other


def refuse_unreadable(value: Any, where: str, *, depth: int = 0) -> None:
    """Look through what a caller sent.

    Raises:
        DataError: half of a character (a lone surrogate, which JSON can write and Unicode has not), or lists
        in lists without end.
    """
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"Unicode was wanted in {where}; sign {error.start + 1} of a text is half of a character "
                f"(\\u{ord(value[error.start]):04x}). Send its other half too, or leave it out."
            ) from error
    elif isinstance(value, dict | list | tuple):
        if depth == DEEPEST:
            raise DataError(
                f"{where} has lists or objects within each other, more than {DEEPEST} deep. Send it flat."
            )
        for one in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            refuse_unreadable(one, where, depth=depth + 1)


class Unknown(PenjingError):
    """No such model, version or alias. Never answered by another one."""


class Busy(PenjingError):
    """The queue is full, or a caller's rate is used up: come back after `wait_s` seconds."""

    def __init__(self, text: str, wait_s: float) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class Late(PenjingError):
    """The deadline passed before the answer was there."""


class Closing(PenjingError):
    """The service is stopping, or not ready yet."""


class Gone(PenjingError):
    """The client went before its answer was there."""


class Forbidden(PenjingError):
    """The caller's key does not allow this."""


@dataclass(frozen=True)
class Caller:
    """Who asks: the id of the key, empty where the service runs without keys, and what it allows: `infer`
    (all models), `infer:NAME`, `feedback`, `metrics`, `admin`."""

    id: str = ""
    scopes: frozenset[str] = frozenset({"infer", "feedback", "metrics", "admin"})

    def may(self, scope: str) -> bool:
        """Whether a route that needs this scope is open to the caller; of `infer` for any model."""
        return scope in self.scopes or (scope == "infer" and any(s.startswith("infer:") for s in self.scopes))

    def may_ask(self, name: str) -> bool:
        """Whether the caller may ask this model."""
        return "infer" in self.scopes or f"infer:{name}" in self.scopes
