"""Equal and nearly equal texts: groups by normal form, and by MinHash with locality-sensitive hashing.

A text is a set of shingles: the words of alphabetic text, the character pairs of text written without spaces
(Han, kana, Thai). Two texts are near when the Jaccard similarity of their sets is at least a threshold;
candidates come from MinHash bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
3.4), each is then verified on the true sets, and groups are the connected components. All in numpy over
chunks; no randomness but fixed constants.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_CHUNK_CHARACTERS = 2_000_000
_N_BANDS = 16
_PER_BAND = 4  # at Jaccard 0.8 a pair shares a band with probability 1 - (1 - 0.8**4)**16 = 0.9998
SKETCH = 1024  # long texts are compared by their 1,024 smallest shingle hashes
_STEP = 1.2  # sizes within this factor share a matrix
_BLOCK = 8192  # values that 64 hash functions are applied to at once: 2 MiB, the processor's cache
_CROWD = 24  # buckets above this size compare neighbours, not all pairs
_LEAST_PAIRS = 400_000  # candidates a band may have at any size; beyond that 1.5 times the number of texts
_SPACELESS = (  # Thai and Lao, Burmese, Khmer, kana, Han
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def normal(text: str) -> str:
    """NFKC, lower case, white space collapsed: for comparing only, never for the model."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.lower().split())


def exact_groups(texts: Sequence[str]) -> np.ndarray:
    """(n,) int64: for each text the index of the first text with the same normal form."""
    return _firsts([normal(text) for text in texts])


def near_groups(texts: Sequence[str], *, threshold: float = 0.8) -> np.ndarray:
    """(n,) int64: for each text the smallest index of its group; equal texts are always of one group.

    Args:
        threshold: least Jaccard similarity of a near pair, in 0..1.
    """
    return both_groups(texts, threshold=threshold)[1]


