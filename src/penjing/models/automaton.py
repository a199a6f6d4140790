"""Sets of texts as finite automata over UTF-8 bytes: built of a few pieces, made deterministic, measured.

A piece is characters, one thing after another, one of several, or something repeated. `machine_of` makes the
table that says, for every state and byte, the next state. A regular expression (`regexes.py`) and a JSON
schema (`schemas.py`) become such pieces; `forms.py` lets a model say only what the table allows.

Legend: n states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from penjing.errors import SpecError

DEAD = 0  # the state that no text leaves
MOST = 60_000  # states before a form is refused as too large
WORK = 2_000_000  # steps before it is, of those that make states deterministic: `(a?){3000}` has few states
Span = tuple[int, int]  # first and last code point, or byte
LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)  # no text has them


@dataclass(frozen=True)
class Chars:
    """One character of these spans of code points; of none: nothing can be said."""

    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Then:
    """The parts one after another; no part is the empty text."""

    parts: tuple[Piece, ...]


@dataclass(frozen=True)
class Either:
    """One of the parts."""

    parts: tuple[Piece, ...]


@dataclass(frozen=True)
class Times:
    """The part from `least` to `most` times; None: as often as one likes."""

    part: Piece
    least: int
    most: int | None


Piece = Chars | Then | Either | Times
NOTHING = Then(())
NEVER = Chars(())


def then(*parts: Piece) -> Piece:
    """The parts one after another."""
    return Then(parts)


def either(parts: Iterable[Piece]) -> Piece:
    """One of the parts."""
    found = tuple(parts)
    return found[0] if len(found) == 1 else Either(found)


def maybe(part: Piece) -> Piece:
    """The part or nothing."""
    return Times(part, 0, 1)


def many(part: Piece) -> Piece:
    """The part any number of times."""
    return Times(part, 0, None)


def text(said: str) -> Piece:
    """This text."""
    return Then(tuple(Chars(((ord(c), ord(c)),)) for c in said))


def but(spans: Iterable[Span]) -> Chars:
    """Any character but these."""
    found, at = [], 0
    for first, last in sorted([*spans, SURROGATES]):
        if first > at:
            found.append((at, first - 1))
        at = max(at, last + 1)
    if at <= LAST:
        found.append((at, LAST))
    return Chars(tuple(found))


@dataclass(frozen=True, eq=False)
class Machine:
    """table (n, 256): the state after a byte, `DEAD` where no text goes on so. ends (n,): whether a text may
    be over there. Every state but `DEAD` leads to an end."""

    table: np.ndarray  # (n, 256) int32
    ends: np.ndarray  # (n,) bool
    start: int

    def after(self, data: bytes, state: int | None = None) -> int:
        """The state behind these bytes."""
        at = self.start if state is None else state
        for byte in data:
            at = int(self.table[at, byte])
        return at

    def takes(self, said: str) -> bool:
        """Whether the text is of the set."""
        return bool(self.ends[self.after(said.encode())])


@dataclass
class _Net:
    """The automaton with choices: of each state what it reads, and where it goes without reading."""

    reads: list[list[tuple[int, int, int]]] = field(default_factory=list)  # first byte, last byte, target
    free: list[list[int]] = field(default_factory=list)
    pieces: int = 0  # written so far; an empty one adds no state, however often it is repeated

    def state(self) -> int:
        if len(self.reads) >= 4 * MOST:
            raise _too_large()
        self.reads.append([])
        self.free.append([])
        return len(self.reads) - 1


def machine_of(piece: Piece) -> Machine:
    """The deterministic automaton of a piece, without states that lead nowhere.

    Raises:
        SpecError: more than 60,000 states.
    """
    net = _Net()
    begin = net.state()
    end = _put(net, piece, begin)
    useful = [bool(net.reads[s]) or s == end for s in range(len(net.reads))]
    closures: dict[int, frozenset[int]] = {}

    def closure(states: set[int]) -> frozenset[int]:
        """What is reached from some states without reading, of those that matter."""
        only = next(iter(states)) if len(states) == 1 else None
        if only is not None and only in closures:
            return closures[only]
        seen, open_ = set(states), [*states]
        while open_:
            new = [t for t in net.free[open_.pop()] if t not in seen]
            seen.update(new)
            open_ += new
        found = frozenset(s for s in seen if useful[s])
        if only is not None:
            closures[only] = found
        return found

    first_ones = closure({begin})
    known: dict[frozenset[int], int] = {frozenset(): DEAD, first_ones: 1}
    rows, waiting, work = [np.zeros(256, np.int32)], deque([first_ones]), 0
    while waiting:
        row = np.zeros(256, np.int32)
        reads = [read for s in waiting.popleft() for read in net.reads[s]]
        work += len(reads)
        if work > WORK:
            raise _too_large()
        for first, last, targets in _apart(reads):
            reached = closure(targets)
            if reached not in known:
                if len(known) > MOST:
                    raise _too_large()
                known[reached] = len(known)
                waiting.append(reached)
            row[first : last + 1] = known[reached]
        rows.append(row)
    ends = np.array([end in states for states in known])
    return _living(np.stack(rows), ends)


def _too_large() -> SpecError:
    return SpecError(
        f"The form that answers shall have needs more than {MOST:,} states, or as much work: a repetition or "
        "`maxLength` of thousands, or forms deep within forms. Lower those numbers, or leave a bound out."
    )


def _put(net: _Net, piece: Piece, begin: int) -> int:
    """Write a piece behind a state; the state behind it."""
    net.pieces += 1
    if net.pieces > 8 * MOST:
        raise _too_large()
    if isinstance(piece, Chars):
        return _put_chars(net, piece, begin)
    if isinstance(piece, Then):
        for part in piece.parts:
            begin = _put(net, part, begin)
        return begin
    end = net.state()
    if isinstance(piece, Either):
        for part in piece.parts:
            own = net.state()
            net.free[begin].append(own)
            net.free[_put(net, part, own)].append(end)
        return end
    for _ in range(piece.least):
        begin = _put(net, piece.part, begin)
    if piece.most is None:
        around = net.state()
        net.free[begin].append(around)
        net.free[_put(net, piece.part, around)].append(around)
        net.free[around].append(end)
        return end
    for _ in range(piece.most - piece.least):
        net.free[begin].append(end)
        begin = _put(net, piece.part, begin)
    net.free[begin].append(end)
    return end


def _put_chars(net: _Net, piece: Chars, begin: int) -> int:
    """Write characters behind a state; equal last bytes share their states."""
    behind: dict[tuple[Span, ...], int] = {(): net.state()}
    for span in piece.spans:
        for path in utf8(*span):
            for i in range(len(path) - 1, 0, -1):
                rest = tuple(path[i:])
                if rest not in behind:
                    behind[rest] = net.state()
                    net.reads[behind[rest]].append((*path[i], behind[rest[1:]]))
            net.reads[begin].append((*path[0], behind[tuple(path[1:])]))
    return behind[()]


def _apart(reads: list[tuple[int, int, int]]) -> list[tuple[int, int, set[int]]]:
    """Spans of bytes that lead to the same targets: overlapping ones cut where they begin and end."""
    if len(reads) == 1:
        first, last, target = reads[0]
        return [(first, last, {target})]
    cuts = sorted({first for first, _, _ in reads} | {last + 1 for _, last, _ in reads})
    found = []
    for first, stop in pairwise(cuts):
        targets = {target for a, b, target in reads if a <= first and stop - 1 <= b}
        if targets:
            found.append((first, stop - 1, targets))
    return found


def _living(table: np.ndarray, ends: np.ndarray) -> Machine:
    """Without states from which no end is reached."""
    source = np.repeat(np.arange(len(table)), 256)
    order = np.argsort(table.ravel(), kind="stable")
    bounds = np.searchsorted(table.ravel()[order], np.arange(len(table) + 1))
    alive, open_ = ends.copy(), [*np.flatnonzero(ends).tolist()]
    while open_:
        state = open_.pop()
        before = np.unique(source[order[bounds[state] : bounds[state + 1]]])
        new = before[~alive[before]]
        alive[new] = True
        open_ += new.tolist()
    alive[DEAD] = False
    kept = np.flatnonzero(alive)
    names = np.zeros(len(table), np.int32)
    names[kept] = np.arange(1, len(kept) + 1)
    whole = np.zeros((len(kept) + 1, 256), np.int32)
    whole[1:] = names[table[kept]]
    return Machine(whole, np.concatenate([[False], ends[kept]]), int(names[1]))


def utf8(first: int, last: int) -> list[list[Span]]:
    """The code points from `first` to `last` as sequences of spans of bytes.

    As K. Thompson did it (R. Cox, "Regular Expression Matching in the Wild", 2010): spans are cut where the
    number of bytes changes, then so that all bytes but one are equal or whole.
    """
    found: list[list[Span]] = []
    open_ = [(first, last)]
    while open_:
        a, b = open_.pop()
        if a > b:
            continue
        low, high = SURROGATES
        if a <= high and b >= low:
            open_ += [(high + 1, b), (a, low - 1)]
            continue
        edge = next((edge for edge in (0x7F, 0x7FF, 0xFFFF) if a <= edge < b), None)
        if edge is not None:
            open_ += [(edge + 1, b), (a, edge)]
            continue
        cut = _uneven(a, b)
        if cut is not None:
            open_ += [(cut + 1, b), (a, cut)]
            continue
        found.append([*zip(chr(a).encode(), chr(b).encode(), strict=True)])
    return found


def _uneven(a: int, b: int) -> int | None:
    """Where to cut so that all but one byte of a span are equal or whole; None where it is so."""
    if b <= 0x7F:
        return None
    for bits in (6, 12, 18):
        mask = (1 << bits) - 1
        if a & ~mask != b & ~mask:
            if a & mask:
                return a | mask
            if b & mask != mask:
                return (b & ~mask) - 1
    return None
