"""Answer texts: those given, those of a file, or lines of a stream, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from penjing.bundle import Bundle
from penjing.data.read import read
from penjing.errors import DataError

AT_ONCE = 4096  # texts sorted by length together


def answers(
    bundle: Bundle | Callable[[], Bundle], texts: Iterable[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text, answer) in the texts' order; the stream is taken in portions of 4,096.

    A function that opens the bundle is called when the first texts are there: bad input costs no waiting.
    """
    waiting = iter(texts)
    while portion := list(islice(waiting, AT_ONCE)):
        bundle = bundle if isinstance(bundle, Bundle) else bundle()
        yield from zip(portion, bundle.predict(portion), strict=True)


def lines_of(stream: BinaryIO) -> Iterator[str]:
    """The texts of a stream of bytes, a line a text; blank lines are none.

    Raises:
        DataError: a line is not UTF-8, or there is no text at all.
    """
    n_texts = 0
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"standard input, line {number}: UTF-8 was wanted; byte {error.start + 1} is "
                f"0x{line[error.start]:02x}. Convert it (`iconv -f gb18030 -t utf-8`), or give the file's "
                "path: its encoding is found out."
            ) from error
        if text.strip():
            n_texts += 1
            yield text
    if not n_texts:
        raise DataError(
            "Texts were wanted on standard input, a line a text; it was empty. Give texts, or a file."
        )


def texts_of(given: list[str], **reading: Any) -> list[str]:
    """The texts meant by what was given: each item is a text, unless it is the only one and names a file.

    Raises:
        DataError: it looks like a file's name and there is no such file, or the file cannot be read.
    """
    if len(given) == 1:
        path = Path(given[0])
        try:
            is_file = path.is_file()
        except OSError:  # a text too long for a file's name
            is_file = False
        if is_file:
            return read(str(path), labelled=False, **reading).texts
        if (
            path.suffix in (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".gz")
            and " " not in given[0]
        ):
            raise DataError(
                f"{given[0]} looks like a file of texts, and there is none. Give its path, or a text in "
                "quotes."
            )
    return given
