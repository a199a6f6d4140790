"""From what the user named (files, folders, globs) to parts: what one process reads at a time.

A large plain or JSON lines file is cut by bytes, so that one file keeps every core busy; a packed one is one
piece, for it can only be read from its beginning.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.codec import HEAD, old_mac
from penjing.data.encoding import PACKED
from penjing.errors import DataError, nearest

_CODE_SUFFIXES = (
    ".py .pyi .js .jsx .ts .tsx .java .c .h .cc .cpp .hpp .cs .go .rs .rb .php .swift .kt .scala "
    ".sh .bash .sql .lua .pl .r .jl .m .mm .vue .css .scss .dart .hs .ml .ex .clj .ps1 .cu .proto"
)
CODE = frozenset(_CODE_SUFFIXES.split())
KINDS = {
    **dict.fromkeys((".txt", ".text", ".log"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "lines"),
    **dict.fromkeys((".csv", ".tsv", ".tab", ".json"), "table"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".ipynb": "notebook",
    **dict.fromkeys((".md", ".rst", ".tex"), "file"),
    **dict.fromkeys(CODE, "code"),
    ".parquet": "parquet",
    ".pdf": "pdf",
}
_WHOLE = ("html", "notebook", "file", "code", "pdf")  # kinds of which a file is one document
_MOST_SOURCES = 64  # that are told apart by file names
_GROWS = 3  # a packed file's text over its size, roughly


@dataclass(frozen=True)
class Piece:
    """Bytes [begin, end) of a file; to its end where that is None. `name` is how it is told and part of
    ids.
    """

    path: str
    name: str
    source: str
    kind: str
    begin: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Part:
    """Pieces that one process reads and sifts into one file."""

    index: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class File:
    """A raw file with its size in bytes."""

    path: Path
    name: str
    source: str
    kind: str
    size: int


def files_of(spec: CorpusSpec) -> list[File]:
    """Every raw file, by source and name.

    Raises:
        DataError: a path or pattern leads to no file; the nearest name is offered.
    """
    found: dict[Path, File] = {}
    for source, paths in spec.raw.items():
        for given in paths:
            for path, name, own in _walk(given):
                if path not in found:
                    found[path] = File(path, name, source or own, kind_of(path), path.stat().st_size)
    files = sorted(found.values(), key=lambda f: (f.source, f.name))
    if len({f.source for f in files}) > _MOST_SOURCES and "" in spec.raw:
        files = [
            File(f.path, f.name, PurePath(f.name).parts[0] if "/" in f.name else "raw", f.kind, f.size)
            for f in files
        ]
    return files


def _walk(given: str) -> Iterator[tuple[Path, str, str]]:
    """(path, name, source) of the files of a path or pattern; hidden files are left alone.

    The source of a file in a folder's sub-folder is that sub-folder, of another the first part of its name
    (`news.train.txt.gz`: news), of one that is a document by itself the folder.
    """
    root = Path(given).expanduser()
    if root.is_file():
        yield root, root.name, root.name.split(".")[0]
        return
    if root.is_dir():
        hits = [p for p in sorted(root.rglob("*")) if p.is_file()]
    else:
        hits = [Path(hit) for hit in sorted(glob.glob(str(root), recursive=True)) if Path(hit).is_file()]
        root = Path(*_plain_parts(root.parts))
    hits = [p for p in hits if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    if not hits:
        there = sorted(p.name for p in root.parent.iterdir()) if root.parent.is_dir() else []
        near = nearest(root.name, there)
        raise DataError(
            f"Raw text was wanted at {given}; there is no file.{near} Give a file, folder or pattern."
        )
    for path in hits:
        inner = path.relative_to(root)
        alone = kind_of(path) in _WHOLE
        own = inner.parts[0] if len(inner.parts) > 1 else root.name if alone else path.name.split(".")[0]
        yield path, inner.as_posix(), own or "raw"


def _plain_parts(parts: Sequence[str]) -> list[str]:
    plain: list[str] = []
    for part in parts:
        if glob.has_magic(part):
            break
        plain.append(part)
    return plain or ["."]


def kind_of(path: Path) -> str:
    """How a file is read: by its name or, where that says nothing, by how it begins."""
    name = path.name.lower()
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return KINDS.get(PurePath(name).suffix) or _by_content(path)


def _by_content(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(4096)
    if head.startswith(b"%PDF-"):
        return "pdf"
    if head.startswith(b"PAR1"):
        return "parquet"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    return "lines" if start.startswith((b'{"', b'["')) else "text"


def parts_of(files: Sequence[File], spec: CorpusSpec) -> list[Part]:
    """The files as parts of about `part_mib` each."""
    most = int(spec.part_mib * 2**20)
    parts: list[Part] = []
    pieces: list[Piece] = []
    size = 0
    for file in files:
        for piece, weight in _pieces(file, spec, most):
            if pieces and size + weight > most:
                parts.append(Part(len(parts), tuple(pieces)))
                pieces, size = [], 0
            pieces.append(piece)
            size += weight
    return [*parts, Part(len(parts), tuple(pieces))] if pieces else parts


def _pieces(file: File, spec: CorpusSpec, most: int) -> Iterator[tuple[Piece, int]]:
    packed = file.path.name.lower().endswith(PACKED)
    by_line = file.kind == "lines" or (file.kind == "text" and spec.documents != "file")
    if file.size <= most or packed or not by_line or _wide(file.path, spec.encoding):
        yield Piece(str(file.path), file.name, file.source, file.kind), file.size * (_GROWS if packed else 1)
        return
    n = -(-file.size // most)
    edges = [file.size * i // n for i in range(n + 1)]
    for begin, end in itertools.pairwise(edges):
        yield Piece(str(file.path), file.name, file.source, file.kind, begin, end), end - begin


def _wide(path: Path, encoding: str | None) -> bool:
    """Whether a line end may be another byte than `\n` or part of another sign: UTF-16 and UTF-32, the text
    of an old Mac, a packed file by another name."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    told = encoding is not None and encoding.lower().replace("_", "-").startswith(
        ("utf-16", "utf-32", "utf16", "utf32")
    )
    magic = head.startswith(
        (b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
    )
    return told or magic or b"\0" in head or old_mac(head)
