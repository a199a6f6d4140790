"""Texts that one model says side by side, each begun when it is asked for: rows join between two words and
leave when they have ended (continuous batching: Orca, Yu et al. 2022).

What a row is answered does not depend on who shares it. Every row has its own rules of decoding; beams are
searched by `generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from penjing.models import encdec
from penjing.models.decoding import Allow, Decoding
from penjing.models.generate import Asked, Said, asked_of, choose_words, rooms_of
from penjing.models.model import Model
from penjing.models.reading import Reader, reader_of


@dataclass(eq=False)
class Line:
    """One text under way. `over` says that nothing follows: it came to a stop token (`ended`), or its room is
    used up."""

    row: Sequence[int]
    how: Decoding
    asked: Asked
    said: list[int] = field(default_factory=list)
    score: float = 0.0
    ended: bool = False

    @property
    def over(self) -> bool:
        return self.ended or len(self.said) >= int(self.asked.room[0])

    @property
    def answer(self) -> Said:
        """What was said so far."""
        return Said(tuple(self.said), self.ended, self.score)


def line_of(
    model: Model,
    row: Sequence[int],
    how: Decoding,
    *,
    stop: Sequence[int],
    limit: int | None = None,
    allow: Allow | None = None,
) -> Line:
    """A text to be said; settings as `generate` has them, with one beam.

    Raises:
        DataError: the row is empty, or leaves no room for an answer, or for one that `allow` allows.
    """
    room = torch.from_numpy(rooms_of([row], how, limit, encdec.begin_of(model)))
    if allow is not None:
        allow([], int(room[0]))  # complains here, not in the midst of others
    chances = np.random.default_rng([how.seed, 0]).random((1, how.max_new if how.sample else 0))
    return Line(row, how, asked_of(model, [row], room, torch.from_numpy(chances), stop, allow))


class Flow:
    """The lines of one model. The model is in evaluation mode, and the caller sees to it that no gradients
    are kept. Between two calls the model may serve others."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.lines: list[Line] = []
        self._reader: Any = None

    def join(self, lines: Sequence[Line]) -> list[Line]:
        """Read what these lines go on from and say their first word; gives those that must wait until all
        others have ended, as this base cannot take rows in between."""
        if not lines:
            return []
        reader = reader_of(self.model, [line.row for line in lines])
        scores = reader.start()
        if self._reader is not None and not self._reader.join(reader):
            return [*lines]
        self._reader = self._reader or reader
        self._say(lines, scores)
        self.lines = [*self.lines, *lines]
        self.sweep()
        return []

    def step(self) -> None:
        """One word more of every line."""
        if self.lines:
            device = next(self.model.trunk.parameters()).device
            reader: Reader = self._reader
            last = torch.tensor([line.said[-1] for line in self.lines], device=device)
            self._say(self.lines, reader.step(last))
            self.sweep()

    def sweep(self, gone: Sequence[Line] = ()) -> None:
        """Let go of the lines that are over, and of those that nobody waits for any more."""
        kept = [i for i, line in enumerate(self.lines) if not line.over and line not in gone]
        if not kept:
            self._reader = None
        elif len(kept) < len(self.lines):
            self._reader.keep(torch.tensor(kept, device=next(self.model.trunk.parameters()).device))
        self.lines = [self.lines[i] for i in kept]

    def _say(self, lines: Sequence[Line], scores: torch.Tensor) -> None:
        first = torch.zeros(1, dtype=torch.int64)
        for line, own in zip(lines, scores, strict=True):
            words, odds = choose_words(own[None], line.asked, line.how, [line.said], first, len(line.said))
            line.score += float(odds[0])
            line.ended = int(words[0]) in line.asked.stop
            if not line.ended:
                line.said.append(int(words[0]))
