"""CoNLL-style files: a token and its tags a line, a blank line between sentences, comments above.

`sentences` is for tasks that tag tokens; `read_conll` gives a table of whole sentences with the label in a
comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penjing.data.encoding import find_encoding, open_text
from penjing.data.table import Cells, Table
from penjing.errors import DataError

_COMMENT = re.compile(r"#\s*([\w.]+(?: \w+)?)\s*[=:]\s*(\S.*?)\s*$")
_TAG = re.compile(r"(O|[BIESMLUS][-_].+)$")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Sentence:
    """One sentence: first line (1-based), tokens, further columns (one list a column), comments."""

    line: int
    tokens: list[str]
    columns: list[list[str]]
    comments: dict[str, str] = field(default_factory=dict)


def sentences(path: Path, *, name: str | None = None, encoding: str | None = None) -> Iterator[Sentence]:
    """The sentences of a CoNLL-style file; `-DOCSTART-` lines are passed over.

    In CoNLL-U the token is the second column and ranges such as `1-2` are passed over.

    Raises:
        DataError: a line with more or fewer columns than the line before it.
    """
    name = name or str(path)
    codec, _ = find_encoding(path, encoding=encoding)
    lines: list[list[str]] = []
    comments: dict[str, str] = {}
    first = width = 0
    with open_text(path, codec) as stream:
        for number, line in enumerate(stream, start=1):
            body = line.rstrip("\r\n")
            if not body.strip() or body.startswith("-DOCSTART-"):
                if lines:
                    yield _sentence(first, lines, comments)
                    lines, comments = [], {}
                continue
            match = _COMMENT.match(body) if not lines else None
            if match or (not lines and body.startswith("# ") and len(_fields(body)) != width):
                comments |= {match[1].lower(): match[2]} if match else {}
                continue
            cells = _fields(body)
            width = width or len(cells)
            if len(cells) != width:
                raise DataError(
                    f"{name}, line {number}: {width} columns were wanted, as above; found {len(cells)}: "
                    f"{body[:60]!r}. "
                    f"Give every token all its columns, and leave blank lines only between sentences."
                )
            first = first if lines else number
            lines.append(cells)
    if lines:
        yield _sentence(first, lines, comments)


def _fields(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _sentence(first: int, lines: list[list[str]], comments: dict[str, str]) -> Sentence:
    columns = [list(column) for column in zip(*lines, strict=True)]
    if len(columns) >= 8 and all(re.match(r"\d+([-.]\d+)?$", cell) for cell in columns[0]):
        kept = [i for i, cell in enumerate(columns[0]) if cell.isdigit()]
        columns = [[column[i] for i in kept] for column in columns[1:]]
    return Sentence(first, columns[0], columns[1:], comments)


def is_conll(lines: Sequence[str]) -> bool:
    """Whether lines are tokens and tags: as many columns everywhere, a tag such as `B-PER` last."""
    rows = [
        _fields(line.rstrip("\r\n"))
        for line in lines
        if line.strip() and not line.startswith(("#", "-DOCSTART-"))
    ]
    if len(rows) < 2 or len(rows[0]) < 2:
        return False
    fit = sum(len(row) == len(rows[0]) and bool(_TAG.match(row[-1])) for row in rows)
    return fit >= 0.95 * len(rows)


def joined(tokens: Sequence[str]) -> str:
    """Tokens as running text: spaces between words, none between Han characters."""
    parts: list[str] = []
    for token in tokens:
        if parts and token and not (_WIDE.match(parts[-1][-1:]) and _WIDE.match(token)):
            parts.append(" ")
        parts.append(token)
    return "".join(parts)


def read_conll(path: Path, *, name: str, encoding: str | None = None) -> Table:
    """A table of sentences: column `text` (or the comment `# text = …`), and one for each key of comments."""
    _, note = find_encoding(path, encoding=encoding)
    keys: dict[str, None] = {}
    n_sentences = 0
    for sentence in sentences(path, name=name, encoding=encoding):
        keys.update(dict.fromkeys(sentence.comments))
        n_sentences += 1
    if not n_sentences:
        raise DataError(
            f"{name} was to hold sentences; it is empty. Give one token a line and a blank line between "
            f"sentences."
        )
    columns = ("text", *(key for key in keys if key != "text"))

    def rows(names: Sequence[str]) -> Cells:
        for sentence in sentences(path, name=name, encoding=encoding):
            cells = {"text": joined(sentence.tokens), **sentence.comments}
            yield sentence.line, [cells.get(column) for column in names]

    return Table(name, columns, rows, (name,), (note,) if note else (), typed=True)
