"""Which documents are good enough, and why the others are not: the published heuristics of large corpora.

From Rae et al. 2021 (Gopher, table A1), Raffel et al. 2020 (C4), Chen et al. 2021 (Codex, section 3.1),
with the
limits in `QualitySpec`; for Chinese the units are characters and the word lists Chinese. Each document gets
the
first reason that holds, in the order of `RULES`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from penjing.corpus.asked import QualitySpec
from penjing.corpus.language import WORDS
from penjing.corpus.repetition import SIGNS_A_WORD, repetitive
from penjing.corpus.units import LINE_END, SPACE, Chunk

_GARBLED = re.compile("[\ufffd\ue000-\uf8ff]|锟斤拷|烫烫烫|Ã[\x80-\xbf]|â€[™œ\x9d“”]|ï¿½")
_BULLETS = ("•", "‣", "▪", "◦", "●", "○", "■", "◆", "★", "※", "-", "*", "+", "·")
_ELLIPSES = ("…", "...", "。。。")
_BOILERPLATE = (
    *(
        "lorem ipsum",
        "javascript",
        "cookie",
        "privacy policy",
        "terms of use",
        "terms of service",
        "sign in",
        "sign up",
    ),
    *(
        "all rights reserved",
        "log in",
        "login",
        "subscribe",
        "newsletter",
        "copyright ©",
        "click here",
        "read more",
    ),
    *(
        "share this",
        "share on",
        "powered by",
        "版权所有",
        "隐私政策",
        "使用条款",
        "免责声明",
        "备案",
        "点击这里",
        "点击查看",
    ),
    *(
        "点击进入",
        "请登录",
        "扫码",
        "关注我们",
        "返回首页",
        "返回顶部",
        "上一页",
        "上一篇",
        "下一页",
        "下一篇",
        "责任编辑",
    ),
    *("转载请注明", "加入收藏", "网站地图"),
)
_ZH_WORDS = "的了是在和有不我他这也就都与为以上中对"
_LEAST_JUDGED = 50  # words from which repetition and stop words say something (Gopher's shortest document)
_CODE_LETTERS = 0.25
_SHORT_LINE = 120  # characters; a notice or menu is not longer, and prose that mentions cookies is
_MOST_COMMON = {
    language: tuple(f" {word} " for word in words.split()[:16]) for language, words in WORDS.items()
}


@dataclass(frozen=True)
class Look:
    """Texts and what every rule asks of them; n texts."""

    texts: Sequence[str]
    units: Chunk
    languages: Sequence[str]
    spec: QualitySpec
    code: np.ndarray  # (n,) bool
    dense: np.ndarray  # (n,) bool: mostly of a spaceless script
    n_units: np.ndarray  # (n,) int64
    n_letters: np.ndarray  # (n,) int64 characters of all units
    split: dict[int, list[str]] = field(
        default_factory=dict
    )  # text: its lines, once a rule has asked for them

    def lines(self, text: int) -> list[str]:
        """The lines of a text that are not blank, without the space around them."""
        if text not in self.split:
            self.split[text] = [line for raw in self.texts[text].split("\n") if (line := raw.strip())]
        return self.split[text]

    @property
    def long(self) -> np.ndarray:
        """(n,) bool: of which repetition and function words say something."""
        return self.n_units >= _LEAST_JUDGED * np.where(self.dense, SIGNS_A_WORD, 1)


def judge(texts: Sequence[str], units: Chunk, languages: Sequence[str], spec: QualitySpec) -> list[str]:
    """The reason to drop each text, empty for those that stay."""
    n_units = np.diff(units.edges)
    dense = 2 * units.unit_total(units.dense) > n_units
    code = np.array([language == "code" for language in languages], bool)
    look = Look(texts, units, languages, spec, code, dense, n_units, units.unit_total(units.length))
    reason = np.zeros(len(texts), np.int8)
    for i, rule in enumerate(RULES.values(), start=1):
        bad = rule(look, reason == 0)
        if bad is not None:
            reason[(reason == 0) & bad] = i
    names = ["", *RULES]
    return [names[i] for i in reason.tolist()]


def _garbled(look: Look, open_: np.ndarray) -> np.ndarray | None:
    most = look.spec.garbled
    if most is None:
        return None
    garbled = np.zeros(len(look.texts), bool)
    for i in look.units.texts_with(_likely_garbled()).tolist():
        text = look.texts[i]
        garbled[i] = sum(map(len, _GARBLED.findall(text))) > most * len(text)
    return garbled


@functools.lru_cache(maxsize=1)
def _likely_garbled() -> np.ndarray:
    """(0x110000,) bool: characters beyond ASCII, in lower case, without which `_GARBLED` finds nothing."""
    likely = np.zeros(0x110000, bool)
    likely[0xE000:0xF900] = True
    likely[[ord(sign) for sign in "\ufffd锟烫ãâï"]] = True
    return likely


def _too_short(look: Look, open_: np.ndarray) -> np.ndarray | None:
    return None if look.spec.least_units is None else look.n_units < look.spec.least_units


def _few_letters(look: Look, open_: np.ndarray) -> np.ndarray | None:
    if look.spec.letters is None:
        return None
    size = np.fromiter(map(len, look.texts), np.int64, len(look.texts))
    signs = size - look.units.byte_total(SPACE) - look.units.byte_total(LINE_END)
    least = np.where(look.code, min(_CODE_LETTERS, look.spec.letters), look.spec.letters)
    return np.asarray(look.n_letters < least * signs)


def _few_words(look: Look, open_: np.ndarray) -> np.ndarray | None:
    if look.spec.words is None:
        return None
    first = look.units.signs
    digits = look.units.unit_total((first >= 0x30) & (first <= 0x39))
    bad: np.ndarray = ~look.code & (look.n_units - digits < look.spec.words * look.n_units)
    return bad


def _word_length(look: Look, open_: np.ndarray) -> np.ndarray | None:
    if look.spec.word_length is None:
        return None
    low, high = look.spec.word_length
    mean = look.n_letters / np.maximum(1, look.n_units)
    bad: np.ndarray = ~look.dense & ~look.code & ((mean < low) | (mean > high))
    return bad


def _symbols(look: Look, open_: np.ndarray) -> np.ndarray | None:
    if look.spec.symbols is None:
        return None
    found = (t.count("#") + t.count("…") + t.count("...") for t in look.texts)
    n_symbols = np.fromiter(found, np.int64, len(look.texts))
    return ~look.code & (n_symbols > look.spec.symbols * look.n_units)


def _of_lines(
    look: Look, open_: np.ndarray, most: float | None, bad: Callable[[list[str]], float]
) -> np.ndarray | None:
    """Texts of several lines in which the bad ones' share is above `most`."""
    if most is None:
        return None
    found = np.zeros(len(look.texts), bool)
    for i in np.flatnonzero(open_ & ~look.code).tolist():
        if "\n" in look.texts[i]:
            found[i] = bad(look.lines(i)) > most
    return found


