"""Shared runs with test sets are found wherever they stand, whole short tests too, and nothing else is."""

import numpy as np

from penjing.corpus.contamination import against, contaminated
from penjing.corpus.units import chunk

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def found(texts: list[str], tests: list[str], n: int = 13) -> list[bool]:
    return [bool(x) for x in contaminated(chunk(texts), against(tests, n=n))]


def test_a_run_of_thirteen_words_is_enough_and_twelve_are_not() -> None:
    words = LONG.split()
    thirteen, twelve = " ".join(words[:13]), " ".join(words[:12])
    assert found([f"Before. {thirteen.upper()}! After.", f"Before {twelve} after"], [LONG]) == [True, False]


def test_a_shorter_test_counts_as_a_whole() -> None:
    assert found(
        ["so where is my parcel now please tell", "where is my parcel"], ["Where is my parcel now, please?"]
    ) == [
        True,
        False,
    ]
    known = against(["too short", LONG])
    assert (known.n_texts, known.n_short) == (2, 1)


def test_chinese_is_compared_by_characters() -> None:
    test = "委员会表示报告将在年底之前公布"
    assert found([f"据悉，{test}。", f"据悉，{test[:12]}。"], [test]) == [True, False]


def test_many_random_texts_share_nothing() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{x}" for x in rng.integers(0, 50, 60)) for _ in range(200)]
    assert not any(found(texts[:100], texts[100:]))
