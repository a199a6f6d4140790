"""The hash by which exact twins are found does not see case and white space, and sees all else."""

import hashlib

import pytest

from penjing.corpus.sift import exact_hash

TEXTS = [
    "",
    " \n",
    "The cat\n\n  sat.",
    "the CAT sat.",
    "\tthe cat\x0bsat.\x1f\x0c",
    "the cat sat",
    "Die Straße\u2009 ist\xa0naß",
    "第一\u3000 行\n第二行",
    "ΟΔΟΣ İ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_the_hash_of_the_words_in_lower_case(text: str) -> None:
    plain = " ".join(text.lower().split()).encode()
    assert exact_hash(text) == hashlib.blake2b(plain, digest_size=16).digest()
