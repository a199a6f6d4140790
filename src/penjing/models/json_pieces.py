"""What JSON is made of, as pieces of an automaton: characters, lists, objects; formats of strings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from penjing.models.automaton import Piece, Then, Times, but, either, many, maybe, text, then
from penjing.models.json_numbers import NUMBER

LETTER = but([(0, 31), (34, 34), (92, 92), (127, 127)])  # what stands in a string as it is
CHARACTER = either([LETTER, then(text("\\"), either(map(text, '"\\/bfnrt')))])
STRING = then(text('"'), many(CHARACTER), text('"'))
COMMA, COLON = then(text(","), maybe(text(" "))), then(text(":"), maybe(text(" ")))
_MONTH_DAYS = (
    "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8])"
)
_DATE = f"[1-9][0-9]{{3}}-(?:{_MONTH_DAYS})"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
FORMATS = {
    "date": _DATE,
    "date-time": f"{_DATE}T{_CLOCK}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
    "email": r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)+",
    "uri": r"https?://[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)*(?:/[A-Za-z0-9._~-]*)*",
}


def items_of(lead: Piece, n: int, item: Piece, least: int, most: int | None) -> Piece:
    """`n` leading items and from `least` to `most` others behind them, commas between."""
    if most == 0:
        return lead
    if n:
        return then(lead, Times(then(COMMA, item), least, most))
    some = then(item, Times(then(COMMA, item), max(0, least - 1), None if most is None else most - 1))
    return some if least else maybe(some)


def between(items: Sequence[Piece]) -> Piece:
    """Things with commas between them."""
    return Then(tuple(part for i, item in enumerate(items) for part in ([COMMA, item] if i else [item])))


def in_order(fields: Sequence[tuple[Piece, bool]]) -> Piece:
    """Fields in their order with commas between, those that are not required perhaps left out."""
    first = next((i for i, (_, required) in enumerate(fields) if required), None)
    behind = lambda some: [  # noqa: E731
        then(COMMA, field) if required else maybe(then(COMMA, field)) for field, required in some
    ]
    if first is not None:
        before = [maybe(then(field, COMMA)) for field, _ in fields[:first]]
        return then(*before, fields[first][0], *behind(fields[first + 1 :]))
    lines = [then(field, *behind(fields[i + 1 :])) for i, (field, _) in enumerate(fields)]
    return maybe(either(lines))


def object_of(value: Piece) -> Piece:
    """An object of any names whose values are such."""
    entry = then(STRING, COLON, value)
    return then(text("{"), maybe(then(entry, many(then(COMMA, entry)))), text("}"))


@cache
def anything(deep: int) -> Piece:
    """Any value with at most `deep` containers in one another."""
    simple = [STRING, NUMBER, text("true"), text("false"), text("null")]
    if not deep:
        return either(simple)
    inside = anything(deep - 1)
    array = then(text("["), items_of(Then(()), 0, inside, 0, None), text("]"))
    return either([*simple, array, object_of(inside)])
