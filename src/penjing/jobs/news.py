"""What a job tells while it works. Jobs never print: they call `tell`, and the command line shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class News:
    """One thing worth telling. `done` of `total` in the stage's unit (steps or rows); `text` for people."""

    kind: Literal["stage", "progress", "note", "score"]
    text: str
    done: int = 0
    total: int = 0


Tell = Callable[[News], None]


def silent(news: News) -> None:
    """Tell nobody."""
