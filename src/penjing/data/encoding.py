"""Bytes to text: open files (compressed ones too), and find which encoding they are in, by evidence.

`open_bytes` undoes gzip, bzip2, xz, Zstandard and one-file zips; `find_encoding` decides; `open_text` reads
line by line and, where the bytes break the encoding, says file, line and byte.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import functools
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import numpy as np

from penjing.errors import DataError, NotSupported, nearest

_CHUNK = 1 << 20
_EVIDENCE = 32 << 20  # bytes looked at when a file is not UTF-8
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMMON = (
    "utf-8",
    "gb18030",
    "gbk",
    "gb2312",
    "big5",
    "shift_jis",
    "euc-kr",
    "latin-1",
    "cp1252",
    "cp1251",
    "utf-16",
)
PACKED = (".gz", ".bz2", ".xz", ".zst")
_ZSTD = b"\x28\xb5\x2f\xfd"
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".docx", ".pdf")


def plain_name(path: Path) -> str:
    """The file's name in lower case without `.gz`, `.bz2`, `.xz` or `.zst`; of a zip that of its file."""
    name = path.name.lower()
    if name.endswith(".zip") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return Path(_only_member(archive, path)).name.lower()
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return name


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where it is compressed (told by its first bytes, not by its name).

    Raises:
        DataError: the archive is broken or cut short.
        NotSupported: a spreadsheet, or a zip of several files.
    """
    if path.suffix.lower() in _SPREADSHEETS:
        way = "its text as .txt" if path.suffix.lower() in (".docx", ".pdf") else "it as CSV"
        raise NotSupported(
            f"{path}: {path.suffix} files are not read. Save {way} (UTF-8) and give that file."
        )
    try:
        with path.open("rb") as raw:
            magic = raw.read(6)
            raw.seek(0)
            with contextlib.ExitStack() as stack:
                stream: BinaryIO = raw
                if magic.startswith(b"\x1f\x8b"):
                    stream = cast(BinaryIO, stack.enter_context(gzip.open(raw)))
                elif magic.startswith(b"BZh"):
                    stream = cast(BinaryIO, stack.enter_context(bz2.open(raw)))
                elif magic.startswith(b"\xfd7zXZ\x00"):
                    stream = cast(BinaryIO, stack.enter_context(lzma.open(raw)))
                elif magic.startswith(_ZSTD):
                    stream = stack.enter_context(_zstd(raw))
                elif magic.startswith(b"PK\x03\x04"):
                    archive = stack.enter_context(zipfile.ZipFile(raw))
                    stream = cast(BinaryIO, stack.enter_context(archive.open(_only_member(archive, path))))
                yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is compressed, and cannot be unpacked to its end: {error}. It is broken or cut short; "
            f"copy it anew."
        ) from error
    except PermissionError as error:
        raise DataError(f"{path} may not be read: {error.strerror}. Change its rights or copy it.") from error


@contextlib.contextmanager
def _zstd(raw: BinaryIO) -> Iterator[BinaryIO]:
    """The bytes of a Zstandard stream; Arrow undoes it, so that no package more is needed."""
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as packed:
        try:
            yield cast(BinaryIO, io.BufferedReader(packed, _CHUNK))
        except OSError as error:
            if error.errno is not None:
                raise
            raise zlib.error(str(error)) from error  # as the other packers say it


def _only_member(archive: zipfile.ZipFile, path: Path) -> str:
    hidden = ("__MACOSX/", ".")
    members = [m for m in archive.namelist() if not m.endswith("/") and not m.startswith(hidden)]
    if len(members) == 1:
        return members[0]
    raise NotSupported(
        f"{path} holds {len(members)} files ({', '.join(members[:3])}…); one was wanted. Unpack it and give "
        f"the folder or a file."
    )


def find_encoding(path: Path, *, encoding: str | None = None, strict: bool = True) -> tuple[str, str]:
    """Python's name of the file's encoding, and a note for the user (empty for UTF-8).

    A byte order mark decides; then whether all of it is UTF-8; then the share of common Han characters as
    GB18030 or Big5 against the share of Latin letters that stand beside letters as Windows-1252. A file that
    is UTF-8 but for some lines is refused where `strict`, and UTF-8 otherwise.

    Raises:
        DataError: an unknown `encoding`; a file that is UTF-8 but for some lines; no encoding fits; not text.
    """
    if encoding is not None:
        try:
            name = codecs.lookup(encoding).name
        except LookupError:
            raise DataError(
                f"`encoding: {encoding}` is not an encoding that Python "
                f"knows.{nearest(encoding.lower(), _COMMON)} "
                f"Common ones: {', '.join(_COMMON)}."
            ) from None
        return ("utf-8-sig" if name == "utf-8" else name), ""
    certain = _certain(path)
    if certain is not None:
        return certain
    with open_bytes(path) as stream:
        return _legacy(path, stream.read(_EVIDENCE), strict=strict)


def find_encodings(paths: Sequence[Path], *, name: str, encoding: str | None = None) -> tuple[list[str], str]:
    """The encoding of each of many small files, and one note; those not UTF-8 are judged together."""
    if encoding is not None:
        found, _ = find_encoding(paths[0], encoding=encoding)
        return [found] * len(paths), ""
    certain = [_certain(path) for path in paths]
    doubtful = [path for path, known in zip(paths, certain, strict=True) if known is None]
    if not doubtful:
        return [known[0] for known in certain if known], ""
    evidence = []
    for path in doubtful[:2000]:
        with open_bytes(path) as stream:
            evidence.append(stream.read(_EVIDENCE // 2000))
    legacy, _ = _legacy(doubtful[0], b"\n".join(evidence))
    n = f"{len(doubtful):,} of {len(paths):,} files"
    note = f"{name}: {n} read as {legacy.upper()} (say `encoding:` if that is wrong)"
    return [known[0] if known else legacy for known in certain], note


def _certain(path: Path) -> tuple[str, str] | None:
    """Encoding and note where a mark, zero bytes or all being UTF-8 decide; None where they do not."""
    with open_bytes(path) as stream:
        head = stream.read(_CHUNK)
        for mark, name in _BOMS:
            if head.startswith(mark):
                return name, (
                    "" if name == "utf-8-sig" else f"{path}: read as {name.upper()} (byte order mark)"
                )
        if b"\0" in head:
            return _wide(path, head)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            chunk = head
            while chunk:
                decoder.decode(chunk)
                chunk = stream.read(_CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return None
    return "utf-8", ""


def _wide(path: Path, head: bytes) -> tuple[str, str]:
    """UTF-16 without a mark: every second byte of Latin text is zero."""
    values = np.frombuffer(head[: len(head) // 2 * 2], np.uint8)
    even, odd = float((values[::2] == 0).mean()), float((values[1::2] == 0).mean())
    if max(even, odd) > 0.3 > min(even, odd):
        name = "utf-16-le" if odd > even else "utf-16-be"
        return name, f"{path}: read as {name.upper()} (no byte order mark; say `encoding:` if that is wrong)"
    raise DataError(
        f"{path} was to be read as text; it holds zero bytes, so it is another kind of file. "
        f"Give CSV, TSV, JSON, JSON lines, Parquet or plain text."
    )


def _legacy(path: Path, raw: bytes, *, strict: bool = True) -> tuple[str, str]:
    lines = [line for line in raw.split(b"\n") if not line.isascii()][:20_000]
    whole = [_decodes(line, "utf-8") for line in lines]
    if sum(whole) * 2 > len(whole) or not lines:  # none: what breaks UTF-8 stands beyond the evidence
        if not strict:
            return "utf-8", f"{path}: read as UTF-8, though some of its lines are not"
        so = f"{len(whole) - sum(whole):,} of {len(lines):,} lines beyond ASCII are so"
        raise _broken(path, "utf-8", hint=so if lines else "it is ASCII up to there")
    sample = b"\n".join(lines)[:400_000]
    fits = {
        "gb18030": _han_fit(lines[:4000], "gb18030", _common_han()),
        "cp1252": _latin_fit(sample),
        "big5hkscs": _han_fit(lines[:4000], "big5hkscs", _common_han_of_big5()),
    }
    best = max(fits, key=lambda name: fits[name])
    if fits[best] < 0.5:
        raise DataError(
            f"{path}: its encoding could not be found out; it is not UTF-8, {fits['gb18030']:.0%} looks like "
            f"GB18030, {fits['big5hkscs']:.0%} like Big5 and {fits['cp1252']:.0%} like Windows-1252. Say "
            f"which with `encoding:`, such as `encoding: shift_jis`, or save it as UTF-8."
        )
    if best == "cp1252" and not all(_decodes(line, best) for line in lines):
        best = "latin-1"
    fit = fits.get(best, fits["cp1252"])
    return (
        best,
        f"{path}: read as {best.upper()}, {fit:.0%} of its signs fit (say `encoding:` if that is wrong)",
    )


def encoding_of_names(names: Sequence[bytes]) -> str:
    """What names of a zip are in that do not say so: UTF-8 (macOS) or GB18030 (Windows in China) where they
    read like it, else what the standard says.
    """
    strange = [name for name in names if not name.isascii()]
    if all(_decodes(name, "utf-8") for name in strange):
        return "utf-8"
    return "gb18030" if _han_fit(strange, "gb18030", _common_han()) > 0.5 else "cp437"


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


@functools.lru_cache(maxsize=1)
def _common_han() -> frozenset[str]:
    """GB2312's level 1 (3,755 characters, about 99.7 % of running text) and its punctuation."""
    pairs = (
        bytes((row, cell)) for row in (*range(0xA1, 0xA4), *range(0xB0, 0xD8)) for cell in range(0xA1, 0xFF)
    )
    return frozenset("".join(pair.decode("gb2312", errors="ignore") for pair in pairs))


