"""Texts drawn from a schema's automaton are JSON that jsonschema takes; what cannot be kept to is refused."""

import itertools
import json
import random
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from common import told
from penjing.errors import SpecError
from penjing.models.automaton import DEAD, Machine, machine_of
from penjing.models.json_numbers import integers, numbers
from penjing.models.schemas import FORMATS, piece_of

CHAIN = {
    "$defs": {
        "n": {
            "type": "object",
            "properties": {
                "v": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]},
            },
            "required": ["v", "next"],
        }
    },
    "$ref": "#/$defs/n",
}  # fmt: skip
NULL = {"type": "null"}
LOOP = {"$ref": "#/$defs/a"}
TANGLED = {
    "$ref": "#/$defs/0",
    "$defs": {
        str(n): {"properties": {"x": {"anyOf": [{"$ref": f"#/$defs/{m}"} for m in range(6)]}}}
        for n in range(6)
    },
}  # fmt: skip
KEYED = [
    {"type": "object", "properties": {"k": {"const": k}, "x": {"type": "integer"}}, "required": ["k"]}
    for k in "ab"
]
SCHEMAS: list[Any] = [
    {
        "type": "object",
        "title": "Ticket",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
        "required": ["name", "age"],
    },
    {"properties": {"a": {"maxLength": 9}, "b": {"type": "number"}, "c": {"type": "boolean"}, "d": NULL}},
    *({"type": "string", "format": kind} for kind in FORMATS),
    {"type": "string", "pattern": "^[a-z]{2,4}$"},
    {"type": "string", "pattern": "a+b"},
    {"type": "string", "minLength": 2, "maxLength": 3},
    {"type": "object"},
    {"type": "array"},
    {},
    CHAIN,
    {"enum": ["甲", 'a"b', 1, None, True, {"x": [1, 2]}]},
    {"type": "string", "enum": ["a", 1]},
    {"const": "x\ny"},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": KEYED},
    {"allOf": [{"type": "integer"}, {"minimum": 3}]},
    {"allOf": [{"$ref": "#/$defs/a"}], "required": ["z"], "$defs": {"a": {"properties": {"y": NULL}}}},
    {"type": ["integer", "null"]},
    {"type": "integer", "minimum": -17, "exclusiveMaximum": 105},
    {"type": "number", "minimum": -3, "maximum": 120},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "null"}},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "required": ["z"], "properties": {"a": False}},
]  # fmt: skip


def drawn(machine: Machine, rng: random.Random, *, most: int = 60) -> str:
    """A text that the automaton takes: bytes at random, and after `most` of them the shortest way out."""
    far = np.where(machine.ends, 0, 1 << 20)
    while True:
        nearer = np.minimum(far, 1 + far[machine.table].min(1))
        nearer[DEAD] = 1 << 20
        if (nearer == far).all():
            break
        far = nearer
    state, said = machine.start, bytearray()
    while not (
        machine.ends[state]
        and (len(said) > most or rng.random() < 0.2 or far[machine.table[state]].min() > 1e5)
    ):
        ways = np.flatnonzero(machine.table[state])
        if len(said) > most:
            ways = ways[far[machine.table[state, ways]] < far[state]]
        low = ways[ways < 128]
        byte = rng.choice((low if len(low) and rng.random() < 0.9 else ways).tolist())
        said.append(byte)
        state = int(machine.table[state, byte])
    return said.decode()  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
@pytest.mark.slow
def test_whatever_can_be_said_is_json_that_the_schema_takes(schema: Any) -> None:
    machine, rng = machine_of(piece_of(schema)), random.Random(0)
    judge = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    texts = {drawn(machine, rng) for _ in range(60)}
    for text in texts:
        judge.validate(json.loads(text))


