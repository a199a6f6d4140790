"""Answer texts: those given, those of a file, or lines of a stream, in bounded memory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from penjing.bundle import Bundle
from penjing.errors import DataError, SpecError
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.odd import cut_said
from penjing.jobs.relating import line_of, relations
from penjing.jobs.rows_for import rows_for
from penjing.plural import counted

_HALF = re.compile("[\ud800-\udfff]")  # what Python makes of arguments that are not UTF-8
AT_ONCE = 4096  # texts sorted by length together
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".gz")


@dataclass(frozen=True)
class Answered:
    """An input, its answer, and the answer in one line."""

    text: str
    answer: dict[str, Any]
    line: str


def answers_to(
    given: list[str] | None,
    stream: BinaryIO,
    bundle: Callable[[], Bundle],
    *,
    finder: Callable[[], Bundle] | None = None,
    tell: Tell = silent,
    warn: Tell = silent,
    **reading: Any,
) -> Iterator[Answered]:
    """Answers to what was given: texts, the rows of one file, or else the lines of a stream. With a `finder`
    of entities, the bundle says how those of each text stand to each other. How a file was read is told; that
    texts lose their ends is a warning, after the last answer.

    Raises:
        DataError: a text that is none, no text at all, or rows that cannot be read. SpecError: `reading`
            without a file.
    """
    for i, one in enumerate(given or (), 1):
        if not one.strip() or _HALF.search(one):
            what = "a text with words in it" if not one.strip() else "a text in UTF-8"
            raise DataError(
                f"Text {i} of {len(given or ())} is {one[:60]!r}; {what} was wanted. Mend it or leave it out."
            )
    path = file_among(given or [])
    if reading and path is None:
        option = next(iter(reading)).replace("_", "-")
        raise SpecError(
            f"`--{option}` says how the rows of a file are read; {'texts' if given else 'lines'} are given, "
            "and it would be ignored. Leave it out, or give the path of one file."
        )
    if finder:
        return _related(finder(), bundle(), path, given or lines_of(stream, tell), **reading)
    if path:
        return answers_of_file(bundle(), path, tell=tell, warn=warn, **reading)
    return answers(bundle, given or lines_of(stream, tell), warn=warn)


def answers(
    bundle: Bundle | Callable[[], Bundle], inputs: Iterable[Any], *, warn: Tell = silent
) -> Iterator[Answered]:
    """Answers in the inputs' order; the stream is taken in portions of 4,096.

    A function that opens the bundle is called when the first inputs are there: bad input costs no waiting.
    """
    waiting, cut = iter(inputs), list[int]()
    while portion := list(islice(waiting, AT_ONCE)):
        bundle = bundle if isinstance(bundle, Bundle) else bundle()
        said = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in portion]
        yield from _answered(bundle, said, bundle.answer(bundle.asked(portion), cut=cut.append))
    _warned(bundle, sum(cut), warn)


def answers_of_file(
    bundle: Bundle, path: Path, *, tell: Tell = silent, warn: Tell = silent, **reading: Any
) -> Iterator[Answered]:
    """Answers to the rows of a file, labelled or not, as the bundle's task reads them; how it read them is
    told. That they lack a column which the bundle learned from is a warning."""
    rows = rows_for(bundle, str(path), labelled=False, warn=warn, **reading)
    for note in rows.notes:
        tell(News("note", note))
    cut = list[int]()
    for start in range(0, len(rows), AT_ONCE):
        portion = rows.take(np.arange(start, min(start + AT_ONCE, len(rows))))
        said = [portion.where(i) for i in range(len(portion))] if bundle.task.sees else portion.texts
        yield from _answered(bundle, said, bundle.answer(portion, cut=cut.append))
    _warned(bundle, sum(cut), warn)


def _warned(bundle: Any, n_cut: int, warn: Tell) -> None:
    if n_cut:
        warn(News("note", cut_said(n_cut, "text", bundle.card["max_length"])))


def _related(
    finder: Bundle, bundle: Bundle, path: Path | None, texts: Iterable[str], **reading: Any
) -> Iterator[Answered]:
    """Entities and relations of texts, or of a file's rows as the finder's task reads them."""
    if path:
        texts = rows_for(finder, str(path), labelled=False, **reading).texts
    waiting = iter(texts)
    while portion := list(islice(waiting, AT_ONCE)):
        for text, answer in zip(portion, relations(finder, bundle, portion), strict=True):
            yield Answered(text, answer, f"{line_of(answer)}\t{' '.join(text.split())}")


def _answered(bundle: Bundle, texts: Sequence[str], found: list[dict[str, Any]]) -> Iterator[Answered]:
    for text, answer in zip(texts, found, strict=True):
        yield Answered(text, answer, f"{bundle.task.say(answer)}\t{' '.join(text.split())}")


def lines_of(stream: BinaryIO, tell: Tell = silent) -> Iterator[str]:
    """The texts of a stream of bytes, a line a text; blank lines are none, and how many there were is told.

    Raises:
        DataError: a line is not UTF-8, or there is no text at all.
    """
    n_texts = number = 0
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
    if number > n_texts:
        blank = counted(number - n_texts, "line is blank and has", "lines are blank and have")
        tell(News("note", f"{blank} no answer"))


def file_among(given: list[str]) -> Path | None:
    """The file meant by what was given: each item is a text, unless it is the only one and names a file.

    Raises:
        DataError: it is one of several, or a folder, or looks like a file's name and there is no such file.
    """
    if len(given) != 1:
        named = next(
            (one for one in given if Path(one).suffix.lower() in SUFFIXES and os.path.isfile(one)), None
        )
        if named:
            raise DataError(
                f"Texts, or one file of texts, were wanted; {named} is a file, one of {len(given)} that are "
                "given. Ask one file at a time; a text of that name on standard input."
            )
        return None
    path = Path(given[0])
    try:
        if path.is_file():
            return path
        folder = path.is_dir()
    except OSError:  # a text too long for a file's name
        return None
    if folder:
        raise DataError(
            f"A text or a file of texts was wanted; {given[0]} is a folder. Give a file of it; if it is the "
            "text, give it on standard input."
        )
    in_a_folder = path.parent != Path() and path.parent.is_dir()
    if path.suffix.lower() in SUFFIXES and (in_a_folder or " " not in given[0]):
        raise DataError(
            f"{given[0]} looks like a file of texts, and there is none. Give its path, or a text in quotes."
        )
    return None
