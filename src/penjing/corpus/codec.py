"""How the bytes of a raw file are read as text: its encoding and its line ends, found out once a process."""

from __future__ import annotations

import codecs
import functools
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from penjing.data.encoding import find_encoding, open_bytes

HEAD = 1 << 20  # bytes by which a file is judged where they will do
_DECLARED = re.compile(
    rb"<(?:meta\b[^>]{0,200}?charset\s*=|\?xml\b[^>]{0,100}?encoding\s*=)[\s\"']*([\w:-]+)"
)
# What pages say, and the larger set that browsers take it for (WHATWG, Encoding).
_TAKEN_FOR = {
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949",
    "iso8859-1": "cp1252", "iso8859-9": "cp1254",
}  # fmt: skip
_OF_PAGES = ("gb", "big5", "cp", "iso8859", "euc", "shift_jis", "koi8")


@dataclass(frozen=True)
class Codec:
    """An encoding by Python's name, and whether lines end with `\\r` alone, as those of old Macs do."""

    name: str
    mac: bool = False


def codec_of(path: Path, encoding: str | None, *, page: bool = False) -> Codec:
    """A file's encoding: as told; by its head where that is plainly UTF-8; as a web page says of itself
    (`page`); else by all of the file. One that is UTF-8 but for some lines is UTF-8.

    Raises:
        DataError: no encoding fits, or it is no text.
    """
    facts = path.stat()
    return _codec(path, encoding, page, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=1024)  # or each piece of a large file would have all of it gone over
def _codec(path: Path, encoding: str | None, page: bool, size: int, changed: int) -> Codec:
    with open_bytes(path) as stream:
        head = stream.read(HEAD)
    mac = old_mac(head)
    if encoding is None and b"\0" not in head and not head.isascii():
        if _begins(head, "utf-8"):
            return Codec("utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8", mac)
        if page and (told := _declared(head)):
            return Codec(told, mac)
    return Codec(find_encoding(path, encoding=encoding, strict=False)[0], mac)


def _declared(head: bytes) -> str | None:
    """The encoding that a page says it is in, where its beginning can be read so."""
    found = _DECLARED.search(head[:4096].lower())
    try:
        said = codecs.lookup(found[1].decode("ascii")).name if found else ""
    except (LookupError, UnicodeDecodeError):
        return None
    name = _TAKEN_FOR.get(said, said)
    return name if name.startswith(_OF_PAGES) and _begins(head, name) else None


def _begins(head: bytes, name: str) -> bool:
    """Whether a file that begins so may be in this encoding."""
    try:
        codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def old_mac(head: bytes) -> bool:
    """Whether lines end with `\\r` alone."""
    return b"\r" in head[:-1] and b"\n" not in head


class _Recoded:
    """Text as bytes of UTF-8 whose lines end with `\\n`."""

    def __init__(self, raw: BinaryIO, codec: Codec) -> None:
        newline = None if codec.mac else ""
        self._text = io.TextIOWrapper(raw, encoding=codec.name, errors="replace", newline=newline)

    def readline(self, size: int = -1) -> bytes:
        return self._text.readline(size).encode("utf-8", "surrogatepass")

    def read(self, size: int = -1) -> bytes:
        return self._text.read(size).encode("utf-8", "surrogatepass")


def with_line_ends(raw: BinaryIO, codec: Codec) -> tuple[BinaryIO, str]:
    """Bytes in which a line ends with one byte `\\n`, and the name of their encoding: UTF-16, UTF-32 and the
    texts of old Macs are written anew as UTF-8."""
    if codec.mac or codec.name.startswith(("utf-16", "utf-32")):
        return _Recoded(raw, codec), "utf-8"  # type: ignore[return-value]
    return raw, codec.name
