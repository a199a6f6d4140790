"""What was asked of a tokenizer, checked and complete: defaults that hang on another choice are settled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penjing.data.vocab.families import FAMILIES, UNKNOWN, USUAL, Family
from penjing.errors import SpecError, nearest

KINDS = {
    "bpe": "byte-level byte-pair encoding: any text, and it comes back exactly (GPT-2, Llama)",
    "wordpiece": "longest known pieces of words, unknown where none fits (BERT)",
    "unigram": "most likely pieces of a language model (T5, Marian)",
    "char": "one id a character, and it comes back exactly (nanoGPT's Shakespeare)",
}
FORMS = ("none", "nfc", "nfkc")
CHINESE = {
    "characters": "each Chinese character is a piece",
    "words": "pieces are learnt within words, which a segmenter finds",
    "runs": "pieces are learnt within runs of Chinese, across words",
}
SIZE = 8000
_FORM = {"bpe": "none", "wordpiece": "nfc", "unigram": "nfkc", "char": "none"}
_CHINESE = {"bpe": "runs", "wordpiece": "characters", "unigram": "runs", "char": "characters"}
_COVERAGE = {"bpe": 1.0, "wordpiece": 0.9995, "unigram": 0.9995, "char": 1.0}
BYTES = 256


@dataclass(frozen=True)
class Settings:
    """How a tokenizer is learnt."""

    kind: str
    family: str
    size: int | None  # ids in all; None: as many as there are characters
    lower: bool
    form: str
    chinese: str
    coverage: float  # share of the characters of the corpus that are known, the most frequent
    min_count: int

    @property
    def special(self) -> Family:
        """Its family's special words."""
        return FAMILIES[self.family]

    @property
    def roles(self) -> dict[str, str]:
        """Special words by role, with one for the unknown where the kind needs it."""
        roles = dict(self.special.roles)
        if self.kind != "bpe" and "unk" not in roles:
            roles["unk"] = UNKNOWN
        return roles

    @property
    def first(self) -> list[str]:
        """Special words whose ids come before those of the pieces."""
        return list(dict.fromkeys([*self.roles.values(), *self.special.more]))


def settled(
    *,
    kind: str = "bpe",
    family: str | None = None,
    vocab: int | None = None,
    lower: bool = False,
    form: str | None = None,
    chinese: str | None = None,
    coverage: float | None = None,
    min_count: int = 2,
) -> Settings:
    """Settings of a tokenizer; what is None is as usual for the kind.

    Raises:
        SpecError: an unknown name, a number out of range, or a setting that the kind would ignore.
    """
    _known("kind", kind, KINDS)
    family = family or USUAL[kind]
    _known("family", family, FAMILIES)
    form, chinese_asked = form or _FORM[kind], chinese
    _known("normalize", form, FORMS)
    chinese = chinese or _CHINESE[kind]
    _known("chinese", chinese, CHINESE)
    if kind == "char":
        _ignored("vocab", vocab, "char", "it has an id for every character; rare ones go by `coverage`")
        _ignored("chinese", chinese_asked, "char", "it has an id for every character")
    if kind == "bpe":
        _ignored("coverage", coverage, "bpe", "its bytes cover every text")
    if coverage is not None and not 0.5 <= coverage <= 1:
        raise SpecError(
            f"`coverage` is a share of the corpus's characters from 0.5 to 1; it is {coverage:g}. 0.9995 is "
            "usual."
        )
    if min_count < 1:
        raise SpecError(f"`min_count` must be at least 1; it is {min_count}. 2 is usual.")
    size = None if kind == "char" else vocab or SIZE
    found = Settings(kind, family, size, lower, form, chinese, coverage or _COVERAGE[kind], min_count)
    least = len(found.first) + len(found.special.last) + (BYTES if kind == "bpe" else 1)
    if size is not None and size < least:
        raise SpecError(
            f"`vocab` is {size}; `kind: {kind}` of the family `{family}` needs {least} ids for its special "
            f"words {'and the 256 bytes ' if kind == 'bpe' else ''}alone. Give more, such as {SIZE:,}."
        )
    return found


def _known(key: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise SpecError(
            f"`{key}` must be one of {', '.join(known)}; it is `{value}`.{nearest(value, known)} Give one "
            "of these."
        )


def _ignored(key: str, value: object, kind: str, why: str) -> None:
    if value is not None:
        raise SpecError(f"`{key}` is {value}; `kind: {kind}` would ignore it: {why}. Leave it out.")
