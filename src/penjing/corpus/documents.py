"""The documents of a piece of raw text, one by one, in bounded memory; what cannot be read is told, not lost.

`documents` gives a Document for each text and for each thing that is none: a file that is empty, no text,
packed
and cut short; a line that is no JSON; a document that is too long. Such a one bears its `trouble`.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.html import text_of_html
from penjing.corpus.inputs import Piece
from penjing.data.encoding import find_encoding, open_bytes
from penjing.errors import DataError, NotSupported, nearest

TEXT_COLUMNS = ("text", "content", "body", "document", "article", "raw_content", "文本", "内容", "正文")
TROUBLES = {  # trouble: of a whole file, or of one document
    "empty_file": True, "unreadable_file": True, "no_text_layer": True,
    "broken_line": False, "no_text": False, "undecodable": False, "too_long": False,
}  # fmt: skip
_HEAD = 1 << 20
_BYTES_A_SIGN = 4
_WINDOW = 1 << 17
_BLANK = b" \t\r\n\xef\xbb\xbf"  # what a blank line may have
_GAP = re.compile(rb"\n(?:[ \t\r\xef\xbb\xbf]*\n)+")


@dataclass(frozen=True)
class Document:
    """A text, or what stands in its place (`trouble`, and `why` for people). `where` is file and line."""

    text: str
    where: str
    trouble: str = ""
    why: str = ""


def documents(piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    """Every document of a piece, in order.

    Raises:
        NotSupported: a PDF, and pypdf is not installed.
    """
    path = Path(piece.path)
    if path.stat().st_size == 0:
        yield Document("", piece.name, "empty_file", "it has 0 bytes")
        return
    try:
        yield from READERS[piece.kind](path, piece, spec)
    except (DataError, OSError) as error:
        yield Document("", piece.name, "unreadable_file", str(error))
    except NotSupported as error:
        if piece.kind == "pdf":  # a package is missing, which one command mends for all of them
            raise
        yield Document("", piece.name, "unreadable_file", str(error))


def _plain(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    codec = _codec(path, spec.encoding)
    most = _BYTES_A_SIGN * spec.longest
    with open_bytes(path) as raw:
        stream = _recoded(raw, codec)
        codec = "utf-8" if stream is not raw else codec
        blocks = (
            _blocks(stream, piece, most)
            if spec.documents == "blank_line"
            else _one_a_line(stream, piece, most)
        )
        for line, block in blocks:
            yield _decoded(block, codec, f"{piece.name}:{line}", spec.longest)


def _codec(path: Path, encoding: str | None) -> str:
    """By the head where that is plainly UTF-8; else by all of the file."""
    if encoding is None:
        with open_bytes(path) as stream:
            head = stream.read(_HEAD)
        if b"\0" not in head and not head.isascii() and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
            try:
                codecs.getincrementaldecoder("utf-8")().decode(head)
                return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8"
            except UnicodeDecodeError:
                pass
    try:
        return find_encoding(path, encoding=encoding)[0]
    except DataError as error:
        if "of the file) is not" in str(error):  # UTF-8 but for some lines: those are left out by themselves
            return "utf-8"
        raise


class _Recoded:
    """UTF-16 and UTF-32 as lines of UTF-8 bytes; their own line ends are not single bytes."""

    def __init__(self, raw: BinaryIO, codec: str) -> None:
        self._text = io.TextIOWrapper(raw, encoding=codec, errors="replace", newline="")

    def readline(self, size: int = -1) -> bytes:
        return self._text.readline(size).encode("utf-8", "surrogatepass")

    def read(self, size: int = -1) -> bytes:
        return self._text.read(size).encode("utf-8", "surrogatepass")


def _recoded(raw: BinaryIO, codec: str) -> BinaryIO:
    return _Recoded(raw, codec) if codec.startswith(("utf-16", "utf-32")) else raw  # type: ignore[return-value]


def _lines(stream: BinaryIO, most: int) -> Iterator[tuple[int, bytes | None]]:
    """(size, line) of every line; None for one of more than `most` bytes, which is passed over piece by
    piece.
    """
    while line := stream.readline(most + 1):
        if len(line) <= most or line.endswith(b"\n"):
            yield len(line), line
            continue
        size = len(line)
        while rest := stream.readline(_HEAD):
            size += len(rest)
            if rest.endswith(b"\n"):
                break
        yield size, None


def _one_a_line(stream: BinaryIO, piece: Piece, most: int) -> Iterator[tuple[str, bytes | None]]:
    """(place, line) of the lines that begin within the piece, blank ones left out."""
    at = _to_line(stream, piece.begin)
    for number, (size, line) in enumerate(_lines(stream, most), start=1):
        if piece.end is not None and at >= piece.end:
            return
        if line is None or line.strip():
            yield _place(piece, number), line
        at += size


def _blocks(stream: BinaryIO, piece: Piece, most: int) -> Iterator[tuple[str, bytes | None]]:
    """(place, document): lines up to a blank one. A document belongs to the piece in which the blank line
    before it begins, the first of a file to the first piece; None for one of more than `most` bytes.
    """
    at = _to_line(stream, piece.begin) - 1  # where `data` begins: with the line end before a document
    mine, over = piece.begin == 0, False
    start = number = 1  # line in which the document began, and in which what `data` has of it begins
    data = b"\n"
    read = getattr(stream, "read1", stream.read)  # no more than is there, lest a cut archive loses it
    while window := read(_WINDOW):
        data, begin = data + window, 0
        for gap in _GAP.finditer(data):
            block = data[begin + 1 : gap.start() + 1]
            if mine and (block or over):
                yield _place(piece, start), None if over or len(block) > most else block
            last = data.rfind(b"\n", 0, gap.end() - 1) + 1  # where the last blank line begins
            if piece.end is not None and at + last >= piece.end:
                return
            number += data.count(b"\n", begin + 1, gap.end())
            mine, over, start, begin = True, False, number, gap.end() - 1
        data, at = data[begin:], at + begin
        if _full(data) > most + 1:
            over, line = True, max(0, data.rfind(b"\n"))
            number += data.count(b"\n", 1, line + 1)
            kept = data[line:] if len(data) - line <= most else b"."  # a line that goes on is not blank
            data, at = kept, at + len(data) - len(kept)
    block = data[1 : _full(data)]
    if mine and (block or over):
        yield _place(piece, start), None if over or len(block) > most else block


def _full(data: bytes) -> int:
    """How many bytes of it stand before a last line that is blank so far."""
    line = max(0, data.rfind(b"\n"))
    return len(data) if data[line:].strip(_BLANK) else line + 1


def _place(piece: Piece, number: int) -> str:
    return str(number) if piece.begin == 0 else f"{piece.begin}+{number}"


def _to_line(stream: BinaryIO, begin: int) -> int:
    """Go to the first line that begins at or after a byte; gives where that is."""
    if begin == 0:
        return 0
    stream.seek(begin - 1)
    at = begin - 1
    while rest := stream.readline(_HEAD):
        at += len(rest)
        if rest.endswith(b"\n"):
            break
    return at


def _decoded(block: bytes | None, codec: str, where: str, longest: int) -> Document:
    if block is None:
        return Document("", where, "too_long", f"more than {_BYTES_A_SIGN * longest:,} bytes")
    try:
        text = block.decode(codec)
    except UnicodeDecodeError as error:
        return Document("", where, "undecodable", f"byte 0x{block[error.start]:02x} is not {codec}")
    if len(text) > longest:
        return Document("", where, "too_long", f"{len(text):,} characters")
    if "\0" in text:
        return Document("", where, "undecodable", "zero bytes")
    return Document(text.lstrip("\ufeff"), where)


def _json_lines(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    codec = _codec(path, spec.encoding)
    column = spec.text
    with open_bytes(path) as raw:
        stream = _recoded(raw, codec)
        codec = "utf-8" if stream is not raw else codec
        for line, block in _one_a_line(stream, piece, _BYTES_A_SIGN * spec.longest):
            found = _decoded(block, codec, f"{piece.name}:{line}", _BYTES_A_SIGN * spec.longest)
            if found.trouble:
                yield found
                continue
            try:
                value = json.loads(found.text)
            except (ValueError, RecursionError) as error:
                yield Document("", found.where, "broken_line", f"not JSON: {error}")
                continue
            if column is None and isinstance(value, dict):
                column = _text_column(value, found.where)
            yield _of_value(
                value.get(column) if isinstance(value, dict) else value, found.where, spec.longest
            )


def _text_column(keys: object, where: str, wanted: str | None = None) -> str:
    names = [str(key) for key in keys]  # type: ignore[attr-defined]
    found = [wanted] if wanted else [name for name in TEXT_COLUMNS if name in names]
    if found and found[0] in names:
        return found[0]
    near = nearest(wanted, names) if wanted else ""
    raise DataError(
        f"{where}: a column `{wanted or 'text'}` was wanted; it has {', '.join(names[:8])}.{near} Name it "
        f"with `text:`."
    )


def _of_value(value: object, where: str, longest: int) -> Document:
    if not isinstance(value, str) or not value.strip():
        return Document("", where, "no_text", f"the text is {str(value)[:40]!r}")
    if len(value) > longest:
        return Document("", where, "too_long", f"{len(value):,} characters")
    # Half of a surrogate pair can be written in JSON and is no text.
    clean = value.encode("utf-8", "replace").decode("utf-8") if _has_surrogates(value) else value
    return Document(clean, where)


def _has_surrogates(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _parquet(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = _text_column(file.schema_arrow.names, piece.name, spec.text)
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield _of_value(value, f"{piece.name}:{row}", spec.longest)
    except pa.ArrowException as error:
        raise DataError(f"it was to be a Parquet file and cannot be read: {error}") from error


def _table(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    from penjing.data.sources import tables

    for table in tables(path, encoding=spec.encoding, wanted=[spec.text] if spec.text else []):
        column = _text_column(table.columns, piece.name, spec.text)
        for line, cells in table.rows([column]):
            yield _of_value(cells[0], f"{piece.name}:{line}", spec.longest)


def _whole(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    codec = _codec(path, spec.encoding)
    most = _BYTES_A_SIGN * spec.longest
    with open_bytes(path) as raw:
        content = _recoded(raw, codec).read(most + 1)
    codec = "utf-8" if codec.startswith(("utf-16", "utf-32")) else codec
    found = _decoded(content if len(content) <= most else None, codec, piece.name, spec.longest)
    if not found.trouble and piece.kind == "html":
        found = Document(text_of_html(found.text), found.where)
    yield (
        found
        if found.trouble or found.text.strip()
        else Document("", found.where, "no_text", "nothing but space")
    )


def _pdf(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    import logging

    try:
        import pypdf
    except ImportError:
        raise NotSupported(
            f"{piece.name} is a PDF; reading its text needs pypdf, which is not installed. Run `pip install "
            f"'penjing[corpus]'`, or leave the file out."
        ) from None
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it tells every flaw of a file that it mends
    try:
        pages = [page.extract_text() for page in pypdf.PdfReader(path).pages]
    except Exception as error:  # a broken PDF breaks the parser in any way
        raise DataError(f"it was to be a PDF and cannot be read: {type(error).__name__}: {error}") from error
    text = "\n\n".join(page.strip() for page in pages if page.strip())
    if text:
        yield _of_value(text, piece.name, spec.longest)
    else:
        yield Document("", piece.name, "no_text_layer", f"{len(pages)} pages of pictures; it needs OCR first")


READERS: dict[str, Callable[[Path, Piece, CorpusSpec], Iterator[Document]]] = {
    "text": lambda path, piece, spec: (_whole if spec.documents == "file" else _plain)(path, piece, spec),
    "lines": _json_lines,
    "parquet": _parquet,
    "table": _table,
    "html": _whole,
    "file": _whole,
    "code": _whole,
    "pdf": _pdf,
}