def _bullets(look: Look, open_: np.ndarray) -> np.ndarray | None:
    return _of_lines(
        look, open_, look.spec.bullets, lambda lines: sum(x.startswith(_BULLETS) for x in lines) / len(lines)
    )


def _ellipses(look: Look, open_: np.ndarray) -> np.ndarray | None:
    return _of_lines(
        look, open_, look.spec.ellipses, lambda lines: sum(x.endswith(_ELLIPSES) for x in lines) / len(lines)
    )


def _repeated_lines(look: Look, open_: np.ndarray) -> np.ndarray | None:
    return _of_lines(look, open_, look.spec.lines, lambda lines: 1 - len(set(lines)) / len(lines))


def _boilerplate(look: Look, open_: np.ndarray) -> np.ndarray | None:
    def share(lines: list[str]) -> float:
        short = [line.lower() for line in lines if len(line) <= _SHORT_LINE]
        together = "\n".join(short)
        signs = [sign for sign in _BOILERPLATE if sign in together]
        found = sum(len(line) for line in short if any(sign in line for sign in signs)) if signs else 0
        return found / sum(map(len, lines))

    return _of_lines(look, open_, look.spec.boilerplate, share)


def _no_stop_words(look: Look, open_: np.ndarray) -> np.ndarray | None:
    least = look.spec.stop_words
    if least is None:
        return None
    few = np.zeros(len(look.texts), bool)
    for i in np.flatnonzero(open_ & look.long & ~look.code).tolist():
        text, language = look.texts[i], look.languages[i]
        if language == "zh":
            few[i] = not _has(text, _ZH_WORDS, least)
        elif language in WORDS:
            words = _MOST_COMMON[language]
            few[i] = not _has(text, words, least) and not _has(text.lower(), words, least)
    return few


def _has(text: str, words: Sequence[str], least: int) -> bool:
    """Whether so many of the words stand in a text; most texts are done after a few looks."""
    return sum(1 for _ in islice((None for word in words if word in text), least)) == least


def _repetition(look: Look, open_: np.ndarray) -> np.ndarray | None:
    if not look.spec.repetition:
        return None
    return repetitive(
        look.units.words, look.dense, open_ & look.long & ~look.code, factor=look.spec.repetition
    )


def _code_lines(look: Look, open_: np.ndarray) -> np.ndarray | None:
    longest, mean = look.spec.code_line, look.spec.code_mean_line
    odd = np.zeros(len(look.texts), bool)
    for i in np.flatnonzero(open_ & look.code).tolist():
        lengths = [len(line) for line in look.texts[i].split("\n")]
        odd[i] = (longest is not None and max(lengths) > longest) or (
            mean is not None and sum(lengths) / len(lengths) > mean
        )
    return odd


RULES: dict[str, Callable[[Look, np.ndarray], np.ndarray | None]] = {
    "garbled": _garbled,
    "too_short": _too_short,
    "few_letters": _few_letters,
    "few_words": _few_words,
    "word_length": _word_length,
    "symbols": _symbols,
    "bullets": _bullets,
    "ellipses": _ellipses,
    "repeated_lines": _repeated_lines,
    "boilerplate": _boilerplate,
    "no_stop_words": _no_stop_words,
    "repetition": _repetition,
    "code_lines": _code_lines,
}
