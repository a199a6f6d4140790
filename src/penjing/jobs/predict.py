"""Answer texts: those given, those of a file, or lines of a stream, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from penjing.bundle import Bundle
from penjing.data.read import read
from penjing.errors import DataError

AT_ONCE = 4096  # texts sorted by length together


def answers(bundle: Bundle, texts: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text, answer) in the texts' order; the stream is taken in portions of 4,096."""
    waiting = iter(texts)
    while portion := list(islice(waiting, AT_ONCE)):
        yield from zip(portion, bundle.predict(portion), strict=True)


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
                f"{given[0]} looks like a file of texts, and there is none. Give its path, or a text in quotes."
            )
    return given
