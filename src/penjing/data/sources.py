"""From what the user wrote (file, folder, glob, `hf:name`, list of them) to tables.

A new format is a reader that gives a Table and a line in `_of_file`.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from penjing.data import brat
from penjing.data.columnar import is_saved_dataset, read_hub, read_parquet, read_saved
from penjing.data.conll import is_conll, parallel_files, read_conll, read_parallel
from penjing.data.delimited import read_delimited
from penjing.data.encoding import find_encoding, find_encodings, open_text, plain_name
from penjing.data.features import with_names
from penjing.data.objects import read_json
from penjing.data.plain import read_plain
from penjing.data.table import Cells, Table
from penjing.errors import DataError, nearest

_TEXTS = ("", ".txt", ".text", ".md")
_TABLES = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", ".conll", ".conllu", ".bio")
SPLITS = frozenset(
    ("train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval", "unsup")
)


def tables(
    source: str | Path | Sequence[str | Path], *, encoding: str | None = None, wanted: Sequence[str] = ()
) -> list[Table]:
    """The tables of a source, in the order given, files of a glob or folder by name.

    Raises:
        DataError: nothing is there (the nearest name is offered), a folder holds nothing readable, or what
            each
            format refuses.
    """
    if not isinstance(source, str | Path):
        if not source:
            raise DataError("A list of files was given as data; it is empty. Give at least one file.")
        return [table for one in source for table in tables(one, encoding=encoding, wanted=wanted)]
    name = str(source)
    if name.startswith("hf:"):
        return [read_hub(name)]
    path, key = Path(name).expanduser(), None
    if not path.exists() and "#" in name:
        name, _, key = name.rpartition("#")
        path = Path(name).expanduser()
    if path.is_dir():
        return _of_folder(path, name, key, encoding, wanted)
    if path.exists():
        return [_of_file(path, name, key, encoding, wanted)]
    if glob.has_magic(name):
        hits = [Path(hit) for hit in sorted(glob.glob(str(path), recursive=True)) if Path(hit).is_file()]
        if not hits:
            raise DataError(
                f"`{name}` was to match files; none is there. Check the pattern; `**` reaches into folders."
            )
        return [_of_file(hit, str(hit), key, encoding, wanted) for hit in hits]
    raise _missing(path, name)


def _missing(path: Path, name: str) -> DataError:
    folder = next((p for p in path.parents if p.is_dir()), Path())
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if folder != path.parent:
        return DataError(
            f"A file was wanted at {name}; the folder {path.parent} is not there. {folder.resolve()} is. "
            f"Check the path."
        )
    near = nearest(path.name, there)
    known = "" if near else f" The folder {folder.resolve()} holds {', '.join(there[:8]) or 'nothing'}."
    return DataError(
        f"A file was wanted at {name}; there is none.{near}{known} Give a file, folder, glob or `hf:name`."
    )


def _of_file(path: Path, name: str, key: str | None, encoding: str | None, wanted: Sequence[str]) -> Table:
    if path.stat().st_size == 0:
        raise DataError(
            f"{name} was to hold rows; it is empty (0 bytes). Give a file with at least a text a row."
        )
    plain = plain_name(path)
    suffix = os.path.splitext(plain)[1]
    if suffix in (".json", ".jsonl", ".ndjson"):
        return with_names(read_json(path, name=name, encoding=encoding, key=key), path)
    if key is not None:
        raise DataError(
            f"`{name}#{key}`: `#` chooses a list of a JSON file or a split of a saved dataset; {name} is "
            f"neither. Leave it out."
        )
    if suffix in (".tsv", ".tab") and _is_sentences(path, encoding):
        return read_conll(path, name=name, encoding=encoding)
    if suffix in (".csv", ".tsv", ".tab"):
        return read_delimited(path, name=name, encoding=encoding, wanted=wanted)
    if suffix in (".conll", ".conllu", ".bio", ".iob"):
        return read_conll(path, name=name, encoding=encoding)
    with path.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return with_names(read_parquet(path, name=name), path)
    if suffix == ".parquet":
        raise DataError(
            f"{name} was to be a Parquet file; it does not begin with PAR1. Copy it anew, or give it its "
            f"true suffix."
        )
    return read_plain(path, name=name, encoding=encoding, wanted=wanted)


def _is_sentences(path: Path, encoding: str | None) -> bool:
    """Whether a file of tab-separated cells holds a token a line, and sentences with blank lines between."""
    codec, _ = find_encoding(path, encoding=encoding)
    with open_text(path, codec) as stream:
        head = list(itertools.islice(stream, 1000))
    return is_conll(head) and any(not line.strip() for line in head[:-1])


def _of_folder(
    folder: Path, name: str, key: str | None, encoding: str | None, wanted: Sequence[str]
) -> list[Table]:
    if is_saved_dataset(folder):
        return [read_saved(folder, name=name, key=key)]
    if parallel_files(folder):
        return [read_parallel(folder, name=name, encoding=encoding)]
    if annotated := brat.documents(folder):
        return [brat.read_brat(annotated, name=name, encoding=encoding)]
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    files = sorted(
        p for p in folder.iterdir() if p.is_file() and os.path.splitext(plain_name(p))[1] in _TABLES
    )
    splits = [p.name for p in inner if p.name.lower() in SPLITS]
    if splits:
        raise DataError(
            f"{name} holds the parts {', '.join(splits)}; one was wanted. Give one of them, such as "
            f"{folder / splits[0]}."
        )
    classes = {p.name: _texts(p) for p in inner}
    if any(classes.values()) and not files:
        empty = next((label for label, texts in classes.items() if not texts), None)
        if empty is not None:
            raise DataError(
                f"{folder / empty} is a class of {name} by its name; it holds no text file. Add texts or "
                f"remove the folder."
            )
        return [_of_classes(name, classes, encoding)]
    parts = sorted(
        {
            word
            for p in files
            for word in plain_name(p).replace("-", ".").replace("_", ".").split(".")
            if word in SPLITS
        }
    )
    if len(parts) > 1:
        likely = next((p for p in files if "train" in p.name), files[0])
        raise DataError(
            f"{name} holds files of several parts ({', '.join(parts)}); one was wanted. Give a file, such as "
            f"{likely}."
        )
    if not files:
        raise DataError(
            f"{name} is a folder; it holds neither tables ({', '.join(_TABLES)}) nor one sub-folder a class "
            f"with text files. "
            f"Give a file, or a glob such as {folder / '*.txt'}."
        )
    return [_of_file(p, str(p), key, encoding, wanted) for p in files]


def _texts(folder: Path) -> list[Path]:
    """Text files of a class, at any depth."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return sorted(
        p
        for p in files
        if p.suffix.lower() in _TEXTS or (p.suffix == ".gz" and Path(p.stem).suffix in _TEXTS)
    )


def _of_classes(name: str, classes: dict[str, list[Path]], encoding: str | None) -> Table:
    paths = [(path, label) for label, texts in classes.items() for path in texts]
    codecs, note = find_encodings([path for path, _ in paths], name=name, encoding=encoding)

    def rows(names: Sequence[str]) -> Cells:
        for (path, label), codec in zip(paths, codecs, strict=True):
            with open_text(path, codec) as stream:
                cells = {"text": stream.read().strip(), "label": label}
            yield 1, [cells[column] for column in names]

    files = tuple(str(path) for path, _ in paths)
    return Table(
        name,
        ("text", "label"),
        rows,
        files,
        (note,) if note else (),
        typed=True,
        headed=False,
        file_a_row=True,
    )
