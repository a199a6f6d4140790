"""Texts as units (words of spaced scripts, characters of spaceless ones) with 64-bit hashes, many texts at
once.

All that looks into texts (repetition, near duplicates, contamination, language) works on these arrays: a loop
over words in Python reaches 2 MB/s, this about 40. A span's hash is a difference of prefix sums: with
H[i] = sum of c[j] * B**j over j < i, the span [a, b) is (H[b] - H[a]) * B**-a, all modulo 2**64 (Karp and
Rabin
1987), mixed at the end. The constants are fixed, so that hashes are the same in every process and on every
machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.data.duplicates import kinds_of_code_points, mix

CHUNK = 1 << 19  # characters looked at together; what stays near the processor
MOST_TEXTS = 1 << 18  # of a chunk
_BASE = 0x9E3779B97F4A7C15 | 1
_SPREAD = np.uint32(0x6659FD93)  # odd: takes code points over all 32 bits
NEXT = np.uint64(0xA24BAED4963EE407)  # odd: what an n-gram's hash is multiplied by for the next unit


@dataclass(frozen=True)
class Words:
    """The units of some texts: T texts, U units."""

    hashes: np.ndarray  # (U,) uint64
    length: np.ndarray  # (U,) int64
    edges: np.ndarray  # (T + 1,) int64

    @property
    def owner(self) -> np.ndarray:
        """(U,) int64 text of each unit."""
        return np.repeat(np.arange(len(self.edges) - 1), np.diff(self.edges))

    @property
    def size(self) -> np.ndarray:
        """(T,) int64 characters, at least 1."""
        sums = np.concatenate([[0], np.cumsum(self.length)])
        return np.asarray(np.maximum(1, sums[self.edges[1:]] - sums[self.edges[:-1]]))

    def of(self, chosen: np.ndarray) -> Words:
        """Those of the texts with these indexes."""
        n = np.diff(self.edges)[chosen]
        ends = np.cumsum(n)
        at = np.repeat(self.edges[chosen] - (ends - n), n) + np.arange(n.sum())
        return Words(self.hashes[at], self.length[at], np.concatenate([[0], ends]))


@dataclass(frozen=True)
class Chunk:
    """Lower-case texts end to end, each followed by a line end. n texts, C characters, U units."""

    codes: np.ndarray  # (C,) uint32 code points
    starts: np.ndarray  # (n + 1,) int64 first character of each text
    kinds: np.ndarray  # (C,) uint8: 1 letter or digit of a spaced script, 2 of a spaceless one, else 0
    sums: np.ndarray  # (C + 1,) uint64 prefix sums, from which the hash of any span comes
    first: np.ndarray  # (U,) int64 first character of each unit
    length: np.ndarray  # (U,) int64 characters of each unit
    hashes: np.ndarray  # (U,) uint64
    edges: np.ndarray  # (n + 1,) int64 first unit of each text

    @property
    def words(self) -> Words:
        """The units without the characters they are made of."""
        return Words(self.hashes, self.length, self.edges)

    @property
    def owner(self) -> np.ndarray:
        """(U,) int64 text of each unit."""
        return self.words.owner

    def unit_total(self, values: np.ndarray) -> np.ndarray:
        """(n,) sum over each text of (U,) values or flags."""
        sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.asarray(sums[self.edges[1:]] - sums[self.edges[:-1]])


@functools.lru_cache(maxsize=4)
def _power_table(size: int) -> tuple[np.ndarray, np.ndarray]:
    """B**i and B**-i for i < size, modulo 2**64, by doubling."""
    tables = []
    for base in (_BASE, pow(_BASE, -1, 2**64)):
        table = np.ones(size, np.uint64)
        done = 1
        while done < size:
            step = np.uint64(pow(base, done, 2**64))
            table[done : 2 * done] = table[: min(done, size - done)] * step
            done *= 2
        tables.append(table)
    return tables[0], tables[1]


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    whole = _power_table(max(2 * CHUNK, 1 << (size - 1).bit_length()))
    return whole[0][:size], whole[1][:size]


def chunk(texts: Sequence[str]) -> Chunk:
    """The units of texts; upper and lower case are one."""
    lower = [text.lower() for text in texts]
    raw = ("\n".join(lower) + "\n").encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(raw, "<u4")
    sizes = np.fromiter(map(len, lower), np.int64, len(lower)) + 1
    starts = np.concatenate([[0], np.cumsum(sizes)])
    kinds = kinds_of_code_points()[codes]
    first, end = _bounds(kinds)
    powers, inverse = _powers(len(codes))
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.multiply(codes * _SPREAD, powers, out=sums[1:])
    np.cumsum(sums, out=sums)
    hashes = mix((sums[end] - sums[first]) * inverse[first])
    return Chunk(codes, starts, kinds, sums, first, end - first, hashes, np.searchsorted(first, starts))


def _bounds(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First character and end of every unit: a run of kind 1, or one character of kind 2."""
    word = kinds == 1
    before = np.concatenate([[False], word[:-1]])
    after = np.concatenate([word[1:], [False]])
    dense = kinds == 2
    return np.flatnonzero(word & ~before | dense), np.flatnonzero(word & ~after | dense) + 1


def chunked(sizes: Sequence[int]) -> Iterator[slice]:
    """Slices of texts of these many characters that make chunks of about `CHUNK` characters."""
    begin = size = 0
    for i, one in enumerate(sizes):
        size += one + 1
        if size >= CHUNK or i + 1 - begin == MOST_TEXTS or i + 1 == len(sizes):
            yield slice(begin, i + 1)
            begin, size = i + 1, 0


def ngrams(words: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(at, hashes): first unit and hash of every run of n units that lies within one text."""
    at, hashes = rolled(words, n)
    return at, mix(hashes) if n > 1 else hashes


def rolled(words: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`ngrams` before they are mixed: `hashes * NEXT + words.hashes[at + n]` is that of one unit more."""
    hashes, edges = words.hashes, words.edges
    m = len(hashes) - n + 1
    if m <= 0:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    found = hashes[:m].copy()
    for k in range(1, n):
        found *= NEXT
        found += hashes[k : k + m]
    whole = np.ones(m, bool)
    for edge in range(1, n):  # those that begin so near an end run over it
        at = edges[1:] - edge
        whole[at[(at >= 0) & (at < m)]] = False
    kept = np.flatnonzero(whole)
    return kept, found[kept]


def hash_of(word: str) -> int:
    """The hash of one unit, as it stands in a chunk."""
    return int(chunk([word]).hashes[0])
