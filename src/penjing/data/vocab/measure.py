"""What tokenizers make of texts: tokens a word and a character, what is unknown, by language and source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from penjing.data.vocab.segment import has_han, words

AT_ONCE = 1000  # lines


@dataclass
class Sums:
    """Over the lines of a group, as one tokenizer reads them."""

    lines: int = 0
    words: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: int = 0
    unknown: int = 0
    exact: int = 0

    def plain(self) -> dict[str, Any]:
        """Fertility (tokens a word; Rust et al. 2021), density, and shares in 0..1."""
        return {
            "lines": self.lines,
            "tokens": self.tokens,
            "tokens_a_word": self.tokens / max(1, self.words),
            "tokens_a_character": self.tokens / max(1, self.characters),
            "bytes_a_token": self.bytes / max(1, self.tokens),
            "unknown_share": self.unknown / max(1, self.tokens),
            "exact_share": self.exact / max(1, self.lines),
        }


@dataclass
class Measured:
    """Sums of one tokenizer by group: (`all`, ``), (`language`, `zh`), (`source`, `a.txt`)."""

    groups: dict[tuple[str, str], Sums] = field(default_factory=dict)

    def at(self, *key: str) -> Sums:
        """The sums of a group."""
        return self.groups.setdefault((key[0], key[1]), Sums())


def language_of(line: str) -> str:
    """By its letters: `zh` from one Chinese character in five letters on, `latin`, or `other`."""
    letters = [c for c in line if c.isalpha()]
    han = sum(map(has_han, letters))
    latin = sum(c < "\u0250" for c in letters)
    if han * 5 >= len(letters) > 0:
        return "zh"
    return "latin" if latin * 2 >= len(letters) else "other"


def measure(tokenizers: Mapping[str, Any], texts: Iterable[tuple[str, str]]) -> dict[str, Measured]:
    """Each tokenizer's sums over the lines of (source, text), all, by language and by source.

    Words are counted by `segment.words`, signs left out, the same for all tokenizers.
    """
    found = {name: Measured() for name in tokenizers}
    for part in batched(_lines(texts)):
        facts = [
            (language_of(line), sum(line[begin].isalnum() for begin, _ in words(line))) for _, line in part
        ]
        plain = [line for _, line in part]
        for name, tokenizer in tokenizers.items():
            ids = tokenizer(plain, add_special_tokens=False)["input_ids"]
            back = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
            for (source, line), (language, n_words), of_line, again in zip(
                part, facts, ids, back, strict=True
            ):
                for key in (("all", ""), ("language", language), ("source", source)):
                    _add(found[name].at(*key), line, n_words, of_line, tokenizer.unk_token_id, again == line)
    return found


def batched(lines: Iterable[Any], size: int = AT_ONCE) -> Iterator[list[Any]]:
    """Lists of at most `size` in turn."""
    rest = iter(lines)
    while part := list(islice(rest, size)):
        yield part


def _lines(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for source, text in texts:
        for line in text.splitlines():
            if line.strip():
                yield source, line


def _add(sums: Sums, line: str, n_words: int, ids: list[int], unknown: int | None, exact: bool) -> None:
    sums.lines += 1
    sums.words += n_words
    sums.characters += len(line)
    sums.bytes += len(line.encode("utf-8", "surrogatepass"))
    sums.tokens += len(ids)
    sums.unknown += ids.count(unknown) if unknown is not None else 0
    sums.exact += exact
