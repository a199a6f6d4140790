"""Sifted parts and the fates of their documents to the shards of a corpus: `train/00000.parquet` and so
on.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.sift import Tally, line_hash, sifted
from penjing.corpus.twins import REASONS, STAYS
from penjing.files import sha256, write_json, write_with

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Fate:
    """What becomes of the documents of one part; as in `Fates`."""

    fate: np.ndarray
    valid: np.ndarray
    lines: np.ndarray


def settle(index: int, sifted_part: Path, fate: Fate, spec: CorpusSpec, folder: Path, report: Path) -> None:
    """Write the part's shard of each split, and last of all `report`: what was kept and dropped, and their
    hashes.
    """
    tally = Tally()
    train, valid = places = [folder / split / f"{index:05d}.parquet" for split in SPLITS]
    sums = [Sums(), Sums()]

    def write(*asides: Path) -> None:
        _write(asides, _kept(sifted_part, fate, spec, tally), sums)

    write_with(train, lambda first: write_with(valid, lambda second: write(first, second)))
    shards = {}
    for split, place, found in zip(SPLITS, places, sums, strict=True):
        if found.kept:
            shards[f"{split}/{place.name}"] = {
                "sha256": sha256(place), "content": found.content.hexdigest()
            }  # fmt: skip
        else:
            place.unlink()
    spoken: Counter[str] = Counter()
    for found in sums:
        spoken.update(found.languages)
    write_json(
        report,
        {
            "dropped": tally.dropped,
            "samples": tally.samples,
            "kept": {split: found.kept for split, found in zip(SPLITS, sums, strict=True)},
            "languages": spoken,
            "shards": shards,
        },
    )


@dataclass(frozen=True)
class Sums:
    """What one split of a part holds."""

    kept: dict[str, list[int]] = field(default_factory=dict)  # source: documents, characters, UTF-8 bytes
    languages: Counter[str] = field(default_factory=Counter)
    content: Any = field(default_factory=hashlib.sha256)  # over source, id and text of each document

    def add(self, batch: Any) -> None:
        """Count the documents of a batch of rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        text, source, where, language = batch.columns
        sizes = pc.binary_length(text)
        row = (
            source.cast(pa.large_string()),
            where.cast(pa.large_string()),
            sizes.cast(pa.large_string()),
            text,
        )
        self.content.update(_bytes_of(pc.binary_join_element_wise(*row, pa.scalar("\0", pa.large_string()))))
        for one in pc.value_counts(language).to_pylist():
            self.languages[one["values"]] += one["counts"]
        owner, names = source.indices.to_numpy(), source.dictionary.to_pylist()
        ones = np.ones(len(owner))
        sums = [np.bincount(owner, of, len(names)) for of in (ones, pc.utf8_length(text), sizes)]
        for name, *more in zip(names, *(of.astype(np.int64).tolist() for of in sums), strict=True):
            if more[0]:
                had = self.kept.get(name, [0, 0, 0])
                self.kept[name] = [a + b for a, b in zip(had, more, strict=True)]


def _kept(path: Path, fate: Fate, spec: CorpusSpec, tally: Tally) -> Iterator[tuple[int, Any]]:
    """(split, batch) of the documents that stay; those that go are counted."""
    import pyarrow as pa

    known = {int(value).to_bytes(8, "big") for value in fate.lines.tolist()}
    at = 0
    for _, batch in sifted([path], ["text", "source", "id", "language"]):
        fates, valid = (of[at : at + len(batch)] for of in (fate.fate, fate.valid))
        at += len(batch)
        gone = np.flatnonzero(fates)
        for row, why in zip(batch.take(gone).to_pylist(), fates[gone].tolist(), strict=True):
            tally.drop(REASONS[why], row["source"], row["id"], row["text"], most=spec.samples)
        for split, mine in enumerate((~valid, valid)):
            part = batch.filter(pa.array((fates == STAYS) & mine))
            yield split, _without_lines(part, known, spec, tally) if known else part


def _without_lines(batch: Any, known: set[bytes], spec: CorpusSpec, tally: Tally) -> Any:
    """The documents without the known lines; not those that lose more than half of their text so."""
    import pyarrow as pa

    rows = []
    for row in batch.to_pylist():
        text = row["text"]
        if row["language"] != "code":
            text = _without(text, known, spec.twins.line_length)
        if len(text) < len(row["text"]) // 2:
            tally.drop("common_lines", row["source"], row["id"], row["text"], most=spec.samples)
        else:
            rows.append({**row, "text": text})
    return pa.RecordBatch.from_pylist(rows, schema=batch.schema)


def _without(text: str, lines: set[bytes], least: int) -> str:
    kept = [x for x in text.split("\n") if len(x.strip()) < least or line_hash(x.strip()) not in lines]
    return "\n".join(kept).strip("\n")


def _write(places: Sequence[Path], batches: Iterator[tuple[int, Any]], sums: Sequence[Sums]) -> None:
    """Each batch into the file of its split; both are read in one passage."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"text": pa.large_string(), "source": pa.string(), "id": pa.string(), "language": pa.string()}
    schema = pa.schema(columns)
    told = ["source", "language"]
    with contextlib.ExitStack() as stack:
        out = [
            stack.enter_context(
                pq.ParquetWriter(
                    place, schema, compression="zstd", use_dictionary=told, write_statistics=told
                )
            )
            for place in places
        ]
        for split, batch in batches:
            if len(batch):
                sums[split].add(batch)
                out[split].write_table(pa.Table.from_batches([batch]).cast(schema))


def utf8_of(column: Any) -> list[memoryview]:
    """The bytes of each text of an Arrow column of large strings, without copying them."""
    edges, whole = _edges(column), memoryview(column.buffers()[2] or b"")
    return [whole[begin:end] for begin, end in itertools.pairwise(edges.tolist())]


def _bytes_of(column: Any) -> memoryview:
    """The bytes of all texts of a column of large strings, end to end."""
    edges = _edges(column)
    return memoryview(column.buffers()[2] or b"")[edges[0] : edges[-1]]


def _edges(column: Any) -> np.ndarray:
    """(n + 1,) int64 where each text begins in the column's bytes, and where the last one ends."""
    return np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
