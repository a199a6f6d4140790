"""Numbers between bounds as pieces of an automaton: digits, by where they may stand."""

from __future__ import annotations

from penjing.models.automaton import NEVER, Chars, Piece, Times, either, many, maybe, text, then

DIGITS = 15  # before the point, and behind it: what a double holds
MOST = 10**DIGITS - 1
DIGIT = Chars(((48, 57),))
FRACTION = maybe(then(text("."), Times(DIGIT, 1, DIGITS)))
NUMBER = then(  # any; without counting digits it takes few states
    maybe(text("-")),
    either([text("0"), then(Chars(((49, 57),)), many(DIGIT))]),
    maybe(then(text("."), DIGIT, many(DIGIT))),
)
ZEROS = maybe(then(text("."), Times(text("0"), 1, DIGITS)))


def integers(least: int | None, most: int | None) -> Piece:
    """Whole numbers from `least` to `most`, of 15 digits where a bound is None."""
    low, high = -MOST if least is None else least, MOST if most is None else most
    parts = []
    if low < 0 and low <= high:
        parts.append(then(text("-"), _whole(max(1, -high), -low)))
    if high >= 0 and low <= high:
        parts.append(_whole(max(0, low), high))
    return either(parts) if parts else NEVER


def numbers(least: int | None, most: int | None) -> Piece:
    """Numbers from `least` to `most`, of 15 digits on each side of the point where a bound is None."""
    low, high = -MOST if least is None else least, MOST if most is None else most
    parts = []
    if low < 0 and low <= high:
        parts.append(then(text("-"), _pointed(max(0, -high), -low)))
    if high >= 0 and low <= high:
        parts.append(_pointed(max(0, low), high))
    return either(parts) if parts else NEVER


def _pointed(low: int, high: int) -> Piece:
    """Numbers of 0 or more, whose fraction is free below `high`."""
    last = then(text(str(high)), ZEROS)
    return last if low == high else either([then(_whole(low, high - 1), FRACTION), last])


def _whole(low: int, high: int) -> Piece:
    """Whole numbers of 0 or more, without leading zeros."""
    parts = []
    for size in range(len(str(low)), len(str(high)) + 1):
        first, last = max(low, 10 ** (size - 1) if size > 1 else 0), min(high, 10**size - 1)
        parts.append(_of_size(str(first), str(last)))
    return either(parts)


def _of_size(first: str, last: str) -> Piece:
    """Digits from `first` to `last`, which are as many."""
    n = len(first) - 1
    if first == "0" * (n + 1) and last == "9" * (n + 1):
        return Times(DIGIT, n + 1, n + 1)
    if not n:
        return Chars(((ord(first), ord(last)),))
    if first[0] == last[0]:
        return then(text(first[0]), _of_size(first[1:], last[1:]))
    parts, low, high = [], int(first[0]), int(last[0])
    if first[1:] != "0" * n:
        parts.append(then(text(first[0]), _of_size(first[1:], "9" * n)))
        low += 1
    if last[1:] != "9" * n:
        parts.append(then(text(last[0]), _of_size("0" * n, last[1:])))
        high -= 1
    if low <= high:
        parts.append(then(Chars(((48 + low, 48 + high),)), Times(DIGIT, n, n)))
    return either(parts)
