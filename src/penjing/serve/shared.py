"""What replicas of one service have in common: how much each caller has asked, and what all of them count.

A service that is one process has it for itself (`alone`). Several ask one `Ledger`, which runs in a process
of its own (`jobs/replicas.py` makes it a Ray actor), so that a rate is the caller's whichever answers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from penjing.serve.asked import Busy
from penjing.serve.limits import Limits

HEARD_S = 15.0  # a replica that was not heard for so long is gone; it tells every second


@dataclass(frozen=True)
class Shared:
    """`take(caller, kind, amount)` counts what is asked, or raises Busy. `tell(families)` leaves this
    replica's metrics, `told()` gives those of the others. `replica`: its name, empty where there is one only.
    """

    replica: str
    take: Callable[[str, str, float], Awaitable[None]]
    tell: Callable[[Sequence[Any]], Awaitable[None]]
    told: Callable[[], Awaitable[list[Sequence[Any]]]]


def alone(limits: Limits | None = None) -> Shared:
    """Of a service that is this process."""
    own = limits or Limits()

    async def take(caller: str, kind: str, amount: float) -> None:
        own.take(caller, kind, amount)

    async def tell(families: Sequence[Any]) -> None:
        pass

    async def told() -> list[Sequence[Any]]:
        return []

    return Shared("", take, tell, told)


class Ledger:
    """What all replicas asked, within `limits`, and counted."""

    def __init__(self, limits: Limits, *, now: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._now = limits, now
        self._heard: dict[str, tuple[float, Sequence[Any]]] = {}

    def take(self, caller: str, kind: str, amount: float) -> tuple[str, float] | None:
        """Count what a caller asks; why it may not, and after how many seconds it may."""
        try:
            self._limits.take(caller, kind, amount)
        except Busy as error:
            return str(error), error.wait_s
        return None

    def tell(self, replica: str, families: Sequence[Any]) -> None:
        """Keep what a replica counts now, in place of what it counted before."""
        self._heard[replica] = (self._now(), families)

    def told(self, replica: str) -> list[Sequence[Any]]:
        """What the replicas but this one count; those gone are left out."""
        since = self._now() - HEARD_S
        self._heard = {name: heard for name, heard in self._heard.items() if heard[0] > since}
        return [families for name, (_, families) in self._heard.items() if name != replica]
