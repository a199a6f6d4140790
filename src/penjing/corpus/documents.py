"""The documents of a piece of raw text, one by one, in bounded memory; what cannot be read is told, not lost.

`documents` gives a Document for each text and for each thing that is none: a file that is empty, no text,
packed
and cut short; a line that is no JSON; a document that is too long. Such a one bears its `trouble`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penjing.corpus.asked import CorpusSpec
from penjing.corpus.codec import codec_of, with_line_ends
from penjing.corpus.html import text_of_html
from penjing.corpus.inputs import Piece
from penjing.corpus.lines import blocks, one_a_line
from penjing.data.encoding import open_bytes
from penjing.errors import DataError, NotSupported, nearest

TEXT_COLUMNS = ("text", "content", "body", "document", "article", "raw_content", "文本", "内容", "正文")
TROUBLES = {  # trouble: of a whole file, or of one document
    "empty_file": True, "unreadable_file": True, "no_text_layer": True,
    "broken_line": False, "no_column": False, "no_text": False, "undecodable": False, "too_long": False,
}  # fmt: skip
_BYTES_A_SIGN = 4


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
    try:
        if path.stat().st_size == 0:
            yield Document("", piece.name, "empty_file", "it has 0 bytes")
        else:
            yield from READERS[piece.kind](path, piece, spec)
    except (DataError, OSError) as error:
        yield Document("", piece.name, "unreadable_file", str(error))
    except NotSupported as error:
        if piece.kind == "pdf":  # a package is missing, which one command mends for all of them
            raise
        yield Document("", piece.name, "unreadable_file", str(error))


def _plain(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    most = _BYTES_A_SIGN * spec.longest
    parted = blocks if spec.documents == "blank_line" else one_a_line
    with open_bytes(path) as raw:
        stream, codec = with_line_ends(raw, codec_of(path, spec.encoding))
        for line, block in parted(stream, piece, most):
            yield _decoded(block, codec, f"{piece.name}:{line}", spec.longest)


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
    most = _BYTES_A_SIGN * spec.longest
    with open_bytes(path) as raw:
        stream, codec = with_line_ends(raw, codec_of(path, spec.encoding))
        for line, block in one_a_line(stream, piece, most):
            found = _decoded(block, codec, f"{piece.name}:{line}", most)
            if found.trouble:
                yield found
                continue
            try:
                value = json.loads(found.text)
            except (ValueError, RecursionError) as error:
                yield Document("", found.where, "broken_line", f"not JSON: {error}")
                continue
            yield _of_row(value, found.where, spec)


def _of_row(value: object, where: str, spec: CorpusSpec) -> Document:
    """A line of JSON: rows of one file may bear their text under different names."""
    if not isinstance(value, dict):
        return _of_value(value, where, spec.longest)
    column = _text_column(value, spec.text)
    if column is None:
        return Document("", where, "no_column", _no_column(value, spec.text))
    return _of_value(value[column], where, spec.longest)


def _text_column(names: Iterable[str], wanted: str | None) -> str | None:
    """The name of the text among these, upper and lower case alike where none fits as it is."""
    for name in [wanted] if wanted else TEXT_COLUMNS:
        if name in names:
            return name
    lower = {str(name).lower().strip(): name for name in names}
    return next((lower[one] for one in ([wanted.lower()] if wanted else TEXT_COLUMNS) if one in lower), None)


def _no_column(names: Iterable[str], wanted: str | None) -> str:
    there = [str(name) for name in names]
    near = nearest(wanted, there) if wanted else ""
    return (
        f"a column `{wanted or 'text'}` was wanted; it has {', '.join(there[:8]) or 'none'}.{near} Name it "
        f"with `text:`."
    )


def _column_of(names: Sequence[str], where: str, spec: CorpusSpec) -> str:
    """The column of the text of a whole table."""
    column = _text_column(names, spec.text)
    if column is None:
        raise DataError(f"{where}: {_no_column(names, spec.text)}")
    return column


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
            column = _column_of(file.schema_arrow.names, piece.name, spec)
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
        column = _column_of(table.columns, piece.name, spec)
        for line, cells in table.rows([column]):
            yield _of_value(cells[0], f"{piece.name}:{line}", spec.longest)


def _whole(path: Path, piece: Piece, spec: CorpusSpec) -> Iterator[Document]:
    most = _BYTES_A_SIGN * spec.longest
    with open_bytes(path) as raw:
        stream, codec = with_line_ends(raw, codec_of(path, spec.encoding, page=piece.kind == "html"))
        content = stream.read(most + 1)
    found = _decoded(content if len(content) <= most else None, codec, piece.name, spec.longest)
    if not found.trouble and piece.kind in _TEXT_OF:
        found = Document(_TEXT_OF[piece.kind](found.text), found.where)
    yield (
        found
        if found.trouble or found.text.strip()
        else Document("", found.where, "no_text", "nothing but space")
    )


def _text_of_notebook(raw: str) -> str:
    """What was written into the cells of a notebook, prose and code; not what running them printed.

    Raises:
        DataError: it is no notebook.
    """
    try:
        cells = json.loads(raw)["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] != "raw")
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(
            f"it was to be a notebook and cannot be read: {type(error).__name__}: {error}"
        ) from error


_TEXT_OF: dict[str, Callable[[str], str]] = {"html": text_of_html, "notebook": _text_of_notebook}


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
    "notebook": _whole,
    "file": _whole,
    "code": _whole,
    "pdf": _pdf,
}
