"""An automaton takes the texts that its pieces are, each character in as many bytes as UTF-8 gives it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import told
from penjing.errors import SpecError
from penjing.models.automaton import (
    DEAD,
    LAST,
    NEVER,
    SURROGATES,
    Chars,
    Times,
    but,
    either,
    machine_of,
    many,
    maybe,
    text,
    then,
    utf8,
)

points = st.integers(0, LAST).filter(lambda c: not SURROGATES[0] <= c <= SURROGATES[1])


def test_pieces_are_what_they_say() -> None:
    machine = machine_of(then(text("ab"), maybe(text("c")), either([text("d"), many(text("é"))])))
    taken = {
        w for n in range(6) for w in map("".join, itertools.product("abcdé", repeat=n)) if machine.takes(w)
    }
    assert taken == {"ab", "abc", "abd", "abcd", "abé", "abcé", "abéé", "abcéé", "abééé"}
    assert [machine_of(Times(text("x"), 2, 4)).takes("x" * n) for n in range(6)] == [0, 0, 1, 1, 1, 0]


@given(points, points, points)
def test_spans_of_characters_hold_exactly_theirs(a: int, b: int, c: int) -> None:
    low, high = sorted((a, b))
    machine = machine_of(Chars(((low, high),)))
    for point in {a, b, c, max(0, low - 1), min(LAST, high + 1)}:
        if not SURROGATES[0] <= point <= SURROGATES[1]:
            assert machine.takes(chr(point)) == (low <= point <= high)
    machine = machine_of(but([(low, high)]))
    assert machine.takes(chr(c)) != (low <= c <= high)


def test_all_characters_are_the_table_of_the_unicode_standard() -> None:
    """Table 3-7, well-formed UTF-8 byte sequences."""
    wanted = [
        [(0x00, 0x7F)],
        [(0xC2, 0xDF), (0x80, 0xBF)],
        [(0xE0, 0xE0), (0xA0, 0xBF), (0x80, 0xBF)],
        [(0xE1, 0xEC), (0x80, 0xBF), (0x80, 0xBF)],
        [(0xED, 0xED), (0x80, 0x9F), (0x80, 0xBF)],
        [(0xEE, 0xEF), (0x80, 0xBF), (0x80, 0xBF)],
        [(0xF0, 0xF0), (0x90, 0xBF), (0x80, 0xBF), (0x80, 0xBF)],
        [(0xF1, 0xF3), (0x80, 0xBF), (0x80, 0xBF), (0x80, 0xBF)],
        [(0xF4, 0xF4), (0x80, 0x8F), (0x80, 0xBF), (0x80, 0xBF)],
    ]
    assert utf8(0, LAST) == wanted


def test_states_that_lead_nowhere_are_left_out() -> None:
    machine = machine_of(either([text("ab"), then(text("ac"), NEVER)]))
    assert machine.after(b"ac") == DEAD
    assert machine_of(then(text("a"), NEVER)).start == DEAD


@pytest.mark.slow
def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        machine_of(Times(Times(text("abc"), 0, 3000), 0, 3000))
    told(error, "more than 60,000 states", "Lower those numbers")


@pytest.mark.slow
def test_what_takes_too_long_is_refused_however_few_its_states_are() -> None:
    with pytest.raises(SpecError) as error:
        machine_of(Times(maybe(text("a")), 3000, 3000))
    told(error, "or as much work")


def test_nothing_repeated_without_end_is_refused() -> None:
    empty = Times(Times(Times(then(), 9000, 9000), 9000, 9000), 9000, 9000)
    with pytest.raises(SpecError) as error:
        machine_of(empty)
    told(error, "or as much work", "a repetition")
