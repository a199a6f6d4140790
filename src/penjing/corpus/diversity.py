"""How rich the text of each source is: words, their entropy, how well it packs, what it speaks of.

Measured on a sample of whole documents, about a million characters a source, chosen by the hash of their
text.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from penjing.corpus.language import WORDS
from penjing.corpus.units import chunk, chunked, rolled

SAMPLE = 1_000_000  # characters
_PACKED = 1_000_000  # bytes that are packed
_GRAMS = (1, 2, 3, 5)
_TOP = 12
# Function words are left out of what a source speaks of; nothing is ever taken out of its text.
_CHINESE = (
    "的 了 是 在 和 有 不 我 他 这 也 就 都 与 为 以 上 中 对 一 个 人 们 到 说 要 大 来 会 可 你 "
    "出 而 地 得 着 下 自 之 年 从 其 我们 他们 一个 没有 自己 这个 可以 什么 已经 因为 进行 以及"
)
_STOP = frozenset(word for words in WORDS.values() for word in words.split()) | frozenset(_CHINESE.split())


def sampled(rows: Iterator[tuple[memoryview, str]], characters: dict[str, int]) -> dict[str, list[str]]:
    """Texts of each source, about `SAMPLE` characters, whatever their order.

    Args:
        rows: (UTF-8 of the text, source).
        characters: of each source in all.
    """
    found: dict[str, list[str]] = {}
    for text, source in rows:
        share = SAMPLE / max(1, characters[source])
        if share >= 1 or zlib.crc32(text) < share * 2**32:
            found.setdefault(source, []).append(str(text, "utf-8"))
    return found


def diversity(texts: list[str]) -> dict[str, float | int | list[str]]:
    """What a sample shows.

    `vocabulary`: different units (words, characters of Chinese) among the first 100,000; `entropy_1` to
    `entropy_3`:
    bits of a unit, of a pair, of three; `packed`: size under zlib over size; `repeated`: share of 5-grams
    that stand
    more than once; `words`: the most frequent, function words left out.
    """
    parts = [chunk(texts[part]).words for part in chunked([len(text) for text in texts])]
    units = np.concatenate([*(part.hashes for part in parts), np.zeros(0, np.uint64)])
    counts = {
        n: _counts(np.concatenate([*(rolled(part, n)[1] for part in parts), units[:0]])) for n in _GRAMS
    }
    raw = "\n".join(texts).encode("utf-8", "replace")[:_PACKED]
    again = counts[5]
    return {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "units": len(units),
        "vocabulary": len(_counts(units[:100_000])),
        **{f"entropy_{n}": round(_entropy(counts[n]), 3) for n in (1, 2, 3)},
        "packed": round(len(zlib.compress(raw, 1)) / max(1, len(raw)), 4),
        "repeated": round(float(again[again > 1].sum() / max(1, again.sum())), 4),
        "words": top_words(texts),
    }


def _entropy(counts: np.ndarray) -> float:
    """Bits of one draw of things that stand so often: log2 N - 1/N sum c log2 c."""
    if not len(counts):
        return 0.0
    n_of = np.bincount(counts)  # things that stand once, twice, …: few numbers to take logarithms of
    often = np.flatnonzero(n_of)
    total = float(counts.sum())
    return float(np.log2(total) - (n_of[often] * often * np.log2(often)).sum() / total)


def _counts(hashes: np.ndarray) -> np.ndarray:
    """How often each different one stands there, in the order of the hashes."""
    found = np.sort(hashes)
    edges = np.ones(len(found) + 1, bool)
    np.not_equal(found[1:], found[:-1], out=edges[1:-1])
    return np.diff(np.flatnonzero(edges)) if len(found) else np.zeros(0, np.int64)


def top_words(texts: list[str]) -> list[str]:
    """The most frequent words, and pairs of Chinese characters, which most Chinese words are."""
    size, read = 0, []
    for text in texts:
        size += len(text)
        read.append(text.lower())
        if size > SAMPLE // 2:
            break
    whole = "\n".join(read)
    counts = Counter({} if whole.isascii() else _pairs(whole))
    for piece, n in Counter(whole.split()).items():
        word = piece.strip(".,;:!?\"'()[]{}<>-")
        if len(word) > 2 and word.isalpha() and piece.isascii():
            counts[word] += n
    kept = (word for word, _ in counts.most_common(400) if word not in _STOP)
    return [word for word, _ in zip(kept, range(_TOP), strict=False)]


def _pairs(text: str) -> dict[str, int]:
    """How often the most frequent pairs of Chinese characters stand in a text, function words left out."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    alone = np.array([ord(sign) for sign in _STOP if len(sign) == 1], np.uint32)
    chinese = (codes >= 0x3400) & (codes <= 0x9FFF) & ~np.isin(codes, alone)
    first = np.flatnonzero(chinese[:-1] & chinese[1:])
    pairs, at, counts = np.unique(
        codes[first] << np.uint32(16) | codes[first + 1], return_index=True, return_counts=True
    )
    most = np.lexsort((at, -counts))[:400]
    return {
        chr(pair >> 16) + chr(pair & 0xFFFF): n
        for pair, n in zip(pairs[most].tolist(), counts[most].tolist(), strict=True)
    }
