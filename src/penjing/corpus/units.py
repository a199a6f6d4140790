"""Texts as units (words of spaced scripts, characters of spaceless ones) with hashes, many texts at once.

All that looks into texts (repetition, near duplicates, contamination, language) works on these arrays: a loop
over words in Python reaches 2 MB/s, this about 100. Texts are looked at as UTF-8: `bytes.translate` says what
each byte of ASCII is, and only characters beyond are looked up by themselves. A word's hash of 64 bits takes
eight of its bytes at a time. The constants are fixed, so that hashes are the same in every process and on
every machine.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.data.duplicates import kinds_of_code_points, mix

CHUNK = 1 << 19  # characters looked at together; what stays near the processor
MOST_TEXTS = 1 << 18  # of a chunk
NEXT = np.uint64(0xA24BAED4963EE407)  # odd: what an n-gram's hash is multiplied by for the next unit
WORD, CODE, SPACE, LINE_END = 1, 2, 4, 8  # what a byte of ASCII is
_TRAITS = bytes(
    WORD * chr(i).isalnum()
    + CODE * (chr(i) in "{}[]();=<>_&|")
    + SPACE * (i == 0x20)
    + LINE_END * (i == 0x0A)
    if i < 0x80
    else 0
    for i in range(256)
)
_BLOCK = 8  # bytes of a word that are hashed at once
_LONG = 64  # bytes; a longer word is data, such as base64, and hashed whole
_INSIDE = np.array(
    [(1 << 8 * n) - 1 for n in range(_BLOCK + 1)], np.uint64
)  # n: the bytes of a block that count
_SPACELESS = np.uint64(1 << 32)  # on a character: a block with zero bytes before the last is that of no word


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
        return np.asarray(np.maximum(1, totals(self.length, self.edges)))

    def of(self, chosen: np.ndarray) -> Words:
        """Those of the texts with these indexes, ascending."""
        if len(chosen) == len(self.edges) - 1:
            return self
        n = np.diff(self.edges)
        edges = np.concatenate([[0], np.cumsum(n[chosen])])
        kept = np.zeros(len(n), bool)
        kept[chosen] = True
        here = np.repeat(kept, n)
        return Words(self.hashes[here], self.length[here], edges)


@dataclass(frozen=True)
class Chunk:
    """Lower-case texts end to end, each followed by a line end.

    n texts, B bytes, S characters beyond ASCII, U units.
    """

    traits: np.ndarray  # (B,) uint8 what each byte is: WORD, CODE, SPACE, LINE_END; 0 beyond ASCII
    starts: np.ndarray  # (n + 1,) int64 first byte of each text
    beyond: np.ndarray  # (S,) int64 first byte of each character beyond ASCII
    codes: np.ndarray  # (S,) uint32 their code points
    signs: np.ndarray  # (U,) uint32 first code point of each unit
    dense: np.ndarray  # (U,) bool: a character of a spaceless script
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
        """(n,) int64 sum over each text of (U,) values or flags."""
        return totals(values, self.edges)

    def byte_total(self, trait: int) -> np.ndarray:
        """(n,) int64 bytes of each text with a trait; the line end after it does not count."""
        return totals((self.traits & trait) > 0, self.starts) - (trait == LINE_END)

    def texts_with(self, table: np.ndarray) -> np.ndarray:
        """Indexes of the texts with a character beyond ASCII that the table, (0x110000,) bool, has."""
        at = self.beyond[table.take(self.codes)]
        return np.unique(np.searchsorted(self.starts, at, side="right") - 1)


def totals(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n,) int64 sum of `values[edges[i] : edges[i + 1]]`; the last edge is the end of the values."""
    found = np.zeros(len(edges) - 1, np.int64)
    full = np.flatnonzero(np.diff(edges))  # reduceat gives of an empty stretch what follows it
    if len(full):
        wide = np.int32 if values.dtype == bool else np.int64  # half the time for flags
        found[full] = np.add.reduceat(values, edges[full], dtype=wide)
    return found


