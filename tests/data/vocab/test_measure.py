"""Fertility by hand, unknown share, groups."""

from typing import Any

import pytest

from penjing.data.vocab.learn import learn
from penjing.data.vocab.measure import language_of, measure
from penjing.data.vocab.settings import settled


def characters(text: str) -> Any:
    return learn(lambda: [text], settled(kind="char")).tokenizer


def test_figures_are_those_counted_by_hand() -> None:
    texts = [("a.txt", "ab cd!\n\nabba\n"), ("b.txt", "密码")]
    found = measure({"one": characters("abcd! 码")}, texts)["one"]
    every = found.at("all", "").plain()
    # ab, cd, abba, 密码 are words; 6 + 4 + 2 characters, each a token; 密 is unknown; 10 + 6 bytes
    assert (every["lines"], every["tokens"]) == (3, 12)
    assert every["tokens_a_word"] == pytest.approx(12 / 4)
    assert every["tokens_a_character"] == 1
    assert every["bytes_a_token"] == pytest.approx(16 / 12)
    assert every["unknown_share"] == pytest.approx(1 / 12)
    assert every["exact_share"] == pytest.approx(2 / 3)
    assert found.at("language", "zh").tokens == found.at("source", "b.txt").tokens == 2


def test_a_line_is_of_the_language_of_its_letters() -> None:
    assert [language_of(line) for line in ("hello 字", "这是GPT", "привет", "café", "12 !")] == [
        "latin",
        "zh",
        "other",
        "latin",
        "latin",
    ]
