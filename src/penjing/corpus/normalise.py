"""Signs written alike: composed Unicode, no control characters, half-width letters, one Chinese script."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from penjing.corpus.asked import NormaliseSpec
from penjing.errors import NotSupported

# Controls but tab and line end; soft hyphen; zero-width signs, but not the joiners (Persian and emoji need
# them);
# marks and overrides of direction; byte order marks inside text; what stands for no character at all.
_BARRED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")  # a page may end with a form feed alone
_BLANKS = re.compile(r"\n{3,}")
# What NFC leaves alone and no rule here touches: most text is of these signs only, and needs no closer look.
_PLAIN = (
    (0x09, 0x0A), (0x20, 0x7E), (0xA0, 0xAC), (0xAE, 0x2FF), (0x388, 0x3FF), (0x400, 0x482), (0x48A, 0x52F),
    (0x1E00, 0x1EFF), (0x2002, 0x200A), (0x200C, 0x200D), (0x2010, 0x2027), (0x202F, 0x205F),
    (0x20A0, 0x20BF), (0x2150, 0x2328), (0x2460, 0x27FF), (0x3000, 0x3029), (0x3030, 0x303F),
    (0x3041, 0x3096), (0x30A1, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7A3), (0xFF01, 0xFF0F),
    (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF9D), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF),
)  # fmt: skip
_KANA, _HAN = re.compile("[\u3041-\u30fa\u30fc]"), re.compile("[\u3400-\u9fff]")  # but for `・`
_WIDE = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+")
_TO_HALF = {
    wide: wide - 0xFEE0
    for low, high in ((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A))
    for wide in range(low, high + 1)
}


def normaliser(spec: NormaliseSpec) -> Callable[[Sequence[str]], list[str]]:
    """A function that writes texts as the spec asks. Line ends become `\\n`; at most one line is left blank.

    Raises:
        NotSupported: OpenCC is wanted and not installed.
    """
    form: Literal["NFC", "NFKC"] | None = None
    if spec.unicode != "keep":
        form = "NFC" if spec.unicode == "nfc" else "NFKC"
    convert = _converter(spec.chinese) if spec.chinese != "keep" else None
    strange = _strange_signs(only_ascii=form == "NFKC" or convert is not None)

    def careful(text: str) -> str:
        if not text.isascii():
            if form is not None:
                text = unicodedata.normalize(form, text)
            if spec.width == "half":
                text = _WIDE.sub(lambda found: found[0].translate(_TO_HALF), text)
            if convert is not None and not (_KANA.search(text) and _is_japanese(text)):
                text = convert(text)
        text = _LINE_ENDS.sub("\n", text) if _has_line_ends(text) else text
        return _trimmed(_BARRED.sub("", text))

    def normalise(texts: Sequence[str]) -> list[str]:
        odd = _with_any(texts, strange).tolist()
        return [careful(text) if one else _trimmed(text) for text, one in zip(texts, odd, strict=True)]

    return normalise


@functools.lru_cache(maxsize=2)
def _strange_signs(*, only_ascii: bool) -> np.ndarray:
    """(0x110000,) bool by code point: whether a text with it needs more than trimming."""
    strange = np.ones(0x110000, bool)
    for low, high in _PLAIN[:2] if only_ascii else _PLAIN:
        strange[low : high + 1] = False
    return strange


def _with_any(texts: Sequence[str], signs: np.ndarray) -> np.ndarray:
    """(n,) bool: which texts have one of these signs; many at a time, for half a nanosecond a character."""
    codes = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), "<u4")
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    return np.logical_or.reduceat(signs.take(codes), starts) if len(texts) else np.zeros(0, bool)


def _trimmed(text: str) -> str:
    """Without blanks at the ends of lines, nor more than one blank line, nor blank ones around the text."""
    text = text.rstrip()
    if "\n" in text:
        if " \n" in text or "\t\n" in text or "\u3000\n" in text:
            text = "\n".join([line.rstrip(" \t\u3000") for line in text.split("\n")])
        if "\n\n\n" in text:
            text = _BLANKS.sub("\n\n", text)
    return text.lstrip("\n")


def _has_line_ends(text: str) -> bool:
    signs = "\r\x0b\x0c" if text.isascii() else "\r\x0b\x0c\u2028\u2029\x85"
    return any(sign in text for sign in signs)


def _is_japanese(text: str) -> bool:
    """Han beside kana, one in eleven or more: these are words of another language."""
    return 10 * len(_KANA.findall(text)) > len(_HAN.findall(text))


@functools.lru_cache(maxsize=2)
def _converter(wanted: str) -> Callable[[str], str]:
    try:
        import opencc
    except ImportError:
        raise NotSupported(
            f"`normalise.chinese: {wanted}` needs OpenCC; it is not installed. Run `pip install "
            f"'penjing[corpus]'`, "
            f"or say `normalise.chinese: keep`."
        ) from None
    convert: Callable[[str], str] = opencc.OpenCC("t2s" if wanted == "simplified" else "s2t").convert
    return convert
