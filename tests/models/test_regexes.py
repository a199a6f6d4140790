"""A pattern means what Python's `re.fullmatch` says it means."""

import itertools
import re

import pytest

from common import told
from penjing.errors import SpecError
from penjing.models.automaton import machine_of
from penjing.models.regexes import category, piece_of

PATTERNS = [
    "a|ab", "(?:a|ab)c?", "a??b?", "a*?", "[^b]{1,2}", "(?i)aB[c-e]", "^ab$|^c$", "x{0,3}y+", "(é|你好)*x",
    r"\Aa.\Z", r"[a-c-]+", "(?P<n>a)(b)?", "(?i:A)b", "[^a-c]", r"\x61\u00e9", "a{2}", "(?s)a.", "a.", "",
    "()|b",
    r"(?x) a b # so", r"[\d-]+\s?", r"(?a:\w)\W",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_takes_what_python_matches(pattern: str) -> None:
    machine = machine_of(piece_of(pattern))
    for n in range(4):
        for one in map("".join, itertools.product("abcAxy1- \né你好", repeat=n)):
            assert machine.takes(one) == bool(re.fullmatch(pattern, one)), one


@pytest.mark.parametrize("kind", ["DIGIT", "WORD", "SPACE"])
def test_kinds_of_characters_are_pythons(kind: str) -> None:
    pattern = re.compile({"DIGIT": r"\d", "WORD": r"\w", "SPACE": r"\s"}[kind])
    points = [c for c in range(0, 0x11000) if not 0xD800 <= c <= 0xDFFF]
    spans = category(f"CATEGORY_{kind}", False)
    assert {c for a, b in spans for c in range(a, b + 1)} & {*points} == {
        c for c in points if pattern.match(chr(c))
    }


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("(?=a)b", "looking ahead"),
        (r"(a)\1", "what a group matched before"),
        ("a^b", "an edge"),
        (r"\ba", "an edge"),
        ("a++", "a possessive repetition"),
        ("(?>a)", "an atomic group"),
        ("a{20000}", "20000 repetitions"),
        ("(?i)[Ā-ſ]", "a wide span"),
    ],
)
def test_what_no_automaton_can_follow_is_refused(pattern: str, found: str) -> None:
    with pytest.raises(SpecError) as error:
        piece_of(pattern, key="form.regex")
    told(error, "`form.regex` must be a pattern that can be followed", repr(pattern), found)


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        piece_of("[a")
    told(error, "`regex` must be a regular expression", "'[a'", "Escape")
