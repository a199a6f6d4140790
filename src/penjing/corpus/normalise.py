"""Signs written alike: composed Unicode, no control characters, half-width letters, one Chinese script."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from penjing.corpus.asked import NormaliseSpec
from penjing.errors import NotSupported

# Controls but tab and line end; soft hyphen; zero-width signs, but not the joiners (Persian and emoji need
# them);
# marks and overrides of direction; byte order marks inside text; what stands for no character at all.
_BARRED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_LINE_ENDS = re.compile("\r\n?|\u2028|\u2029|\x85")
_TRAILING = re.compile(r"[ \t\u3000]+(?=\n)")
_BLANKS = re.compile(r"\n{3,}")
_WIDE = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+")
_TO_HALF = {
    wide: wide - 0xFEE0
    for low, high in ((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A))
    for wide in range(low, high + 1)
}


def normaliser(spec: NormaliseSpec) -> Callable[[str], str]:
    """A function that writes a text as the spec asks. Line ends become `\\n`; at most one line is left blank.

    Raises:
        NotSupported: OpenCC is wanted and not installed.
    """
    form: Literal["NFC", "NFKC"] | None = None
    if spec.unicode != "keep":
        form = "NFC" if spec.unicode == "nfc" else "NFKC"
    convert = _converter(spec.chinese) if spec.chinese != "keep" else None

    def normalise(text: str) -> str:
        if not text.isascii():
            if form is not None:
                text = unicodedata.normalize(form, text)
            if spec.width == "half":
                text = _WIDE.sub(lambda found: found[0].translate(_TO_HALF), text)
            if convert is not None:
                text = convert(text)
        text = _LINE_ENDS.sub("\n", text) if _has_line_ends(text) else text
        text = _BARRED.sub("", text)
        if " \n" in text or "\t\n" in text or "\u3000\n" in text:
            text = _TRAILING.sub("", text)
        if "\n\n\n" in text:
            text = _BLANKS.sub("\n\n", text)
        return text.rstrip().lstrip("\n")

    return normalise


def _has_line_ends(text: str) -> bool:
    return "\r" in text or (not text.isascii() and any(sign in text for sign in "\u2028\u2029\x85"))


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
