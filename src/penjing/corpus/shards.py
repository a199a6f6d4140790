"""Sifted parts and the fates of their documents to the shards of a corpus: `train/00000.parquet` and so
on.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
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
    kept: dict[str, dict[str, list[int]]] = {
        split: {} for split in SPLITS
    }  # split: source: documents, signs, bytes
    spoken: dict[str, int] = {}
    shards = {}
    for split in SPLITS:
        path = folder / split / f"{index:05d}.parquet"
        content = hashlib.sha256()

        def write(aside: Path, split: str = split, content: Any = content) -> None:
            _write(aside, _kept(sifted_part, fate, spec, split, tally), kept[split], spoken, content)

        write_with(path, write)
        if kept[split]:
            shards[f"{split}/{path.name}"] = {"sha256": sha256(path), "content": content.hexdigest()}
        else:
            path.unlink()
    write_json(
        report,
        {
            "dropped": tally.dropped,
            "samples": tally.samples,
            "kept": kept,
            "languages": spoken,
            "shards": shards,
        },
    )


def _kept(path: Path, fate: Fate, spec: CorpusSpec, split: str, tally: Tally) -> Iterator[Any]:
    """Batches of the documents of one split; the dropped ones are counted with the first split."""
    import pyarrow as pa

    known = {int(value).to_bytes(8, "big") for value in fate.lines.tolist()}
    mine = (fate.fate == STAYS) & (fate.valid == (split == "valid"))
    at = 0
    for _, batch in sifted([path], ["text", "source", "id", "language"]):
        here = slice(at, at := at + len(batch))
        if split == SPLITS[0]:
            gone = np.flatnonzero(fate.fate[here])
            for row, why in zip(batch.take(gone).to_pylist(), fate.fate[here][gone].tolist(), strict=True):
                tally.drop(REASONS[why], row["source"], row["id"], row["text"], most=spec.samples)
        batch = batch.filter(pa.array(mine[here]))
        yield _without_lines(batch, known, spec, tally) if known else batch


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


def _write(
    path: Path,
    batches: Iterator[Any],
    kept: dict[str, list[int]],
    spoken: dict[str, int],
    content: Any,
) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = {"text": pa.large_string(), "source": pa.string(), "id": pa.string(), "language": pa.string()}
    schema = pa.schema(columns)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["source", "language"]) as out:
        for batch in batches:
            if not len(batch):
                continue
            names = (batch.column(name).to_pylist() for name in ("source", "id"))
            signs = pc.utf8_length(batch.column("text")).to_pylist()
            for source, where, text, n in zip(*names, utf8_of(batch.column("text")), signs, strict=True):
                content.update(f"{source}\0{where}\0{len(text)}\0".encode())
                content.update(text)
                of = kept.setdefault(source, [0, 0, 0])
                for i, more in enumerate((1, n, len(text))):
                    of[i] += more
            for language in pc.value_counts(batch.column("language")).to_pylist():
                spoken[language["values"]] = spoken.get(language["values"], 0) + language["counts"]
            out.write_table(pa.Table.from_batches([batch]).cast(schema))


def utf8_of(column: Any) -> list[memoryview]:
    """The bytes of each text of an Arrow column of large strings, without copying them."""
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1].tolist()
    whole = memoryview(data or b"")
    return [whole[begin:end] for begin, end in itertools.pairwise(edges)]
