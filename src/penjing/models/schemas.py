"""JSON schemas as pieces of an automaton: every text that can be said is JSON that the schema takes.

What a finite automaton cannot watch over (`uniqueItems`, `not`, …) is refused by name, never left out. Where
the schema leaves something open, less is said than it would take: properties come in their order and none
beyond those named, numbers have no exponent and at most 15 digits on either side of the point, between two
things stands at most one space, and what holds itself (`$ref` to itself, anything at all) goes two levels
deep. Formats are those of JSON Schema 2020-12.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from penjing.errors import SpecError, nearest
from penjing.models import regexes
from penjing.models.automaton import NEVER, Piece, Times, either, machine_of, many, text, then
from penjing.models.json_numbers import integers, numbers
from penjing.models.json_pieces import (
    CHARACTER,
    COLON,
    FORMATS,
    LETTER,
    anything,
    between,
    in_order,
    items_of,
    object_of,
)

DEEP = 2  # how often a definition stands within itself, and containers within anything
MOST = 10_000  # values before a schema is refused: definitions that hold each other grow as powers do
_ABOUT = """title description default examples $schema $id $anchor $comment $defs definitions deprecated
readOnly writeOnly discriminator"""
ABOUT = frozenset(_ABOUT.split())  # what restricts nothing
OF_TYPES = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "boolean": (),
    "null": (),
}
KNOWN = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", *sum(OF_TYPES.values(), ())}


def piece_of(schema: Any) -> Piece:
    """JSON texts that a schema takes.

    Raises:
        SpecError: no schema, or one with a keyword that cannot be kept to; the text says where.
    """
    return _Reader(schema).value(schema, "", ())


@dataclass(frozen=True)
class _Reader:
    root: Any
    number: Iterator[int] = field(default_factory=count)  # of values so far

    def value(self, schema: Any, at: str, within: tuple[str, ...]) -> Piece:
        """Texts of one value. at: where the schema stands; within: the references that led here."""
        if next(self.number) == MOST:
            raise SpecError(
                f"A schema with at most {MOST:,} values within values was wanted; its definitions stand "
                f"within each other in more ways than that (seen at {at or 'the top'}). Let fewer of them "
                "hold each other."
            )
        if schema is True or schema == {}:
            return anything(DEEP)
        if schema is False:
            return NEVER
        if not isinstance(schema, Mapping):
            raise SpecError(
                f"A JSON schema is an object or a boolean; {at or 'the schema'} is {str(schema)[:60]!r}. "
                'Give such as {"type": "object", "properties": {…}}.'
            )
        for key in schema:
            if key not in KNOWN and key not in ABOUT:
                raise _refused(at, key, schema[key], nearest(key, KNOWN))
        told = {key: given for key, given in schema.items() if key not in ABOUT}
        for key in ("$ref", "allOf", "anyOf", "oneOf"):
            if key in told:
                return self.combined(key, told, at, within)
        if "enum" in told or "const" in told:
            return _listed(told, at)
        return either(self.typed(kind, told, at, within) for kind in types_of(told, at))

    def combined(self, key: str, told: dict[str, Any], at: str, within: tuple[str, ...]) -> Piece:
        if len(told) > 1:
            if key != "allOf" and "allOf" not in told:
                other = next(one for one in told if one != key)
                raise _refused(at, other, told[other], f" It stands beside `{key}`; put it inside.")
            rest = {one: given for one, given in told.items() if one != "allOf"}
            return self.value(self.merged([*told["allOf"], rest], at), at, within)
        given = told[key]
        if key == "$ref":
            if within.count(given) == DEEP:
                return NEVER
            return self.value(self.found(given, at), at, (*within, given))
        if not isinstance(given, Sequence) or not given:
            raise _refused(at, key, given, " It must be a list of schemas.")
        if key == "allOf":
            return self.value(self.merged(given, at), at, within)
        if key == "oneOf":
            self.check_apart(given, at)
        return either(self.value(one, f"{at}/{key}/{i}", within) for i, one in enumerate(given))

    def found(self, pointer: Any, at: str) -> Any:
        """What a reference such as `#/$defs/item` means."""
        here = self.root
        parts = str(pointer).split("/")
        for part in parts[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            here = here.get(name) if isinstance(here, Mapping) else None
        if parts[0] != "#" or here is None:
            raise _refused(
                at, "$ref", pointer, " It must lead to a place of this schema, such as `#/$defs/item`."
            )
        return here

    def merged(self, schemas: Sequence[Any], at: str) -> dict[str, Any]:
        """Several schemas that all hold, as one."""
        whole: dict[str, Any] = {}
        for one in schemas:
            passed: list[Any] = []
            while isinstance(one, Mapping) and set(one) - ABOUT == {"$ref"}:
                if one["$ref"] in passed:
                    raise _refused(at, "$ref", one["$ref"], " It leads back to itself.")
                passed.append(one["$ref"])
                one = self.found(one["$ref"], at)
            for key, given in (one if isinstance(one, Mapping) else {}).items():
                if key in ABOUT or key not in whole or whole[key] == given:
                    whole[key] = given
                elif key == "required":
                    whole[key] = [*dict.fromkeys([*whole[key], *given])]
                elif key == "properties" and not (whole[key].keys() & given.keys()):
                    whole[key] = {**whole[key], **given}
                else:
                    raise _refused(at, "allOf", given, f" Two of its schemas say `{key}`; write them as one.")
        return whole

    def check_apart(self, schemas: Sequence[Any], at: str) -> None:
        """No value may fit two schemas of a `oneOf`: they differ by type, by listed values, or by such values
        of a property that both require."""
        for i, one in enumerate(schemas):
            for other in schemas[:i]:
                if not self.apart(one, other, at):
                    raise _refused(
                        at, "oneOf", one, " A value might fit two of its schemas; use `anyOf`, or give each "
                        "a required property with a `const` of its own.",
                    )  # fmt: skip

    def apart(self, one: Any, other: Any, at: str) -> bool:
        both = [self.merged([schema], at) for schema in (one, other)]
        kinds = [{kind.replace("integer", "number") for kind in types_of(schema, at)} for schema in both]
        if not kinds[0] & kinds[1]:
            return True
        listed = [_values(schema) for schema in both]
        if listed[0] and listed[1]:
            return not set(listed[0]) & set(listed[1])
        if kinds[0] == kinds[1] == {"object"}:
            for name in set(both[0].get("required", ())) & set(both[1].get("required", ())):
                values = [
                    _values(self.merged([schema.get("properties", {}).get(name, {})], at)) for schema in both
                ]
                if values[0] and values[1] and not set(values[0]) & set(values[1]):
                    return True
        return False

    def typed(self, kind: str, told: Mapping[str, Any], at: str, within: tuple[str, ...]) -> Piece:
        if kind == "object":
            return self.object(told, at, within)
        if kind == "array":
            return self.array(told, at, within)
        if kind == "string":
            return _string(told, at)
        if kind in ("integer", "number"):
            return _number(kind, told, at)
        return either([text("true"), text("false")]) if kind == "boolean" else text("null")

    def object(self, told: Mapping[str, Any], at: str, within: tuple[str, ...]) -> Piece:
        named, more = dict(told.get("properties", {})), told.get("additionalProperties", True)
        required = told.get("required", [])
        for name in required:
            named.setdefault(name, more)
        if not named:
            if more is False:
                return text("{}")
            return object_of(self.value(more, f"{at}/additionalProperties", within))
        fields = [
            (
                then(
                    text(json.dumps(name, ensure_ascii=False)),
                    COLON,
                    self.value(one, f"{at}/properties/{name}", within),
                ),
                name in required,
            )
            for name, one in named.items()
        ]
        return then(text("{"), in_order(fields), text("}"))

    def array(self, told: Mapping[str, Any], at: str, within: tuple[str, ...]) -> Piece:
        least, most = _count(told, "minItems", at) or 0, _count(told, "maxItems", at)
        if told.get("uniqueItems") and (most is None or most > 1):
            raise _refused(at, "uniqueItems", True, " What was said before cannot be watched.")
        first = [
            self.value(one, f"{at}/prefixItems/{i}", within)
            for i, one in enumerate(told.get("prefixItems", ()))
        ]
        item = self.value(told.get("items", True), f"{at}/items", within) if most != len(first) else NEVER
        lines = []  # of each number of leading items that may be all there is
        for n in range(len(first) + 1):
            if (most is not None and n > most) or (n < len(first) and n < least):
                continue
            lead = between(first[:n])
            if n < len(first):
                lines.append(lead)
                continue
            least_more, most_more = max(0, least - n), None if most is None else most - n
            lines.append(items_of(lead, n, item, least_more, most_more))
        return then(text("["), either(lines), text("]"))


def types_of(told: Mapping[str, Any], at: str) -> list[str]:
    """The types that a schema names, or that its other keywords are about; all where none says."""
    given = told.get("type")
    if given is None:
        about = [
            kind for kind, keys in OF_TYPES.items() if kind != "integer" and any(k in told for k in keys)
        ]
        return about or ["object", "array", "string", "number", "boolean", "null"]
    found = [given] if isinstance(given, str) else list(given)
    for kind in found:
        if kind not in OF_TYPES:
            raise _refused(at, "type", kind, nearest(str(kind), OF_TYPES))
    return found


def _values(told: Mapping[str, Any]) -> list[str]:
    values = [told["const"]] if "const" in told else told.get("enum", [])
    return [json.dumps(value, ensure_ascii=False) for value in values]


def _listed(told: dict[str, Any], at: str) -> Piece:
    """One of the values of `enum` or `const`."""
    other = next((key for key in told if key not in ("enum", "const", "type")), None)
    if other is not None:
        raise _refused(at, other, told[other], " It stands beside listed values; leave one of the two out.")
    kinds = types_of(told, at) if "type" in told else None
    values = [told["const"]] if "const" in told else told["enum"]
    kept = [value for value in values if kinds is None or _kind(value) & set(kinds)]
    if not kept:
        raise _refused(at, "enum", values, " None of its values is of the type that is asked for.")
    return either(text(json.dumps(value, ensure_ascii=False)) for value in kept)


def _kind(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if float(value).is_integer() else {"number"}
    kinds = {str: "string", type(None): "null", list: "array", dict: "object"}
    return {kinds[type(value)]}


def _string(told: Mapping[str, Any], at: str) -> Piece:
    least, most = _count(told, "minLength", at), _count(told, "maxLength", at)
    pattern, kind = told.get("pattern"), told.get("format")
    if kind is not None and kind not in FORMATS:
        raise _refused(at, "format", kind, nearest(str(kind), FORMATS) or f" Known: {', '.join(FORMATS)}.")
    given = [key for key in ("pattern", "format") if told.get(key) is not None]
    if len(given) + (least is not None or most is not None) > 1:
        raise _refused(
            at, given[0], told[given[0]], " Beside it stands another bound of the string; say all in one "
            "`pattern`.",
        )  # fmt: skip
    if kind is not None:
        inside = regexes.piece_of(FORMATS[kind])
    elif pattern is not None:
        inside = _searched(str(pattern), at)
    else:
        inside = Times(CHARACTER, least or 0, most)
    return then(text('"'), inside, text('"'))


def _searched(pattern: str, at: str) -> Piece:
    """Texts that hold what the pattern matches, as `pattern` means it: anchored only where it says so."""
    key = f"{at}/pattern"
    table = machine_of(regexes.piece_of(pattern, key=key)).table
    if any((table[:, byte] > 0).any() for byte in (*range(32), 34, 92, 127)):
        raise _refused(
            at, "pattern", pattern, " It might say a quote, a backslash or a control character; take "
            '`[^"\\\\]` in place of a dot, or letters.',
        )  # fmt: skip
    return regexes.piece_of(pattern, key=key, around=many(LETTER))


def _count(told: Mapping[str, Any], key: str, at: str) -> int | None:
    given = told.get(key)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise _refused(at, key, given, " It must be a whole number of at least 0.")
    return given


def _number(kind: str, told: Mapping[str, Any], at: str) -> Piece:
    step = told.get("multipleOf", 1 if kind == "integer" else None)
    if step not in ((1, None) if kind == "integer" else (None,)):
        raise _refused(at, "multipleOf", step, " Multiples cannot be counted; list them by `enum`.")
    bounds: list[int | None] = []
    for key, sign in (("minimum", 1), ("maximum", -1)):
        tight = "exclusive" + key.capitalize()
        for one in (key, tight):
            if isinstance(told.get(one), bool) or not isinstance(told.get(one, 0), int | float):
                raise _refused(at, one, told[one], " It must be a number.")
        found = []
        if key in told:
            found.append(sign * math.ceil(sign * told[key]))
            if kind == "number" and found[0] != told[key]:
                raise _refused(at, key, told[key], " Numbers with a point can be bounded by whole ones only.")
        if tight in told:
            if kind == "number":
                raise _refused(at, tight, told[tight], f" Use `{key}`.")
            found.append(sign * (math.floor(sign * told[tight]) + 1))
        bounds.append(sign * max(sign * one for one in found) if found else None)
    return (integers if kind == "integer" else numbers)(*bounds)


def _refused(at: str, key: str, given: Any, more: str) -> SpecError:
    place = f"{at}/{key}" if at else f"/{key}"
    return SpecError(
        f"Answers were to keep to a JSON schema; `{place}` is {given!r:.60}, which cannot be kept to."
        f"{more or ' Leave it out, or say it by other keywords (docs/forms.md lists them).'}"
    )
