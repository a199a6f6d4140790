"""Pieces of text cut into two parts that follow each other, or do not: what sentence-pair objectives read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penjing.data.masking import placed
from penjing.records import NO_ROWS, Part, Tokens


@dataclass(frozen=True)
class Frame:
    """The special tokens around and between two texts, and the second one's token type."""

    before: tuple[int, ...]
    middle: tuple[int, ...]
    after: tuple[int, ...]
    second: int

    @property
    def taken(self) -> int:
        return len(self.before) + len(self.middle) + len(self.after)


def swapped(part: Part, rows: np.ndarray, seed: int, frame: Frame) -> Part:
    """Each piece as two parts, in their order (target 0) or exchanged (target 1), evenly by chance."""
    generator = np.random.default_rng(seed)
    first, second = _halves(part, rows, generator)
    turned = generator.random(len(rows)) < 0.5
    pairs = [(b, a) if turn else (a, b) for a, b, turn in zip(first, second, turned, strict=True)]
    return _framed(pairs, turned.astype(np.int64), frame)


def foreign(part: Part, rows: np.ndarray, seed: int, frame: Frame) -> Part:
    """Each piece as two parts that follow each other (target 0), or whose second one is of another document,
    drawn at random (target 1)."""
    generator = np.random.default_rng(seed)
    first, second = _halves(part, rows, generator)
    wrong = generator.random(len(rows)) < 0.5
    document = part.targets[:, 1]
    pairs = []
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if wrong[i]:
            for _ in range(20):
                other = int(generator.integers(len(part)))
                if document[other] != document[rows[i]]:
                    b = _halves(part, np.array([other]), generator)[1][0]
                    break
            else:
                wrong[i] = False  # hardly another document: no false negatives are made
        pairs.append((a, b))
    return _framed(pairs, wrong.astype(np.int64), frame)


def _halves(
    part: Part, rows: np.ndarray, generator: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each piece cut in two at a random place of its middle half."""
    tokens = part.tokens
    places, lengths = placed(tokens.starts[rows], tokens.starts[rows + 1])
    ids = np.asarray(tokens.ids[places], np.int64)
    ends = np.cumsum(lengths)
    cuts = np.round(lengths * generator.uniform(0.25, 0.75, len(rows))).astype(np.int64)
    cuts = np.clip(cuts, 1, np.maximum(lengths - 1, 1))
    first = [ids[end - n : end - n + cut] for end, n, cut in zip(ends, lengths, cuts, strict=True)]
    return first, [ids[end - n + cut : end] for end, n, cut in zip(ends, lengths, cuts, strict=True)]


def _framed(pairs: list[tuple[np.ndarray, np.ndarray]], targets: np.ndarray, frame: Frame) -> Part:
    rows, types = [], []
    for a, b in pairs:
        rows.append(np.concatenate([frame.before, a, frame.middle, b, frame.after]).astype(np.int64))
        n_second = len(b) + len(frame.after)
        types.append(np.repeat([0, frame.second], [len(rows[-1]) - n_second, n_second]))
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    segments = np.concatenate(types).astype(np.uint8) if frame.second else None
    return Part(NO_ROWS, Tokens(np.concatenate(rows), starts, segments=segments), targets)
