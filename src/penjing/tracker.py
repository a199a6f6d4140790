"""What a tracker is: somewhere else that a run's numbers go. Files in `trackers/` give one each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Live:
    """A tracker of one run: `log(step, values)` takes numbers by name, `close()` ends it. `fail()` ends one
    that died, where the tracker tells the two apart.
    """

    log: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]
    fail: Callable[[], None] | None = None

    def end(self, *, died: bool) -> None:
        """Close it, as failed where the run died."""
        (self.fail if died and self.fail else self.close)()


@dataclass(frozen=True)
class Tracker:
    """`begin(folder, spec)` opens it for the run in this folder, whose spec is written as plain values; what
    is not installed is a NotSupported there.
    """

    name: str
    begin: Callable[[Path, dict[str, Any]], Live]
