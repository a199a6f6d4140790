"""Documents that are the same, over all parts: exactly, nearly (MinHash, LSH), and lines that many share.

Held in memory: about 250 bytes a document, and the n-grams (at most 1,024 hashes, 4 KiB) of those that
share a band
with another; texts stay on disk. What is near is decided on true n-gram sets, not on signatures. Of a group
of twins
the first stays, in the order of sources and files; which one does not depend on how many processes worked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.sift import shingle_sets, sifted
from penjing.corpus.units import chunk, chunked
from penjing.data.duplicates import SKETCH, Shingles, components, end_to_end

STAYS, EXACT, NEAR = 0, 1, 2
REASONS = {EXACT: "exact_twin", NEAR: "near_twin"}
_N_BUCKETS = 16  # in which line hashes are counted, one after another


@dataclass(frozen=True)
class Fates:
    """What becomes of every sifted document, in order; n documents."""

    fate: np.ndarray  # (n,) uint8: STAYS, EXACT or NEAR
    valid: np.ndarray  # (n,) bool: in the validation split
    starts: np.ndarray  # (parts + 1,) int64 first document of each part
    lines: np.ndarray  # uint64 hashes of lines that are taken out, ascending


def find_twins(paths: Sequence[Path], spec: CorpusSpec) -> Fates:
    """The fates of all documents of the sifted parts."""
    exact, source, starts = _facts(paths)
    n = len(exact)
    group = _firsts(exact)
    fate = np.zeros(n, np.uint8)
    if spec.twins.exact:
        fate[group != np.arange(n)] = EXACT
    if spec.twins.near is not None:
        near = _near(paths, spec, np.flatnonzero(group == np.arange(n)), n, spec.twins.near)
        group = near[group]
        fate[(fate == STAYS) & (group != np.arange(n)) & (near != np.arange(n))] = NEAR
    valid = _split(exact, group, source, fate == STAYS, share=spec.valid_share, seed=spec.seed)
    lines = _common_lines(paths, spec.twins.lines) if spec.twins.lines else np.zeros(0, np.uint64)
    return Fates(fate, valid, starts, lines)


def _facts(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, 2) uint64 halves of the texts' hashes, (n,) number of the source by name, (parts + 1,) starts."""
    hashes, names, counts = [], [], np.zeros(len(paths), np.int64)
    for i, batch in sifted(paths, ["exact", "source"]):
        values = np.frombuffer(b"".join(batch.column("exact").to_pylist()), ">u8").astype(np.uint64)
        hashes.append(values.reshape(-1, 2))
        names.append(np.array(batch.column("source").to_pylist(), object))
        counts[i] += len(batch)
    source = np.concatenate([*names, np.zeros(0, object)])
    order = {name: i for i, name in enumerate(sorted(set(source.tolist())))}
    numbers = np.fromiter((order[name] for name in source), np.int64, len(source))
    return (
        np.concatenate([*hashes, np.zeros((0, 2), np.uint64)]),
        numbers,
        np.concatenate([[0], np.cumsum(counts)]),
    )


def _firsts(exact: np.ndarray) -> np.ndarray:
    """(n,) the first document with the same hash. Sorted by one half, 20 times as fast as by both, then
    checked.
    """
    _, first, which = np.unique(exact[:, 0], return_index=True, return_inverse=True)
    group = first[which]
    return np.where(exact[group, 1] == exact[:, 1], group, np.arange(len(exact)))


def _near(paths: Sequence[Path], spec: CorpusSpec, alone: np.ndarray, n: int, threshold: float) -> np.ndarray:
    """(n,) for each document the first of its group of near twins, itself where it has none."""
    keys, marks = _signatures(paths, alone, n)
    chosen = np.flatnonzero(_shared(keys))  # of `alone`
    sets = _sets(paths, alone[chosen], spec.twins.ngram)
    component = components(sets, keys[:, chosen], marks[chosen], threshold=threshold)
    group = np.arange(n)
    documents = alone[chosen]
    smallest = np.full(len(chosen), n, np.int64)
    np.minimum.at(smallest, component, documents)
    group[documents] = smallest[component]
    return group


def _signatures(paths: Sequence[Path], alone: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(bands, m) uint32 keys and (m, hashes) uint8 marks of the documents `alone`; a column at a time is
    held.
    """
    wanted = np.zeros(n, bool)
    wanted[alone] = True
    keys: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    at = 0
    for _, batch in sifted(paths, ["keys", "marks"]):
        here = wanted[at : at + len(batch)]
        at += len(batch)
        for name, found, kind in (("keys", keys, np.uint32), ("marks", marks, np.uint8)):
            values = np.frombuffer(b"".join(batch.column(name).to_pylist()), kind).reshape(len(batch), -1)
            found.append(values[here])
    if not keys:
        return np.zeros((16, 0), np.uint32), np.zeros((0, 64), np.uint8)
    return np.concatenate(keys).T.copy(), np.concatenate(marks)


def _shared(keys: np.ndarray) -> np.ndarray:
    """(m,) bool: documents that share the key of a band with another one."""
    shared = np.zeros(keys.shape[1], bool)
    for band in keys:
        order = np.argsort(band, kind="stable")
        equal = band[order][1:] == band[order][:-1]
        shared[order[1:][equal]] = True
        shared[order[:-1][equal]] = True
    return shared


def _sets(paths: Sequence[Path], chosen: np.ndarray, ngram: int) -> Shingles:
    """The n-gram sets of these documents (ascending); at most the 1,024 smallest hashes of each."""
    import pyarrow.parquet as pq

    parts, at = [], 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                n = file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(chosen, [at, at + n])
                here = chosen[low:high] - at
                at += n
                if len(here):  # else the group is not unpacked
                    column = file.read_row_group(group, columns=["text"]).column("text")
                    texts = column.take(here).to_pylist()
                    for part in chunked([len(text) for text in texts]):
                        parts.append(shingle_sets(chunk(texts[part]).words, ngram, most=SKETCH))
    return end_to_end(parts)


def _split(
    exact: np.ndarray, group: np.ndarray, source: np.ndarray, stays: np.ndarray, *, share: float, seed: int
) -> np.ndarray:
    """(n,) bool: of every source that share of the groups with the smallest seeded hashes, whatever their
    order.
    """
    valid = np.zeros(len(exact), bool)
    spread = (exact[:, 0] ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)) * np.uint64(0xD6E8FEB86659FD93)
    spread ^= spread >> np.uint64(32)
    for one in np.unique(source):
        # A group goes where its first document goes, be that of another source.
        heads = np.unique(group[stays & (source[group] == one)])
        n_valid = round(share * len(heads))
        valid[heads[np.argsort(spread[heads], kind="stable")[:n_valid]]] = True
    return np.asarray(valid[group])


def _common_lines(paths: Sequence[Path], most: int) -> np.ndarray:
    """Hashes of lines that stand in more than so many documents, a sixteenth of all hashes at a time."""
    found = []
    for bucket in range(_N_BUCKETS):
        here = []
        for _, batch in sifted(paths, ["lines"]):
            values = np.frombuffer(b"".join(batch.column("lines").to_pylist()), ">u8").astype(np.uint64)
            here.append(values[values >> np.uint64(60) == bucket])
        values, counts = np.unique(np.concatenate([*here, np.zeros(0, np.uint64)]), return_counts=True)
        found.append(values[counts > most])
    return np.concatenate(found)
