"""Sifted parts and the fates of their documents to the shards of a corpus: `train/00000.parquet` and so
on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.sift import Tally, line_hash, sifted
from penjing.corpus.twins import REASONS
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
            _write(aside, _rows(sifted_part, fate, spec, split, tally), kept[split], spoken, content)

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


def _rows(path: Path, fate: Fate, spec: CorpusSpec, split: str, tally: Tally) -> Iterator[dict[str, str]]:
    """The documents of one split; the dropped ones are counted with the first split."""
    known = {int(value).to_bytes(8, "big") for value in fate.lines.tolist()}
    at = 0
    for _, batch in sifted([path], ["text", "source", "id", "language"]):
        for row in batch.to_pylist():
            reason = REASONS.get(int(fate.fate[at]), "")
            mine = bool(fate.valid[at]) == (split == "valid")
            at += 1
            if reason and split == SPLITS[0]:
                tally.drop(reason, row["source"], row["id"], row["text"], most=spec.samples)
            if reason or not mine:
                continue
            text = (
                _without(row["text"], known, spec.twins.line_length)
                if known and row["language"] != "code"
                else row["text"]
            )
            if len(text) < len(row["text"]) // 2:
                tally.drop("common_lines", row["source"], row["id"], row["text"], most=spec.samples)
            else:
                yield {**row, "text": text}


def _without(text: str, lines: set[bytes], least: int) -> str:
    kept = [x for x in text.split("\n") if len(x.strip()) < least or line_hash(x.strip()) not in lines]
    return "\n".join(kept).strip("\n")


def _write(
    path: Path,
    rows: Iterator[dict[str, str]],
    kept: dict[str, list[int]],
    spoken: dict[str, int],
    content: Any,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"text": pa.large_string(), "source": pa.string(), "id": pa.string(), "language": pa.string()}
    with pq.ParquetWriter(path, pa.schema(columns), compression="zstd") as out:
        block: list[dict[str, str]] = []
        for row in rows:
            raw = row["text"].encode("utf-8")
            content.update(f"{row['source']}\0{row['id']}\0{len(raw)}\0".encode())
            content.update(raw)
            of = kept.setdefault(row["source"], [0, 0, 0])
            for i, more in enumerate((1, len(row["text"]), len(raw))):
                of[i] += more
            spoken[row["language"]] = spoken.get(row["language"], 0) + 1
            block.append(row)
            if len(block) == 1024:
                out.write_table(pa.Table.from_pylist(block, schema=out.schema))
                block = []
        if block:
            out.write_table(pa.Table.from_pylist(block, schema=out.schema))
