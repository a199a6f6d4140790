"""What a source is like: counted in one sweep there, sign by sign here."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from penjing.corpus.diversity import _STOP, diversity, top_words

PROSE = 'the harbour was quiet, and the "Boats" lay along the harbour wall; boats (wooden boats) lay still. '
CHINESE = "清晨的港口十分安静，夜里回来的渔船沿着堤岸停靠。港口 渔船 harbour渔船 安静的港口"


def words_by_sign(text: str) -> Iterator[str]:
    for piece in text.split():
        if piece.isascii():
            word = piece.strip(".,;:!?\"'()[]{}<>-")
            if len(word) > 2 and word.isalpha():
                yield word
        else:
            for one, two in itertools.pairwise(piece):
                if all("\u3400" <= sign <= "\u9fff" and sign not in _STOP for sign in one + two):
                    yield one + two


@pytest.mark.parametrize("text", [PROSE, CHINESE, PROSE + CHINESE * 2, "", "的 the"])
def test_frequent_words_are_those_counted_sign_by_sign(text: str) -> None:
    rng = random.Random(0)
    pieces = text.split(" ")
    texts = [text, *(" ".join(rng.choices(pieces, k=40)) for _ in range(5))]
    counts = Counter(word for one in texts for word in words_by_sign(one.lower()) if word not in _STOP)
    found = top_words(texts)
    assert len(found) == min(12, len(counts))
    assert [counts[word] for word in found] == sorted(counts.values(), reverse=True)[:12]


def test_numbers_of_a_small_text_are_those_worked_out_by_hand() -> None:
    found = diversity(["a b a b", "c c c c c c"])
    assert (found["units"], found["vocabulary"]) == (10, 3)
    assert found["entropy_1"] == 1.371  # of shares .2, .2 and .6
    assert found["repeated"] == 1.0  # the second text has one 5-gram, twice; the first has none
    assert diversity([])["entropy_1"] == 0.0
