"""Units and n-grams of many texts at once are those of each text alone, and their hashes stay as they are."""

import random

import numpy as np
import pytest

from penjing.corpus.units import CODE, LINE_END, SPACE, chunk, chunked, hash_of, ngrams
from penjing.data.duplicates import kinds_of_code_points

TEXTS = ["The cat sat, the CAT sat!", "我爱北京天安门", "", "mixed 中文 and words-2", "a"]
UNITS = [
    ["the", "cat", "sat", "the", "cat", "sat"],
    list("我爱北京天安门"),
    [],
    ["mixed", "中", "文", "and", "words", "2"],
    ["a"],
]


def units_by_sign(text: str) -> list[str]:
    """Runs of letters, digits and marks; a character of a spaceless script by itself."""
    kinds = kinds_of_code_points()
    units, inside = [], False
    for sign in text.lower():
        kind = kinds[ord(sign)]
        if kind == 1 and inside:
            units[-1] += sign
        elif kind:
            units.append(sign)
        inside = kind == 1
    return units


def test_words_of_spaced_scripts_and_characters_of_spaceless_ones_are_units() -> None:
    assert [units_by_sign(text) for text in TEXTS] == UNITS


def test_any_text_has_the_units_that_are_found_sign_by_sign() -> None:
    rng = random.Random(0)
    signs = [
        *"aAzZ09 \n.,_#{(",
        *"éÉßĞİı",
        *"слОво",
        *"天安门",
        *"ひカ한",
        *"ไทยहि",
        "\u0301",
        "𝐀",
        "𠀀",
        "😀",
        "\ud800",
    ]
    texts = ["".join(rng.choices(signs, k=rng.choice([0, 1, 5, 30, 90]))) for _ in range(120)]
    texts += ["x" * n + "é" * m for n in (7, 8, 9, 16, 63, 64, 65, 200) for m in (0, 1, 4)]
    units = chunk(texts)
    expected = [units_by_sign(text) for text in texts]
    flat = [unit for found in expected for unit in found]
    assert np.diff(units.edges).tolist() == [len(found) for found in expected]
    assert units.length.tolist() == [len(unit) for unit in flat]
    assert units.signs.tolist() == [ord(unit[0]) for unit in flat]
    assert units.dense.tolist() == [bool(kinds_of_code_points()[ord(unit[0])] == 2) for unit in flat]
    of_hash = {hash_of(unit): unit for unit in flat}
    assert [of_hash[value] for value in units.hashes.tolist()] == flat
    for trait, wanted in ((CODE, "{}[]();=<>_&|"), (SPACE, " "), (LINE_END, "\n")):
        assert units.byte_total(trait).tolist() == [sum(map(text.count, wanted)) for text in texts]
    table = np.zeros(0x110000, bool)
    table[[ord("天"), ord("é")]] = True
    assert units.texts_with(table).tolist() == [i for i, text in enumerate(texts) if set("天éÉ") & set(text)]


def test_equal_units_have_equal_hashes_and_others_have_others() -> None:
    units = chunk(TEXTS)
    flat = [word for words in UNITS for word in words]
    by_word = dict(zip(flat, units.hashes.tolist(), strict=True))
    assert units.hashes.tolist() == [by_word[word] for word in flat]
    assert len(set(by_word.values())) == len(by_word)
    assert by_word["cat"] == hash_of("cat")


def test_hashes_are_the_same_on_every_machine_and_in_every_version() -> None:
    # Worked out by the formula: blocks of eight bytes, little-endian, each mixed in by splitmix64's finisher.
    mask = 2**64 - 1

    def mixed(value: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = ((value ^ (value >> shift)) * factor) & mask
        return value ^ (value >> 31)

    def block(text: bytes) -> int:
        return int.from_bytes(text, "little")

    assert hash_of("cat") == mixed(block(b"cat"))
    assert hash_of("catamaran") == mixed(
        (mixed(block(b"catamara")) * 0xA24BAED4963EE407 + block(b"n")) & mask
    )
    assert hash_of("猫") == mixed(ord("猫") | 1 << 32)
    assert hash_of("x" * 65) != hash_of("x" * 66) != hash_of("x" * 64)


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
