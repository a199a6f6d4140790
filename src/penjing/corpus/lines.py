"""Bytes to lines, and to blocks between blank lines, of a part of a file, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from penjing.corpus.inputs import Piece

_HEAD = 1 << 20
_WINDOW = 1 << 17
_BLANK = b" \t\r\n\xef\xbb\xbf\xe3\x80"  # bytes of what a blank line may have
# Blanks, byte order marks and Chinese blanks (U+3000), with which some indent empty lines, too.
_GAP = re.compile(rb"\n(?:(?:[ \t\r]|\xef\xbb\xbf|\xe3\x80\x80)*\n)+")


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


def one_a_line(stream: BinaryIO, piece: Piece, most: int) -> Iterator[tuple[str, bytes | None]]:
    """(place, line) of the lines that begin within the piece, blank ones left out."""
    at = _to_line(stream, piece.begin)
    for number, (size, line) in enumerate(_lines(stream, most), start=1):
        if piece.end is not None and at >= piece.end:
            return
        if line is None or line.strip():
            yield _place(piece, number), line
        at += size


def blocks(stream: BinaryIO, piece: Piece, most: int) -> Iterator[tuple[str, bytes | None]]:
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
