"""Texts are written alike, and the short way for plain ones gives what the long one does."""

import random
import re
import unicodedata
from typing import Literal

import pytest

from penjing.corpus.asked import NormaliseSpec
from penjing.corpus.normalise import _PLAIN, normaliser

SIGNS = [
    *"aZ 09,.\n\t\r", "\v\f", "\n\n\n", " \n", "\u3000\n", "\r\n", "\u2028", "\u2029", "\x85", "\x00",
    "\x1f", "\x7f",
    "\xad", "e\u0301", "\u212b", "é", "ＡＺａ１９", "，！", "中文", "\u3000", "\u200b", "\u200d", "\u202e",
    "\ufeff", "ﬁ", "①", "カ\u3099", "\u1100\u1161", "한", "\xa0", "\u2009",
    "…", "\U0001f600", "\ufa0e", "\U0002f800",
]  # fmt: skip
BARRED = {*range(9), *range(0x0E, 0x20), *range(0x7F, 0xA0), 0xAD, 0x200B, 0x200E, 0x200F} | {
    *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF, *range(0xFFF9, 0xFFFC)
}  # fmt: skip


def sign_by_sign(text: str, form: Literal["NFC", "NFKC"] | None, *, half: bool) -> str:
    text = unicodedata.normalize(form, text) if form else text
    text = re.sub("\r\n|[\r\v\f\u2028\u2029\x85]", "\n", text)
    text = "".join(sign for sign in text if ord(sign) not in BARRED)
    if half:
        wide = {c: c - 0xFEE0 for c in range(0xFF10, 0xFF5B) if chr(c).isalnum()}
        text = text.translate(wide)
    text = re.sub("[ \t\u3000]+\n", "\n", text)
    return re.sub("\n{3,}", "\n\n", text).rstrip().lstrip("\n")


@pytest.mark.parametrize("unicode", ["nfc", "nfkc", "keep"])
@pytest.mark.parametrize("width", ["half", "keep"])
def test_texts_are_those_written_sign_by_sign(
    unicode: Literal["nfc", "nfkc", "keep"], width: Literal["half", "keep"]
) -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices(SIGNS, k=rng.choice([0, 1, 3, 12, 40]))) for _ in range(400)]
    forms: dict[str, Literal["NFC", "NFKC"] | None] = {"nfc": "NFC", "nfkc": "NFKC", "keep": None}
    expected = [sign_by_sign(text, forms[unicode], half=width == "half") for text in texts]
    assert normaliser(NormaliseSpec(unicode=unicode, width=width))(texts) == expected
    assert normaliser(NormaliseSpec())([]) == []


def test_signs_that_are_called_plain_stay_as_they_are_in_any_order() -> None:
    signs = [
        chr(code) for low, high in _PLAIN for code in range(low, high + 1) if chr(code) not in " \t\n\u3000"
    ]
    rng = random.Random(0)
    for _ in range(3):
        rng.shuffle(signs)
        text = "".join(signs)
        assert unicodedata.normalize("NFC", text) == text
        assert sign_by_sign(text, "NFC", half=True) == text.rstrip()
    assert not any(unicodedata.combining(sign) for sign in signs)


def test_a_long_run_of_blanks_takes_no_longer_than_its_length() -> None:
    assert normaliser(NormaliseSpec())([f"a{' ' * 200_000}b \nc"]) == [f"a{' ' * 200_000}b\nc"]


def test_a_form_feed_parts_words() -> None:
    assert normaliser(NormaliseSpec())(["the end\fChapter 2\vmore"]) == ["the end\nChapter 2\nmore"]


def test_japanese_keeps_its_own_characters() -> None:
    pytest.importorskip("opencc")
    simplify = normaliser(NormaliseSpec(chinese="simplified"))
    assert simplify(["東京の図書館で時間を過ごした。", "圖書館・時間"]) == [
        "東京の図書館で時間を過ごした。",
        "图书馆・时间",
    ]