def chunk(texts: Sequence[str]) -> Chunk:
    """The units of texts; upper and lower case are one."""
    lower = [text.lower() for text in texts]
    encoded = [text.encode("utf-8", "surrogatepass") for text in lower]
    sizes = np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1
    starts = np.concatenate([[0], np.cumsum(sizes)])
    raw = b"\n".join([*encoded, bytes(_BLOCK)])  # with room for the block of the last word
    traits = np.frombuffer(raw.translate(_TRAITS), np.uint8)[: starts[-1]]
    beyond = np.flatnonzero(np.frombuffer(raw, np.uint8) >= 0xC0)
    wide = "".join([text for text in lower if not text.isascii()]).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(wide, "<u4")
    codes = codes[codes > 0x7F]
    kinds = kinds_of_code_points().take(codes)

    spaced, spaceless = np.flatnonzero(kinds == 1), np.flatnonzero(kinds == 2)
    first, size, length = _words(traits, beyond[spaced], codes[spaced])
    hashes = _hashes(raw, first, size)
    signs = np.frombuffer(raw, np.uint8)[first].astype(np.uint32)
    outside = np.flatnonzero(signs > 0x7F)
    signs[outside] = codes[np.searchsorted(beyond, first[outside])]
    edges = np.searchsorted(first, starts)
    dense = np.zeros(len(first), bool)
    if len(spaceless):
        alone = codes[spaceless]
        dense = _second(first, beyond[spaceless])
        edges += np.searchsorted(beyond[spaceless], starts)
        length = _either(dense, length, 1)
        signs = _either(dense, signs, alone)
        hashes = _either(dense, hashes, _character_hashes().take(alone))
    return Chunk(traits, starts, beyond, codes, signs, dense, length, hashes, edges)


def _words(
    traits: np.ndarray, beyond: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first byte, bytes, characters) of every word; `beyond` and `codes` are the letters beyond ASCII."""
    word = (traits & WORD).view(bool)
    inner = 1 + (codes >= 0x800) + (codes >= 0x10000)  # bytes of a letter after its first
    word[beyond] = True
    for k in (1, 2, 3):
        word[beyond[inner >= k] + k] = True
    bounds = np.flatnonzero(np.diff(word, prepend=False, append=False)).reshape(-1, 2)
    first, size = bounds[:, 0].copy(), bounds[:, 1] - bounds[:, 0]
    if not len(beyond):
        return first, size, size
    which = np.searchsorted(first, beyond, side="right") - 1
    return first, size, size - np.bincount(which, inner, len(first)).astype(np.int64)


def _hashes(raw: bytes, first: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(U,) uint64 of the bytes of each word, wherever it stands."""
    blocks = np.ndarray(len(raw) - _BLOCK + 1, "<u8", raw, 0, (1,))  # one begins at every byte
    hashes = mix(blocks[first] & _INSIDE.take(np.minimum(size, _BLOCK)))
    done, rest = _BLOCK, np.flatnonzero(size > _BLOCK)
    while len(rest) and done < _LONG:
        more = blocks[first[rest] + done] & _INSIDE.take(np.minimum(size[rest] - done, _BLOCK))
        hashes[rest] = mix(hashes[rest] * NEXT + more)
        done += _BLOCK
        rest = rest[size[rest] > done]
    for i in rest.tolist():
        word = raw[first[i] : first[i] + size[i]]
        hashes[i] = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
    return hashes


@functools.lru_cache(maxsize=1)
def _character_hashes() -> np.ndarray:
    """(0x110000,) uint64 by code point, of characters that are units."""
    return mix(np.arange(0x110000, dtype=np.uint64) | _SPACELESS)


def _second(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which of both, in one ascending order, are of the second; the fewer are looked up among the others."""
    if len(second) > len(first):
        return ~_second(second, first)
    found = np.zeros(len(first) + len(second), bool)
    found[np.searchsorted(first, second) + np.arange(len(second))] = True
    return found


def _either(chosen: np.ndarray, no: np.ndarray, yes: np.ndarray | int) -> np.ndarray:
    """Values of `yes` in order where chosen, else of `no`."""
    found = np.empty(len(chosen), no.dtype)
    found[~chosen] = no
    found[chosen] = yes
    return found


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
