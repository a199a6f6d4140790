"""Units and n-grams of many texts at once are those of each text alone, and their hashes stay as they are."""

import numpy as np
import pytest

from penjing.corpus.units import Chunk, chunk, chunked, hash_of, ngrams

TEXTS = ["The cat sat, the CAT sat!", "我爱北京天安门", "", "mixed 中文 and words-2", "a"]
UNITS = [
    ["the", "cat", "sat", "the", "cat", "sat"],
    list("我爱北京天安门"),
    [],
    ["mixed", "中", "文", "and", "words", "2"],
    ["a"],
]


def words_of(units: Chunk, text: int) -> list[str]:
    here = slice(units.edges[text], units.edges[text + 1])
    return [
        "".join(map(chr, units.codes[first : first + length]))
        for first, length in zip(units.first[here], units.length[here], strict=True)
    ]


def test_words_of_spaced_scripts_and_characters_of_spaceless_ones_are_units() -> None:
    units = chunk(TEXTS)
    assert [words_of(units, i) for i in range(len(TEXTS))] == UNITS


def test_equal_units_have_equal_hashes_and_others_have_others() -> None:
    units = chunk(TEXTS)
    flat = [word for words in UNITS for word in words]
    by_word = dict(zip(flat, units.hashes.tolist(), strict=True))
    assert units.hashes.tolist() == [by_word[word] for word in flat]
    assert len(set(by_word.values())) == len(by_word)
    assert by_word["cat"] == hash_of("cat")


def test_hashes_are_the_same_on_every_machine_and_in_every_version() -> None:
    # Worked out by the formula: H = sum of c * spread * B**j, mixed by splitmix64's finisher.
    mask = 2**64 - 1
    base, spread = 0x9E3779B97F4A7C15, 0x6659FD93
    value = sum((ord(c) * spread % 2**32) * pow(base, j, 2**64) for j, c in enumerate("cat")) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) & mask
    assert hash_of("cat") == value ^ (value >> 31)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_ngrams_lie_within_one_text_and_do_not_depend_on_where_it_stands(n: int) -> None:
    together = chunk(TEXTS)
    at, hashes = ngrams(together.words, n)
    alone = [ngrams(chunk([text]).words, n)[1] for text in TEXTS]
    assert hashes.tolist() == np.concatenate(alone).tolist()
    grams = [tuple(words[i : i + n]) for words in UNITS for i in range(len(words) - n + 1)]
    assert len(grams) == len(at)
    assert len(set(grams)) == len(set(hashes.tolist()))


def test_slices_of_chunks_cover_every_text_once() -> None:
    sizes = [10, 600_000, 5, 0, 300_000, 300_000, 7]
    parts = list(chunked(sizes))
    assert [i for part in parts for i in range(len(sizes))[part]] == list(range(len(sizes)))
    assert len(parts) == 3
    assert list(chunked([])) == []
