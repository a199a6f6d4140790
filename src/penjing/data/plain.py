"""Text files whose content tells the format: tab-separated, `__label__x text`, CoNLL, words with tags, one
text a line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from penjing.data.columns import is_known
from penjing.data.conll import is_conll, read_conll
from penjing.data.delimited import read_delimited
from penjing.data.encoding import find_encoding, open_text
from penjing.data.objects import read_json
from penjing.data.slashed import is_slashed, read_slashed
from penjing.data.table import Cells, Table
from penjing.errors import DataError

_BLOCK = re.compile(r'\d+\s+"?.*<e1>.*</e1>.*<e2>|\d+\s+"?.*<e2>.*</e2>.*<e1>')
_FAST_TEXT = re.compile(r"((?:__label__\S+\s+)+)(.*)$", re.DOTALL)


def read_plain(path: Path, *, name: str, encoding: str | None, wanted: Sequence[str] = ()) -> Table:
    """The table of a text file.

    Raises:
        DataError: the file is empty, or what its own format refuses.
    """
    codec, note = find_encoding(path, encoding=encoding)
    with open_text(path, codec) as stream:
        head = [line for line in itertools.islice(stream, 1000) if line.strip()]
    if not head:
        raise DataError(f"{name} was to hold rows; it is empty. Give one text a line, or `label<TAB>text`.")
    if re.match(r'\s*(\{\s*"|\[\s*[\[{])', head[0] + "".join(head[1:2])):
        return read_json(path, name=name, encoding=encoding)
    if _BLOCK.match(head[0]):
        return _blocks(path, codec, name, note)
    if is_conll(head):
        return read_conll(path, name=name, encoding=encoding)
    if is_slashed(head):
        return read_slashed(path, codec, name=name, note=note)
    if all(line.startswith("__label__") for line in head):
        return _fast_text(path, codec, name, note)
    cells = re.split(r"[,;|]", head[0].strip())
    if all("\t" in line for line in head) or (len(cells) > 1 and sum(map(is_known, cells)) > 1):
        return read_delimited(path, name=name, encoding=encoding, wanted=wanted)
    return _lines(path, codec, name, note)


def _lines(path: Path, codec: str, name: str, note: str) -> Table:
    def rows(names: Sequence[str]) -> Cells:
        with open_text(path, codec) as stream:
            for number, line in enumerate(stream, start=1):
                body = line.rstrip("\r\n")
                if body.strip():
                    yield number, [body] * len(names)

    return Table(name, ("text",), rows, (name,), (note,) if note else (), headed=False)


def _blocks(path: Path, codec: str, name: str, note: str) -> Table:
    """SemEval-2010 task 8: a numbered sentence in quotes, its relation, a comment, and a blank line."""

    def rows(names: Sequence[str]) -> Cells:
        with open_text(path, codec) as stream:
            first, cells = 0, {"text": "", "label": ""}
            for number, line in enumerate(stream, start=1):
                body = line.strip()
                if _BLOCK.match(body):
                    if first:
                        yield first, [cells[column] for column in names]
                    first, cells = number, {"text": body.split(None, 1)[1].strip('"'), "label": ""}
                elif body and not body.startswith("Comment") and not cells["label"]:
                    cells["label"] = body
            if first:
                yield first, [cells[column] for column in names]

    return Table(name, ("text", "label"), rows, (name,), (note,) if note else (), headed=False)


def _fast_text(path: Path, codec: str, name: str, note: str) -> Table:
    def rows(names: Sequence[str]) -> Cells:
        with open_text(path, codec) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    match = _FAST_TEXT.match(line.strip() + " ")
                    labels = match[1].replace("__label__", "").split() if match else None
                    cells = {"text": match[2].rstrip() if match else line.strip(), "label": labels}
                    yield number, [cells[column] for column in names]

    return Table(name, ("text", "label"), rows, (name,), (note,) if note else (), headed=False)