@pytest.mark.parametrize(
    ("schema", "taken", "refused"),
    [
        (SCHEMAS[0], ['{"name":"我","age":7}', '{"name": "", "age": 0, "tags": ["a", "b"]}'], ['{"age":7}']),
        (SCHEMAS[1], ["{}", '{"a":"x","c":true}', '{"b":-0.5,"d":null}'], ['{"c":true,"a":"x"}']),
        (CHAIN, ['{"v":1,"next":{"v":2,"next":null}}'], ['{"v":1}']),
        ({"type": "object"}, ['{"a":{"b":[1,"x"]}}'], ["[]"]),
    ],
)  # fmt: skip
def test_what_people_write_can_be_said(schema: Any, taken: list[str], refused: list[str]) -> None:
    machine = machine_of(piece_of(schema))
    assert [*filter(machine.takes, taken)] == taken
    assert not any(map(machine.takes, refused))


BOUNDS = [(0, 0), (5, 1234), (-120, 45), (99, 101), (-9, -9), (1000, 2005), (7, None), (None, -3), (3, 2)]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_numbers_keep_within_their_bounds(bounds: tuple[int | None, int | None]) -> None:
    low, high = bounds
    whole, pointed = machine_of(integers(low, high)), machine_of(numbers(low, high))
    within = lambda x: (low is None or x >= low) and (high is None or x <= high)  # noqa: E731
    for x in range(-1300, 2300):
        assert whole.takes(str(x)) == pointed.takes(str(x)) == within(x)
        assert pointed.takes(f"{x}.50") == within(float(f"{x}.5")) or x == 0
        assert not pointed.takes(f"{x}.")
    assert not whole.takes("00")


@pytest.mark.parametrize(
    "pattern", ["a$|b", "a|^b", "^a|b", "^a$|^b$", "^(?:a|b$)", r"a\Z|\Ab", "^a", "b$", "a|b", "^ab$"]
)
def test_an_anchor_holds_for_its_own_alternative(pattern: str) -> None:
    machine = machine_of(piece_of({"type": "string", "pattern": pattern}))
    for text in map("".join, itertools.product("abx", repeat=3)):
        for one in (text, text[:2], text[:1]):
            assert machine.takes(json.dumps(one)) == bool(re.search(pattern, one)), one


@pytest.mark.parametrize(
    ("schema", "parts"),
    [
        ({"type": "array", "uniqueItems": True}, ["`/uniqueItems` is True", "cannot be watched"]),
        ({"properties": {"a": {"not": {}}}}, ["`/properties/a/not`", "docs/forms.md"]),
        ({"type": "strin"}, ["`/type` is 'strin'", "Did you mean `string`?"]),
        ({"type": "string", "maxlength": 3}, ["`/maxlength` is 3", "Did you mean `maxLength`?"]),
        ({"type": "number", "minimum": 0.5}, ["`/minimum` is 0.5", "by whole ones only"]),
        ({"type": "number", "exclusiveMinimum": 0}, ["`/exclusiveMinimum`", "Use `minimum`"]),
        ({"type": "integer", "multipleOf": 5}, ["`/multipleOf` is 5", "`enum`"]),
        ({"type": "string", "pattern": ".*"}, ["`/pattern` is '.*'", "might say a quote"]),
        ({"type": "string", "pattern": "a", "maxLength": 3}, ["say all in one `pattern`"]),
        ({"type": "string", "pattern": "(a)\\1"}, ["`/pattern` must be a pattern that can be followed"]),
        ({"type": "string", "format": "dates"}, ["Did you mean `date`?"]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ["`/oneOf`", "use `anyOf`"]),
        ({"anyOf": [{}], "type": "object"}, ["`/type`", "stands beside `anyOf`"]),
        ({"allOf": [LOOP], "$defs": {"a": LOOP}}, ["`/$ref` is '#/$defs/a'", "leads back to itself"]),
        (TANGLED, ["at most 10,000 values", "seen at /properties/", "Let fewer of them"]),
        ({"$ref": "other.json"}, ["`/$ref` is 'other.json'", "a place of this schema"]),
        ({"enum": [1], "type": "string"}, ["None of its values is of the type"]),
        ({"type": "string", "minLength": -1}, ["`/minLength` is -1", "at least 0"]),
        ("object", ["A JSON schema is an object or a boolean"]),
    ],
)
def test_what_cannot_be_kept_to_is_refused_by_name(schema: Any, parts: list[str]) -> None:
    with pytest.raises(SpecError) as error:
        piece_of(schema)
    told(error, *parts)
