"""Where words begin and end in a text, Chinese too, whose writing does not say."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from penjing.errors import NotSupported

# Han characters: CJK unified ideographs, their extensions A and B and on, compatibility forms, and 々〇.
HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PARTS = re.compile(rf"[{HAN}]+|[^\W{HAN}]+(?:['’][^\W{HAN}]+)*|[^\w\s]|\s+")
_HAN = re.compile(rf"[{HAN}]")


def has_han(text: str) -> bool:
    """True when a Chinese character is in the text."""
    return _HAN.search(text) is not None


def words(text: str) -> list[tuple[int, int]]:
    """(begin, end) of every word, number and sign of a text in order, in characters; no white space.

    Chinese runs are cut into words by jieba's dictionary and model (`rjieba`), signs stand alone.

    Raises:
        NotSupported: the text is Chinese and rjieba is not installed.
    """
    found: list[tuple[int, int]] = []
    for part in _PARTS.finditer(text):
        begin, end = part.span()
        if not _HAN.match(text, begin):
            found += [] if text[begin].isspace() else [(begin, end)]
            continue
        for word in _cut()(text[begin:end]):
            found.append((begin, begin + len(word)))
            begin += len(word)
    return found


@functools.cache
def _cut() -> Callable[[str], list[str]]:
    try:
        import rjieba
    except ImportError as error:
        raise NotSupported(
            "Chinese was to be cut into words; the segmenter rjieba is not installed here. `pip install "
            "penjing[zh]` brings it (4 MB)."
        ) from error
    cut: Callable[[str], list[str]] = rjieba.cut
    return cut