@functools.lru_cache(maxsize=1)
def _common_han_of_big5() -> frozenset[str]:
    """Big5's level 1 (5,401 characters) and its punctuation."""
    cells = (*range(0x40, 0x7F), *range(0xA1, 0xFF))
    pairs = (bytes((row, cell)) for row in range(0xA1, 0xC7) for cell in cells)
    return frozenset("".join(pair.decode("big5", errors="ignore") for pair in pairs))


def _han_fit(lines: list[bytes], encoding: str, common: frozenset[str]) -> float:
    texts = [line.decode(encoding) for line in lines if _decodes(line, encoding)]
    signs = [sign for text in texts for sign in text if sign > "\x7f"]
    if not signs:
        return 0.0
    return sum(sign in common for sign in signs) / len(signs) * len(texts) / len(lines)


def _latin_fit(raw: bytes) -> float:
    values = np.frombuffer(b" " + raw + b" ", np.uint8)
    high = values >= 0x80
    accented = (values >= 0xC0) & (values != 0xD7) & (values != 0xF7) | np.isin(
        values, (0x8A, 0x8C, 0x8E, 0x9A, 0x9C, 0x9E, 0x9F)
    )
    ascii_letter = ((values | 0x20) >= ord("a")) & ((values | 0x20) <= ord("z"))
    beside = np.zeros_like(high)
    beside[1:-1] = ascii_letter[:-2] | ascii_letter[2:]
    # Currency, dashes, quotation marks, no-break space and the like, alone among ASCII.
    sign = np.isin(
        values,
        (
            0x80,
            0x85,
            *range(0x91, 0x98),
            0x99,
            0xA0,
            0xA1,
            0xA3,
            0xA7,
            0xA9,
            0xAB,
            0xAE,
            0xB0,
            0xB4,
            0xB7,
            0xBB,
            0xBF,
        ),
    )
    alone = np.zeros_like(high)
    alone[1:-1] = ~high[:-2] & ~high[2:]
    return float((accented & beside | sign & alone)[high].mean()) if high.any() else 0.0


