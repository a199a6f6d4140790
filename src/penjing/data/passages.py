"""Raw text as a stream: files of any size, a passage at a time, line ends kept. `read` is for rows."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from penjing.data.columnar import is_saved_dataset
from penjing.data.columns import choose
from penjing.data.encoding import find_encoding, open_text, plain_name
from penjing.data.sources import tables
from penjing.errors import DataError, nearest

PASSAGE = 1 << 16  # characters of a text file at once, to the next line end
TABLES = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet")
TEXTS = ("", ".txt", ".text", ".md")


def passages(
    source: str | Path | Sequence[str | Path], *, text: str | None = None, encoding: str | None = None
) -> Iterator[tuple[str, str]]:
    """(file, text) of a file, folder, glob, `hf:name` or a list of these: a row of a table, or some 64 KiB of
    a text file, whose passages set end to end are the file. Packed files (.gz, .bz2, .xz, .zip) are unpacked.

    text: column of tables; guessed when not given.

    Raises:
        DataError: nothing is there, it is empty, a column is missing, or bytes break the encoding.
    """
    for name in files_of(source):
        path = Path(name).expanduser()
        if not path.is_file() or _is_table(path):
            yield from _cells(name, text, encoding)
        else:
            yield from ((name, passage) for passage in _pieces(path, encoding))


def files_of(source: str | Path | Sequence[str | Path]) -> list[str]:
    """The files a source stands for, in order; what is not a file (`hf:name`, a saved dataset) as it is.

    Raises:
        DataError: a file is missing (the nearest name is offered), or a pattern or folder gives none.
    """
    if not isinstance(source, str | Path):
        if not source:
            raise DataError("A corpus was wanted; the list of files is empty. Give at least one file.")
        return [name for one in source for name in files_of(one)]
    name = str(source)
    path = Path(name).expanduser()
    if name.startswith("hf:") or path.is_file() or (path.is_dir() and is_saved_dataset(path)):
        return [name]
    if path.is_dir():
        known = sorted(p for p in _seen(path) if _is_known(p))
        if not known:
            raise DataError(
                f"{name} was to hold texts; no file in it that is not empty ends in "
                f"{', '.join((*TEXTS[1:], *TABLES))}. Give "
                f"files or a pattern, such as {path / '*.html'}."
            )
        return [str(p) for p in known]
    if glob.has_magic(name):
        hits = sorted(hit for hit in glob.glob(str(path), recursive=True) if Path(hit).is_file())
        if not hits:
            raise DataError(f"`{name}` was to match files; none is there. Check the pattern.")
        return hits
    there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(
        f"A text was wanted at {name}; there is none.{nearest(path.name, there)} Give a file, folder or "
        "pattern."
    )


def passed_over(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files in folders of a source that are not read: empty ones, and those of other kinds."""
    parts = [source] if isinstance(source, str | Path) else source
    folders = [
        path for one in parts if (path := Path(one).expanduser()).is_dir() and not is_saved_dataset(path)
    ]
    return [file for folder in folders for file in sorted(_seen(folder)) if not _is_known(file)]


def _seen(folder: Path) -> Iterator[Path]:
    return (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _is_known(path: Path) -> bool:
    kinds = (*TEXTS[1:], *TABLES)
    return path.stat().st_size > 0 and os.path.splitext(plain_name(path))[1] in kinds


def _is_table(path: Path) -> bool:
    if os.path.splitext(plain_name(path))[1] in TABLES:
        return True
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _cells(name: str, text: str | None, encoding: str | None) -> Iterator[tuple[str, str]]:
    wanted = text.split("+") if text else ()
    for table in tables(name, encoding=encoding, wanted=wanted):
        columns, _, _ = choose(table, text=text, label=None, labelled=False)
        for _, cells in table.rows(columns):
            joined = "\n".join(str(cell) for cell in cells if cell is not None)
            if joined.strip():
                yield name, joined


def _pieces(path: Path, encoding: str | None) -> Iterator[str]:
    if path.stat().st_size == 0:
        raise DataError(f"{path} was to hold text; it is empty (0 bytes). Give text, or leave it out.")
    codec, _ = find_encoding(path, encoding=encoding)
    with open_text(path, codec) as stream:
        while piece := stream.read(PASSAGE):
            yield piece + stream.readline(PASSAGE)
