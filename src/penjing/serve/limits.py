"""How much a caller may ask: buckets that fill with time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from penjing.serve.asked import Busy

CALLERS = 10_000  # remembered; who was seen longest ago is forgotten, and has a full bucket again


class Limits:
    """Requests and tokens a minute for each caller; None: as many as it likes. A bucket holds a minute's
    worth."""

    def __init__(
        self,
        *,
        requests: float | None = None,
        tokens: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sizes = {"requests": requests, "tokens": tokens}
        self._now = now
        self._left: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, caller: str, kind: str, amount: float) -> None:
        """Count something that a caller asks. What is larger than the bucket empties it.

        Raises:
            Busy: the bucket holds less.
        """
        size = self._sizes[kind]
        if size is None:
            return
        now = self._now()
        left, at = self._left.pop((caller, kind), (size, now))
        left = min(size, left + (now - at) * size / 60)
        needed = min(amount, size)
        if left < needed:
            self._keep(caller, kind, left, now)
            raise Busy(
                f"{size:,.0f} {kind} a minute may be asked, and they are used up. Come back in a while.",
                (needed - left) * 60 / size,
            )
        self._keep(caller, kind, left - needed, now)

    def _keep(self, caller: str, kind: str, left: float, now: float) -> None:
        self._left[caller, kind] = (left, now)
        while len(self._left) > CALLERS:
            self._left.popitem(last=False)
