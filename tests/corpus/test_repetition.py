"""Repeated n-grams: counted as the paper says, by loops over words here and by sorts there."""

import random
from collections import Counter

import numpy as np
import pytest

from penjing.corpus.repetition import AGAIN, TOP, repeats, repetitive
from penjing.corpus.units import chunk


def words_of(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    vocabulary = ["a", "bb", "ccc", "dddd", "eeeee", "f", "gg"]
    return rng.choices(vocabulary[: rng.randint(2, 7)], k=n)


def top_by_loops(words: list[str], n: int) -> int:
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return max((c * sum(map(len, gram)) for gram, c in counts.items() if c > 1), default=0)


def again_by_loops(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            covered.update(range(i, i + n))
        seen.add(gram)
    return sum(len(words[i]) for i in covered)


def is_repetitive(words: list[str]) -> bool:
    size = sum(map(len, words))
    return any(top_by_loops(words, n) / size > limit for n, limit in TOP.items()) or any(
        again_by_loops(words, n) / size > limit for n, limit in AGAIN.items()
    )


@pytest.mark.parametrize("lengths", [[2, 3, 5, 10], [1, 4, 6, 7]])
def test_shares_are_those_of_loops_over_words(lengths: list[int]) -> None:
    texts = [words_of(length, seed) for seed, length in enumerate([0, 1, 3, 12, 40, 90, 200])]
    texts += [[*words, *words[:12]] for words in texts]
    units = chunk([" ".join(words) for words in texts]).words
    found = {n: (most.tolist(), again.tolist()) for n, most, again in repeats(units, lengths)}
    assert found == {
        n: ([top_by_loops(words, n) for words in texts], [again_by_loops(words, n) for words in texts])
        for n in lengths
    }


def test_where_no_pair_stands_twice_no_longer_run_does() -> None:
    assert list(repeats(chunk(["one two three", "one two three", "two three"]).words, [2, 3])) == []
    assert list(repeats(chunk(["", "one"]).words, [2, 3])) == []


def test_words_of_any_length_are_counted_whole() -> None:
    address = "x" * 300
    units = chunk([f"{address} {address} {address}"]).words
    assert [most.tolist() for _, most, _ in repeats(units, [1, 2])] == [[900], [1200]]


def test_the_short_cuts_clear_no_text_that_the_rule_drops() -> None:
    rng = random.Random(1)
    texts = []
    for _ in range(300):
        words = [f"w{rng.randint(0, 400)}" for _ in range(rng.randint(50, 150))]
        for _ in range(rng.randint(0, 3)):
            begin, length = rng.randint(0, len(words) - 15), rng.randint(3, 15)
            words[begin:begin] = words[begin : begin + length]
        texts.append(words)
    units = chunk([" ".join(words) for words in texts]).words
    everyone = np.ones(len(texts), bool)
    found = repetitive(units, ~everyone, everyone)
    assert found.tolist() == [is_repetitive(words) for words in texts]
    assert 20 < found.sum() < 280


def test_a_text_without_repetition_stays_and_a_chorus_goes() -> None:
    song = "la la la oh yes we sing it all night long " * 20
    prose = " ".join(f"word{i} thing{i}" for i in range(60))
    chinese = "".join(chr(0x4E00 + 7 * i) for i in range(200)), "我们一起来唱歌吧" * 30
    units = chunk([song, prose, *chinese]).words
    dense = np.array([False, False, True, True])
    assert repetitive(units, dense, np.ones(4, bool)).tolist() == [True, False, False, True]
