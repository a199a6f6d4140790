"""Which language each text is in: by the script of its units, and by function words where the script is
Latin.

Function words are the most frequent words of a language and hardly shared by others, so that a few dozen of
them tell languages apart in one sentence (Grefenstette 1995, JADT). What shows neither is `und`. Code is told
by its signs, whatever language its comments are in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from penjing.corpus.units import CODE, SPACE, Chunk, hash_of
from penjing.errors import NotSupported

SCRIPTS = {  # script: ranges of code points
    "latin": ((0x41, 0x24F), (0x1E00, 0x1EFF)),
    "han": ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    "kana": ((0x3040, 0x30FF),),
    "hangul": ((0x1100, 0x11FF), (0xAC00, 0xD7AF)),
    "cyrillic": ((0x400, 0x52F),),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F)),
    "greek": ((0x370, 0x3FF),),
    "hebrew": ((0x590, 0x5FF),),
    "thai": ((0xE00, 0xE7F),),
    "devanagari": ((0x900, 0x97F),),
}
OF_SCRIPT = {  # the language named where a script is not Latin; Han is Japanese beside kana
    "han": "zh", "kana": "ja", "hangul": "ko", "cyrillic": "ru", "arabic": "ar", "greek": "el",
    "hebrew": "he", "thai": "th", "devanagari": "hi",
}  # fmt: skip
WORDS = {
    "en": (
        "the of and to in a is that for it was on with as are be this by not have at from or but which "
        "they you he his we can what where how i my your if there will would has had been their all so "
        "when who an do does"
    ),
    "de": (
        "der die und das den von zu ist mit sich des auf für nicht ein eine als auch es an werden aus "
        "er hat dass sie nach wird bei einer um am sind noch wie einem über einen zum war haben nur "
        "oder aber vor zur ich wir"
    ),
    "fr": (
        "de la le et les des en un une du que est pour qui dans a par plus pas au sur ne se ce il sont "
        "avec son cette ou aux ses mais comme nous vous été elle être ont je leur"
    ),
    "es": (
        "de la que el en y los del se las por un para con no una su al lo como más pero sus le ya este "
        "sí porque esta entre cuando muy sin sobre también me hasta hay donde quien es está"
    ),
    "it": (
        "di che è la il un a per in una mi sono ho non ma lo ha le si ti i con cosa se io come da ci "
        "no questo qui della del nel gli anche più dei alla delle"
    ),
    "pt": (
        "de que o e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das "
        "tem à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso ela"
    ),
    "nl": (
        "de het een en van ik te dat die in is niet op aan met als voor er maar om hem dan zou of wat "
        "mijn men dit zo door over ze zich bij ook tot je uit der naar heeft geen worden"
    ),
}
LATIN = tuple(WORDS)
_LEAST_WORDS = 0.1  # of a text's units that are function words of its language
_LEAST_CODE = 0.07  # of a text's signs that are those of code
_SLOTS = 1 << 18


def languages(texts: Sequence[str], units: Chunk, *, by: str = "words") -> list[str]:
    """ISO 639-1 code of each text, `code`, or `und`.

    Raises:
        NotSupported: `by` is py3langid, and it is not installed.
    """
    n = len(texts)
    scripts = _scripts_of(units)
    names = [*SCRIPTS]
    latin, han, kana = (names.index(name) for name in ("latin", "han", "kana"))
    scripts[:, han] += scripts[:, kana]  # Japanese is written in both
    sizes = np.maximum(1, scripts.sum(axis=1))
    # A Latin word is one unit and a Han character another, so that 3 in 10 are a Chinese text with foreign
    # names.
    is_han = scripts[:, han] >= 0.3 * sizes
    code = ~is_han & _is_code(texts, units)  # Chinese science quotes formulas
    if by == "py3langid":
        classify = py3langid_of()
        return ["code" if code[i] else classify(text[:2000])[0] for i, text in enumerate(texts)]
    counts = function_words(units)
    best = counts.argmax(axis=1)
    known = counts[np.arange(n), best] >= np.maximum(1, _LEAST_WORDS * scripts[:, latin])
    chosen = scripts.argmax(axis=1)
    chosen[is_han] = np.where(scripts[:, kana] > 0.1 * scripts[:, han], kana, han)[is_han]
    found = [LATIN[i] if one else "und" for i, one in zip(best.tolist(), known.tolist(), strict=True)]
    for i in np.flatnonzero(chosen != latin).tolist():
        found[i] = OF_SCRIPT[names[chosen[i]]]
    for i in np.flatnonzero(~scripts.any(axis=1)).tolist():
        found[i] = "und"
    for i in np.flatnonzero(code).tolist():
        found[i] = "code"
    return found


def known_languages(by: str) -> list[str]:
    """What `languages` may call a text.

    Raises:
        NotSupported: `by` is py3langid, and it is not installed.
    """
    if by == "py3langid":
        py3langid_of()
        import py3langid

        return sorted({"code", *(name for name, _ in py3langid.rank("text"))})
    return [*LATIN, *OF_SCRIPT.values(), "code", "und"]


def _is_code(texts: Sequence[str], units: Chunk) -> np.ndarray:
    """(n,) bool: of 40 characters and more, with many signs of code."""
    size = np.fromiter(map(len, texts), np.int64, len(texts))
    many = units.byte_total(CODE) > _LEAST_CODE * (size - units.byte_total(SPACE))
    return np.asarray(many & (size >= 40))


@functools.lru_cache(maxsize=1)
def _script_table() -> np.ndarray:
    table = np.zeros(0x110000, np.uint8)
    for i, ranges in enumerate(SCRIPTS.values(), start=1):
        for low, high in ranges:
            table[low : high + 1] = i
    return table


def _scripts_of(units: Chunk) -> np.ndarray:
    """(n, scripts) int64 units of each script, by their first character."""
    script = _script_table().take(units.signs)
    n, n_scripts = len(units.starts) - 1, len(SCRIPTS) + 1
    counts = np.bincount(units.owner * n_scripts + script, minlength=n * n_scripts)
    return counts.reshape(n, n_scripts)[:, 1:].copy()


@functools.lru_cache(maxsize=1)
def _word_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place of the function word in each slot (0: none), the words' hashes, and the languages they are
    words of, (languages, words).
    """
    words = dict.fromkeys(word for line in WORDS.values() for word in line.split())
    hashes = np.array([0, *map(hash_of, words)], np.uint64)
    members = np.array([[False, *(word in of.split() for word in words)] for of in WORDS.values()])
    place = np.zeros(_SLOTS, np.uint16)
    place[(hashes[1:] % _SLOTS).astype(np.int64)] = np.arange(1, len(hashes))
    assert np.count_nonzero(place) == len(words), "two words share a slot; take more slots"
    return place, hashes, members


def function_words(units: Chunk) -> np.ndarray:
    """(n, languages) int64 function words of each language of `LATIN` in each text."""
    place, hashes, members = _word_table()
    found = place.take((units.hashes & np.uint64(_SLOTS - 1)).view(np.int64))
    hit = np.flatnonzero(found > 0)
    hit = hit[hashes.take(found[hit]) == units.hashes[hit]]
    owner, word, n = units.owner[hit], found[hit], len(units.starts) - 1
    return np.stack([np.bincount(owner[member.take(word)], minlength=n) for member in members], axis=1)


@functools.lru_cache(maxsize=1)
def py3langid_of() -> Callable[[str], tuple[str, float]]:
    """Text to language and its log-probability.

    Raises:
        NotSupported: py3langid is not installed.
    """
    try:
        import py3langid
    except ImportError:
        raise NotSupported(
            "`language.by: py3langid` needs py3langid; it is not installed. Run `pip install "
            "'penjing[corpus]'`, or "
            "say `language.by: words`."
        ) from None
    classify: Callable[[str], tuple[str, float]] = py3langid.classify
    return classify
