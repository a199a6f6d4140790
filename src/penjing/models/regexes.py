"""Regular expressions, as Python's `re` reads them, as pieces of an automaton.

The pattern is parsed by Python itself, so what `re.fullmatch` takes is what can be said; what no finite
automaton can follow (what a group matched before, looking ahead) is refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from penjing.errors import SpecError
from penjing.models.automaton import NOTHING, Chars, Piece, Span, Then, Times, but, either

MANY = 10_000  # repetitions before a pattern is refused


def piece_of(pattern: str, *, key: str = "regex", around: Piece = NOTHING) -> Piece:
    """What a regular expression matches as a whole. `around` may stand where no anchor (`^`, `$`) says that
    the text begins or ends there.

    Raises:
        SpecError: it is none, or asks for what a finite automaton cannot follow; `key` says where it stands.
    """
    from re import _parser  # type: ignore[attr-defined]  # the only way to see a pattern as Python does

    try:
        re.compile(pattern)
        parsed = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SpecError(
            f"`{key}` must be a regular expression; {pattern[:80]!r} is none: {error}. Escape what "
            "stands for itself with a backslash."
        ) from error
    return _Reader(pattern, key, around).whole(parsed, parsed.state.flags)


class _Reader:
    """Walks what Python parsed; knows the pattern to name it."""

    def __init__(self, pattern: str, key: str, around: Piece) -> None:
        self.pattern, self.key, self.around = pattern, key, around

    def whole(self, parsed: Any, flags: int, *, begun: bool = False, ended: bool = False) -> Piece:
        """The top, or one of its alternatives: `^` and `$` at its ends leave no room for anything around."""
        items = [(str(op), given) for op, given in parsed]
        while items and items[0][0] == "AT" and str(items[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            items, begun = items[1:], True
        while items and items[-1][0] == "AT" and str(items[-1][1]) in ("AT_END", "AT_END_STRING"):
            items, ended = items[:-1], True
        if len(items) == 1 and items[0][0] == "BRANCH":
            return either(self.whole(one, flags, begun=begun, ended=ended) for one in items[0][1][1])
        before, behind = (() if there else (self.around,) for there in (begun, ended))
        return Then((*before, *(self.one(op, given, flags) for op, given in items), *behind))

    def inner(self, parsed: Any, flags: int) -> Piece:
        return Then(tuple(self.one(str(op), given, flags) for op, given in parsed))

    def one(self, op: str, given: Any, flags: int) -> Piece:
        if op in ("LITERAL", "NOT_LITERAL", "IN"):
            return self.characters(op, given, flags)
        if op == "ANY":
            return but([] if flags & re.DOTALL else [(10, 10)])
        if op == "BRANCH":
            return either(self.inner(branch, flags) for branch in given[1])
        if op == "SUBPATTERN":
            _, more, less, inside = given
            return self.inner(inside, (flags | more) & ~less)
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inside = given
            endless = str(most) == "MAXREPEAT"
            if max(least, 0 if endless else most) > MANY:
                raise self.refused(f"{most if not endless else least} repetitions", f"Take at most {MANY:,}.")
            return Times(self.inner(inside, flags), int(least), None if endless else int(most))
        known = {
            "AT": "an edge (`^`, `$`, `\\b`) in its middle",
            "ASSERT": "looking ahead or back",
            "ASSERT_NOT": "looking ahead or back",
            "GROUPREF": "what a group matched before",
            "GROUPREF_EXISTS": "a choice by what a group matched",
            "POSSESSIVE_REPEAT": "a possessive repetition",
            "ATOMIC_GROUP": "an atomic group",
            "FAILURE": "a group that never matches",
        }
        raise self.refused(known.get(op, op), "Write the pattern without it.")

    def refused(self, found: str, advice: str) -> SpecError:
        return SpecError(
            f"`{self.key}` must be a pattern that can be followed a character at a time; "
            f"{self.pattern[:80]!r} has {found}. {advice}"
        )

    def characters(self, op: str, given: Any, flags: int) -> Piece:
        if op == "IN":
            negated = str(given[0][0]) == "NEGATE"
            spans = [span for kind, one in given for span in self.spans(str(kind), one, flags)]
        else:
            negated, spans = op == "NOT_LITERAL", self.spans("LITERAL", given, flags)
        if negated:
            return but(spans)
        return Chars(tuple(spans)) if spans else NOTHING

    def spans(self, kind: str, one: Any, flags: int) -> list[Span]:
        if kind == "NEGATE":
            return []
        if kind == "CATEGORY":
            return [*category(str(one), bool(flags & re.ASCII))]
        first, last = one if kind == "RANGE" else (one, one)
        if not flags & re.IGNORECASE:
            return [(first, last)]
        if last - first > 255 or (kind == "RANGE" and last > 127):
            raise self.refused(
                "a wide span of characters beside `(?i)`", "Write both cases out, without `(?i)`."
            )
        either_case = {x for c in range(first, last + 1) for x in (chr(c).lower(), chr(c).upper(), chr(c))}
        return [(ord(x), ord(x)) for x in either_case if len(x) == 1]


@cache
def category(name: str, ascii_only: bool) -> tuple[Span, ...]:
    """The characters of `\\d`, `\\w`, `\\s` and their opposites, as Python has them."""
    kind = name.removeprefix("CATEGORY_").removeprefix("UNI_").removeprefix("LOC_")
    if kind.startswith("NOT_"):
        return but(category(kind.removeprefix("NOT_"), ascii_only)).spans
    is_one: Callable[[str], bool] = {
        "DIGIT": str.isdecimal,
        "SPACE": str.isspace,
        "WORD": lambda c: c.isalnum() or c == "_",
    }[kind]
    if ascii_only:
        return _runs([c for c in range(128) if is_one(chr(c)) and not (kind == "SPACE" and 28 <= c <= 31)])
    return _runs([c for c in range(sys.maxunicode + 1) if is_one(chr(c))])


def _runs(points: list[int]) -> tuple[Span, ...]:
    """Neighbours as spans."""
    spans: list[Span] = []
    for point in points:
        if spans and spans[-1][1] == point - 1:
            spans[-1] = (spans[-1][0], point)
        else:
            spans.append((point, point))
    return tuple(spans)