@contextlib.contextmanager
def open_text(path: Path, encoding: str) -> Iterator[TextIO]:
    """The file as text, line ends kept as they are.

    Raises:
        DataError: bytes that the encoding does not have, with file, line and byte.
    """
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        try:
            yield text
        except UnicodeError as error:
            if isinstance(error, UnicodeEncodeError):
                raise
            raise _broken(path, encoding, hint=str(error)) from error


def _broken(path: Path, encoding: str, *, hint: str) -> DataError:
    """The error for the first byte that breaks the encoding; reads the file once more to find its line."""
    wide = encoding.startswith(("utf-16", "utf-32"))  # there a line end is not one byte
    with open_bytes(path) as stream:
        at = 0
        for number, line in enumerate([stream.read()] if wide else stream, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                if wide:
                    number = line[: error.start].decode(encoding, errors="ignore").count("\n") + 1
                name, byte = encoding.removesuffix("-sig").upper(), line[error.start]
                return DataError(
                    f"{path}, line {number}: byte 0x{byte:02x} (byte {at + error.start + 1:,} of the file) "
                    f"is not {name}, as the rest is; {hint}. Mend these lines, or name the true encoding, "
                    f"such as `encoding: gb18030` or `encoding: latin-1`."
                )
            at += len(line)
    return DataError(f"{path} is not {encoding.upper()}: {hint}. Name its encoding with `encoding:`.")
