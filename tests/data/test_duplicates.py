"""MinHash over many sets at once is that of each set alone, hash by hash."""

import numpy as np

from penjing.data.duplicates import Shingles, sets_of, signatures


def signature_by_hash(values: list[int]) -> tuple[list[int], list[int]]:
    """The key of each band and the lowest byte of each minimal hash, in Python's integers."""
    generator = np.random.Generator(np.random.PCG64(20_240_601))
    odd = (generator.integers(0, 2**31, size=(16, 4), dtype=np.uint32) * np.uint32(2) + np.uint32(1)).tolist()
    plus = generator.integers(0, 2**32, size=(16, 4), dtype=np.uint32).tolist()
    keys, marks = [], []
    for band in range(16):
        key = 1
        for a, b in zip(odd[band], plus[band], strict=True):
            least = min((value * a & 0xFFFFFFFF) ^ b for value in values)
            key = ((key ^ key >> 15) * 0x2C1B3C6D + least) & 0xFFFFFFFF
            marks.append(least & 255)
        keys.append(key)
    return keys, marks


def test_signatures_are_those_worked_out_hash_by_hash() -> None:
    rng = np.random.default_rng(0)
    sizes = [0, 1, 1, 2, 3, *rng.integers(4, 60, 40).tolist(), 200, 0, 9_000]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    sets = sets_of(owner, rng.integers(0, 2**64, len(owner), dtype=np.uint64), len(sizes), most=1 << 30)
    keys, marks = signatures(sets)
    for i, size in enumerate(sizes):
        values = sets.hashes[sets.starts[i] : sets.starts[i + 1]].tolist()
        expected = signature_by_hash(values) if size else ([0] * 16, [0] * 64)
        assert (keys[:, i].tolist(), marks[i].tolist()) == expected


def test_no_sets_have_no_signatures() -> None:
    keys, marks = signatures(Shingles(np.zeros(0, np.uint32), np.zeros(1, np.int64)))
    assert keys.shape == (16, 0)
    assert marks.shape == (0, 64)
