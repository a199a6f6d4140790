"""A corpus to read: the folder that `penjing corpus prepare` wrote, or text as it lies.

    corpus = open_corpus("corpus/")
    for text, source in corpus.texts("train"): ...

A plain text or JSON lines file, a folder or a pattern will do, too: then documents are parted by an empty
line and
nothing is filtered; files whose names say `valid`, `validation` or `dev` are the split `valid`, and those of
`test` are left out; so are folders of these names beside one named `train`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from penjing.corpus import asked
from penjing.corpus.documents import documents
from penjing.corpus.inputs import File, Piece, files_of
from penjing.errors import DataError, SpecError, nearest

MANIFEST = "manifest.json"
_VALID = re.compile(r"(?:^|[._-])(?:valid|validation|dev)(?=[._-]|$)", re.IGNORECASE)
_TEST = re.compile(r"(?:^|[._-])test(?=[._-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Corpus:
    """Documents by split and source. Nothing is held in memory; every pass reads the files anew, in one
    order.
    """

    folder: Path
    sources: tuple[str, ...]
    weights: Mapping[str, float]  # source: its share of what is drawn; the sum is 1
    weighed: bool  # whether `weights` were asked for; else they are what the sources hold
    characters: Mapping[
        str, int
    ]  # source: characters of its training text (bytes on disk where text lies raw)
    sha256: str  # of the texts of a prepared corpus; of the raw files otherwise
    manifest: Mapping[str, Any]  # empty where text lies raw
    _rows: Callable[[str], Iterator[tuple[str, str]]]

    def texts(self, split: str = "train", *, source: str | None = None) -> Iterator[tuple[str, str]]:
        """(text, source) of every document of a split, or of one source of it.

        Raises:
            SpecError: no such split or source.
            DataError: a raw file cannot be read.
        """
        if split not in ("train", "valid"):
            raise SpecError(
                f"A corpus has the splits `train` and `valid`; `{split}` was asked for. Name one of them."
            )
        if source is not None and source not in self.sources:
            raise SpecError(
                f"{self.folder} has no source `{source}`.{nearest(source, self.sources)} Its sources: "
                f"{', '.join(self.sources[:20])}."
            )
        return (row for row in self._rows(split) if source is None or row[1] == source)


def open_corpus(path: str | Path, **reading: Any) -> Corpus:
    """The corpus at a path. `reading` are keys of a corpus spec for text that lies raw: text, documents,
    encoding; those that are None count as not given.

    Raises:
        DataError: nothing is there, or the folder is one that `prepare` has not finished.
    """
    folder = Path(path).expanduser()
    if (folder / MANIFEST).is_file():
        return _prepared(folder)
    if (folder / ".work").is_dir():
        raise DataError(
            f"{folder} is a corpus that was not finished; it has no {MANIFEST}. Run `penjing corpus "
            f"prepare` with the "
            f"same settings again: it goes on where it stopped."
        )
    return _raw(str(path), {key: value for key, value in reading.items() if value is not None})


def _prepared(folder: Path) -> Corpus:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    sources = manifest["sources"]

    def rows(split: str) -> Iterator[tuple[str, str]]:
        import pyarrow.parquet as pq

        for name in manifest["shards"]:
            if name.startswith(f"{split}/"):
                if not (folder / name).is_file():
                    raise DataError(
                        f"{folder / name} was to hold documents; it is not there. Prepare the corpus anew."
                    )
                with pq.ParquetFile(folder / name) as file:
                    for batch in file.iter_batches(batch_size=1024, columns=["text", "source"]):
                        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)

    return Corpus(
        folder,
        tuple(sources),
        {name: one["weight"] for name, one in sources.items()},
        manifest["settings"]["weights"] is not None or manifest["settings"]["exponent"] != 1,
        {name: one["train"]["characters"] for name, one in sources.items()},
        manifest["sha256"],
        manifest,
        rows,
    )


def _raw(path: str, reading: dict[str, Any]) -> Corpus:
    spec = asked.read(raw=path, broken="refuse", **reading)
    found = files_of(spec)
    folders = any(_folder(file) == "train" for file in found)  # else `test` may be a folder like others
    files = [file for file in found if not _says(_TEST, file, folders)]
    by_split: dict[str, list[File]] = {"train": [], "valid": []}
    for file in files:
        by_split["valid" if _says(_VALID, file, folders) else "train"].append(file)
    if not by_split["train"]:
        raise DataError(
            f"{path} was to hold training text; all its files are validation or test ones by name."
        )
    sizes: dict[str, int] = {}
    for file in by_split["train"]:
        sizes[file.source] = sizes.get(file.source, 0) + file.size
    if not any(sizes.values()):
        raise DataError(f"{path} was to hold training text; it is empty (0 bytes). Give a file with text.")
    how = [spec.text, spec.documents, spec.encoding]  # read otherwise, it is another text
    digest = hashlib.sha256(json.dumps(how).encode())
    for file in files:
        with file.path.open("rb") as stream:
            digest.update(f"{file.source}\0{file.name}\0".encode())
            digest.update(hashlib.file_digest(stream, "sha256").digest())

    def rows(split: str) -> Iterator[tuple[str, str]]:
        for file in by_split[split]:
            for found in documents(Piece(str(file.path), file.name, file.source, file.kind), spec):
                if found.trouble not in ("", "no_text"):
                    way = "Mend it, or let `penjing corpus prepare` sort it out."
                    if found.trouble == "too_long":
                        way = f"One has at most {spec.longest:,} characters: part it by lines that are empty."
                    raise DataError(f"{found.where} was to be a document; {found.why.rstrip('.')}. {way}")
                if text := found.text.strip("\r\n"):
                    yield text, file.source

    total = sum(sizes.values())
    weights = {name: size / total for name, size in sizes.items()}
    return Corpus(Path(path), tuple(sizes), weights, False, sizes, digest.hexdigest(), {}, rows)


def _says(split: re.Pattern[str], file: File, folders: bool) -> bool:
    """Whether a file's name says that it is of a split, or its folder's where folders are splits."""
    return bool(split.search(file.path.name) or (folders and split.fullmatch(_folder(file))))


def _folder(file: File) -> str:
    """The folder below the one that was named, in which a file lies."""
    first, *inner = PurePath(file.name).parts
    return first.lower() if inner else ""