def both_groups(texts: Sequence[str], *, threshold: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """What `exact_groups` and `near_groups` give, with the work they share done once."""
    plain = [normal(text) for text in texts]
    exact = _firsts(plain)
    firsts = np.flatnonzero(exact == np.arange(len(exact)))
    sets = shingles([plain[i] for i in firsts.tolist()])
    component = components(sets, *signatures(sets), threshold=threshold)
    smallest = np.full(len(firsts), len(texts), np.int64)
    np.minimum.at(smallest, component, firsts)
    group = np.arange(len(texts), dtype=np.int64)
    group[firsts] = smallest[component]
    return exact, np.asarray(group[exact])


def _firsts(plain: Sequence[str]) -> np.ndarray:
    first: dict[str, int] = {}
    return np.fromiter((first.setdefault(text, i) for i, text in enumerate(plain)), np.int64, len(plain))


@dataclass(frozen=True)
class Shingles:
    """Sets of shingle hashes end to end: set i is `hashes[starts[i]:starts[i + 1]]`, ascending."""

    hashes: np.ndarray  # (total,) uint32
    starts: np.ndarray  # (n + 1,) int64

    @property
    def sizes(self) -> np.ndarray:
        """(n,) int64."""
        return np.diff(self.starts)


@functools.lru_cache(maxsize=1)
def kinds_of_code_points() -> np.ndarray:
    """(0x110000,) uint8 by code point: 1 letter or digit of a spaced script, 2 of a spaceless one, else 0."""
    kinds = np.zeros(0x110000, np.uint8)
    # Marks (Mn, Mc) belong to the word they stand in, such as the vowel signs of Hindi.
    kinds[[i for i in range(0x30000) if chr(i).isalnum() or unicodedata.category(chr(i)) in ("Mn", "Mc")]] = 1
    for low, high in _SPACELESS:
        kinds[low : high + 1] = np.where((kinds[low : high + 1] == 1) | (low >= 0x3400), 2, 0)
    return kinds


def code_points(texts: Sequence[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Chunks of texts as (index of the first text, code points, starts); each text ends with a line end."""
    begin = size = 0
    for i, text in enumerate(texts):
        size += len(text) + 1
        if size >= _CHUNK_CHARACTERS or i == len(texts) - 1:
            part = texts[begin : i + 1]
            joined = ("\n".join(part) + "\n").encode("utf-32-le", "surrogatepass")
            lengths = np.fromiter(map(len, part), np.int64, len(part)) + 1
            yield begin, np.frombuffer(joined, np.uint32), np.concatenate([[0], np.cumsum(lengths)])
            begin, size = i + 1, 0


def of_kind(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For code points: kind (as in `kinds_of_code_points`), and whether each is Han, Latin, a letter."""
    kinds = kinds_of_code_points()[codes]
    han = (
        (codes >= 0x3400) & (codes <= 0x9FFF)
        | (codes >= 0xF900) & (codes <= 0xFAFF)
        | (codes >= 0x20000) & (codes <= 0x3FFFF)
    )
    lower = codes | np.uint32(0x20)
    latin = (lower >= 0x61) & (lower <= 0x7A) | (codes >= 0xC0) & (codes <= 0x24F) & (codes != 0xD7) & (
        codes != 0xF7
    )
    digit = (codes >= 0x30) & (codes <= 0x39)
    return kinds, han, latin, (kinds > 0) & ~digit


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finisher, on uint64, in place where possible (Steele, Lea and Flood 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def tokens_of(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(position of the first character, 64-bit hash) of every shingle of a chunk of code points."""
    kinds = kinds_of_code_points()[codes]
    word = kinds == 1
    before = np.concatenate([[False], word[:-1]])
    first = np.flatnonzero(word & ~before)
    inside = np.flatnonzero(word)
    pieces = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    if len(first):
        n_before = np.searchsorted(inside, first)
        place = inside - np.repeat(first, np.diff(np.append(n_before, len(inside))))
        mixed = mix(codes[inside].astype(np.uint64) + (place.astype(np.uint64) << np.uint64(24)))
        pieces[0].append(first)
        pieces[1].append(mix(np.add.reduceat(mixed, n_before)))
    dense = kinds == 2
    pair = np.flatnonzero(dense[:-1] & dense[1:])
    alone = np.flatnonzero(
        dense & ~np.concatenate([[False], dense[:-1]]) & ~np.concatenate([dense[1:], [False]])
    )
    wide = codes.astype(np.uint64)
    pieces[0].extend((pair, alone))
    pieces[1].extend((mix((wide[pair] << np.uint64(32)) + wide[pair + 1]), mix(wide[alone] << np.uint64(32))))
    return np.concatenate(pieces[0]), np.concatenate(pieces[1])


def shingles(texts: Sequence[str]) -> Shingles:
    """The shingle sets of normal texts, as 32-bit hashes; without letters or digits a set is empty."""
    parts = []
    for _, codes, starts in code_points(texts):
        at, values = tokens_of(codes)
        owner = np.searchsorted(starts, at, side="right") - 1
        parts.append(sets_of(owner, values, len(starts) - 1))
    return end_to_end(parts)


def sets_of(owner: np.ndarray, values: np.ndarray, n: int, *, most: int = SKETCH) -> Shingles:
    """The n sets of 64-bit hashes, each of the text `owner`, as 32-bit ones; of a large one its `most`
    smallest."""
    # One sort key: owner above, hash below. 32 bits of hash make a false common shingle a 1 in 4e9 event.
    keys = np.sort((owner.astype(np.uint64) << np.uint64(32)) | (values >> np.uint64(32)))
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]  # np.unique hashes, ten times slower
    counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=n)
    if counts.max(initial=0) > most:
        place = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
        keys = keys[place < most]
        counts = np.minimum(counts, most)
    return Shingles(keys.astype(np.uint32), np.concatenate([[0], np.cumsum(counts)]))


def end_to_end(parts: Sequence[Shingles]) -> Shingles:
    """The sets of several as one."""
    hashes = np.concatenate([*(part.hashes for part in parts), np.zeros(0, np.uint32)])
    sizes = np.concatenate([*(part.sizes for part in parts), np.zeros(0, np.int64)])
    return Shingles(hashes, np.concatenate([[0], np.cumsum(sizes)]))


def components(sets: Shingles, band_keys: np.ndarray, marks: np.ndarray, *, threshold: float) -> np.ndarray:
    """(n,) component of each set, joined by verified pairs; sets without shingles stay alone.

    Args:
        band_keys, marks: as `signatures` gives them.
        threshold: least Jaccard similarity of a pair.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(sets.sizes)
    component = np.arange(n, dtype=np.int64)
    n_hashes = _N_BANDS * _PER_BAND
    # Hashes that agree are binomial: five deviations below the mean lose 3 pairs in 10 million.
    least = n_hashes * threshold - 5 * (n_hashes * threshold * (1 - threshold)) ** 0.5
    for keys in band_keys:
        pairs = _candidates(sets, keys, component, threshold)
        pairs = pairs[:, _n_agree(marks, pairs) >= least]
        good = pairs[:, _jaccard(sets, pairs) >= threshold - 1e-9]
        if good.shape[1]:
            linked = np.concatenate([good, np.stack([np.arange(n), component])], axis=1)
            _, labels = connected_components(
                coo_array((np.ones(linked.shape[1], bool), linked), shape=(n, n)), directed=False
            )
            smallest = np.full(n, n, np.int64)
            np.minimum.at(smallest, labels, np.arange(n))
            component = smallest[labels]
    return component


def signatures(sets: Shingles) -> tuple[np.ndarray, np.ndarray]:
    """(bands, n) uint32 keys, each of `_PER_BAND` minimal hashes, and (n, hashes) uint8, a byte of each.

    Sets of about one size are a matrix, the smaller ones filled up with their last hash, to which all hash
    functions are applied at once: a hash of a shingle takes a nanosecond so, and ten with `minimum.reduceat`.
    """
    generator = np.random.Generator(np.random.PCG64(20_240_601))
    odd = generator.integers(0, 2**31, size=(_N_BANDS, _PER_BAND), dtype=np.uint32) * np.uint32(
        2
    ) + np.uint32(1)
    plus = generator.integers(0, 2**32, size=(_N_BANDS, _PER_BAND), dtype=np.uint32)
    odd, plus = odd.reshape(-1, 1), plus.reshape(-1, 1)
    keys = np.zeros((_N_BANDS, len(sets.sizes)), np.uint32)
    marks = np.zeros((len(sets.sizes), _N_BANDS * _PER_BAND), np.uint8)
    steps = np.ceil(np.log(np.maximum(1, sets.sizes)) / np.log(_STEP)).astype(np.int64)
    steps[sets.sizes == 0] = -1
    by_size = np.argsort(steps, kind="stable")
    edges = np.flatnonzero(np.diff(steps[by_size], prepend=-1))
    for rows in np.split(by_size, edges)[1:]:
        size = int(sets.sizes[rows].max())
        step = max(1, _BLOCK // size)
        for begin in range(0, len(rows), step):
            block = rows[begin : begin + step]
            place = np.minimum(np.arange(size), sets.sizes[block][:, None] - 1)
            values = sets.hashes[sets.starts[block][:, None] + place]
            parts = (_least(values[:, at : at + _BLOCK], odd, plus) for at in range(0, size, _BLOCK))
            least = functools.reduce(np.minimum, parts)
            marks[block] = least.T  # the lowest bytes
            key = np.ones((_N_BANDS, len(block)), np.uint32)
            for of_band in least.reshape(_N_BANDS, _PER_BAND, -1).transpose(1, 0, 2):
                key = (key ^ (key >> np.uint32(15))) * np.uint32(0x2C1B3C6D) + of_band
            keys[:, block] = key
    return keys, marks


def _least(values: np.ndarray, odd: np.ndarray, plus: np.ndarray) -> np.ndarray:
    """(hashes, n) least value of every hash function, (hashes, 1) each, over n sets of m values, (n, m)."""
    n, m = values.shape
    along = values.T if n > m else values  # the longer axis last: minima over many at a time
    spread = along.reshape(1, -1) * odd
    spread ^= plus
    return np.asarray(spread.reshape(len(odd), *along.shape).min(axis=1 if n > m else 2))


def _n_agree(marks: np.ndarray, pairs: np.ndarray, *, step: int = 50_000) -> np.ndarray:
    """(m,) how many minimal hashes of each pair have the same byte: cheap, and spares most of `_jaccard`."""
    parts = (pairs[:, begin : begin + step] for begin in range(0, pairs.shape[1], step))
    return np.concatenate([np.zeros(0), *(np.count_nonzero(marks[a] == marks[b], axis=1) for a, b in parts)])


def _candidates(sets: Shingles, keys: np.ndarray, component: np.ndarray, threshold: float) -> np.ndarray:
    """(2, m) pairs that share a band key, are not joined yet, and whose sizes allow the threshold."""
    sizes = sets.sizes
    full = np.flatnonzero(sizes)
    # By key, then by size: in a crowded bucket the neighbours are the likeliest.
    order = full[
        np.argsort(
            (keys[full].astype(np.uint64) << np.uint64(32)) | sizes[full].astype(np.uint64), kind="stable"
        )
    ]
    sorted_keys = keys[order]
    begin = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])[: len(order)])
    count = np.diff(np.append(begin, len(order)))
    ahead = np.repeat(count, count) - (np.arange(len(order)) - np.repeat(begin, count)) - 1
    pairs = [np.zeros((2, 0), np.int64)]
    for distance in range(1, _CROWD):
        left = np.flatnonzero(ahead >= distance)
        if not len(left):
            break
        pair = np.stack([order[left], order[left + distance]])
        kept = (component[pair[0]] != component[pair[1]]) & (
            sizes[pair[0]] >= threshold * sizes[pair[1]] - 1e-9
        )
        pairs.append(pair[:, kept])
        if sum(part.shape[1] for part in pairs) > max(_LEAST_PAIRS, 1.5 * len(sizes)):
            break  # texts from one template: millions of candidates, the nearest in size were looked at
    return np.concatenate(pairs, axis=1)


def _jaccard(sets: Shingles, pairs: np.ndarray, *, step: int = 100_000) -> np.ndarray:
    """(m,) Jaccard similarity of pairs; of sketches where a set was too large to keep whole."""
    found = np.zeros(pairs.shape[1])
    for begin in range(0, pairs.shape[1], step):
        part = pairs[:, begin : begin + step]
        m = part.shape[1]
        sides = []
        for rows in part:
            sizes = sets.sizes[rows]
            at = np.repeat(sets.starts[rows] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
            owner = np.repeat(np.arange(m, dtype=np.uint64), sizes) << np.uint64(32)
            sides.append(owner | sets.hashes[at])
        both = np.sort(np.concatenate(sides))
        twice = both[1:] == both[:-1]
        owner = (both >> np.uint64(32)).astype(np.int64)
        new = np.concatenate([[True], ~twice])
        cut = sets.sizes[part].max(axis=0) >= SKETCH
        if cut.any():
            # Bottom-k estimate: of the k smallest hashes of the union, the share that both have.
            union = np.bincount(owner[new], minlength=m)
            rank = np.cumsum(new) - 1 - np.repeat(np.cumsum(union) - union, np.bincount(owner, minlength=m))
            inside = (rank < SKETCH) | ~cut[owner]
            new, twice = new & inside, twice & inside[1:]
        shared = np.bincount(owner[1:][twice], minlength=m)
        found[begin : begin + m] = shared / np.maximum(1, np.bincount(owner[new], minlength=m))
    return found
