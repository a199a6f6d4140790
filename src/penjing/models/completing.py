"""Code as a decoder reads it: pieces of whole files, prompts with completions, and holes to be filled.

Legend: n sequences.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from penjing.data.code import Problem
from penjing.models.filling import Filling
from penjing.plural import counted
from penjing.records import Part, Rows, Tokens

LEAST = 4  # signs of a line that is worth asking for


@dataclass(frozen=True)
class Hole:
    """What stands before a hole, in it, and behind it."""

    before: str
    inside: str
    behind: str


def hole_of(one: Problem, filled: bool) -> Hole:
    """What a row is judged by: its completion; of a whole file a line of it, drawn by the file alone, with
    what stands behind it where the model fills holes (`filled`)."""
    text = one.completion or ""
    if not one.whole:
        return Hole(one.prompt, text, one.suffix if filled else "")
    lines = text.splitlines(keepends=True)
    if len(lines) < 2:
        return Hole(text[: len(text) // 2], text[len(text) // 2 :], "")
    able = [i for i, line in enumerate(lines) if i and len(line.strip()) >= LEAST] or [len(lines) - 1]
    at = able[int(np.random.default_rng(zlib.crc32(text.encode())).integers(len(able)))]
    before, line = "".join(lines[:at]), lines[at].rstrip("\r\n")
    return Hole(before, line, text[len(before) + len(line) :] if filled else "")


def learned_part(fill: Filling, rows: Rows, longest: int, most: int) -> Part:
    """Sequences of at most `longest` tokens that are learned: all of a whole file's pieces, of a problem the
    completion (of at most `most`) behind its prompt. `marks` (n, 3): from where to where a piece goes in its
    file (0, 0: a problem), and `longest`."""
    ids: list[list[int]] = []
    labels: list[list[int]] = []
    owners, marks = [], []
    cut = shortened = 0
    for row, one in enumerate(rows.items or ()):
        if one.whole:
            for start, stop, own in _pieces(fill, one.completion or "", longest - fill.taken - 4):
                ends = fill.last if stop == len(one.completion or "") else ()
                own = [*fill.first, *own, *ends]
                ids.append(own)
                labels.append([*own[1:], -100])
                owners.append(row)
                marks.append((start, stop, longest))
            continue
        said = [*fill.ids(one.completion or ""), *fill.last]
        shortened += len(said) > most
        said = said[:most]
        head = _head(fill, Hole(one.prompt, "", one.suffix), longest - len(said))
        cut += len(head) < _whole(fill, one)
        ids.append([*head, *said])
        labels.append([*[-100] * (len(head) - 1), *said, -100])
        owners.append(row)
        marks.append((0, 0, longest))
    notes = list(rows.notes)
    if shortened:
        notes.append(f"{counted(shortened, 'completion')} longer than {most} tokens; their ends are cut")
    if cut:
        notes.append(
            f"{counted(cut, 'prompt')} longer than the rest of {longest} tokens; their beginnings are cut"
        )
    tokens = _laid(ids, labels)
    found = replace(rows, notes=tuple(notes))
    return Part(found, tokens, np.zeros(len(rows), np.int64), owners=np.array(owners, np.int64),
                marks=np.array(marks, np.int64).reshape(-1, 3))  # fmt: skip


def prompts_part(fill: Filling, rows: Rows, holes: Sequence[Hole], room: int) -> Part:
    """What the model goes on from, in at most `room` tokens each."""
    ids = [_head(fill, hole, room) for hole in holes]
    return Part(rows, _laid(ids, None), np.zeros(len(rows), np.int64))


def _head(fill: Filling, hole: Hole, room: int) -> list[int]:
    if hole.behind.strip():
        return fill.asked(hole.before, hole.behind, room)
    found = [*fill.first, *fill.ids(hole.before)] or [*fill.last[:1]] or fill.ids("\n")
    return found if len(found) <= room else [*fill.first, *found[len(found) - room + len(fill.first) :]]


def _whole(fill: Filling, one: Problem) -> int:
    if one.suffix.strip():
        return len(fill.ids(one.prompt)) + len(fill.ids(one.suffix)) + fill.taken - len(fill.last)
    return len(fill.first) + len(fill.ids(one.prompt))


def _pieces(fill: Filling, text: str, room: int) -> list[tuple[int, int, list[int]]]:
    """A file in pieces of whole lines, of at most `room` tokens; a line that is longer is cut into such."""
    lines = text.splitlines(keepends=True)
    sizes = [len(one) for one in fill.tokenizer(lines, add_special_tokens=False, verbose=False)["input_ids"]]
    spans, start, at, used = [], 0, 0, 0
    for line, size in zip(lines, sizes, strict=True):
        if used and used + size > room:
            spans.append((start, at))
            start, used = at, 0
        at, used = at + len(line), used + size
    spans.append((start, at))
    found = []
    while spans:
        a, b = spans.pop()
        own = fill.ids(text[a:b])
        if len(own) > room and b - a > 1:
            spans += [(a, (a + b) // 2), ((a + b) // 2, b)]
        else:
            found.append((a, b, own))
    return found[::-1]


def _laid(ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None) -> Tokens:
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    flat = np.array([token for one in ids for token in one], np.int32)
    wanted = None if labels is None else np.array([token for one in labels for token in one], np.int64)
    return Tokens(flat, starts, labels=wanted)
