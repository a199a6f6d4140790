"""CoNLL-style files: a token and its tags a line, a blank line between sentences, comments above.

`read_conll` gives a table of sentences: the text, what comments say, and as lists the tokens and each further
column by its number; `read_parallel` gives the same of a folder with a file a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penjing.data.encoding import find_encoding, open_text, plain_name
from penjing.data.table import Cells, Table
from penjing.errors import DataError

_COMMENT = re.compile(r"#\s*([\w.]+(?: \w+)?)\s*[=:]\s*(\S.*?)\s*$")
_TAG = re.compile(r"(O|[BIESMLUS][-_].+)$")
# Written without spaces: kana, Han, and the punctuation that goes with them.
_SIGNS = r"\u3001-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
WIDE = re.compile(rf"[{_SIGNS}\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


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
    return laid_out(tokens)[0]


def laid_out(tokens: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The running text of tokens, and where in it each of them stands, as (first, end) characters."""
    parts: list[str] = []
    places = []
    at = 0
    for token in tokens:
        if parts and token and not (WIDE.match(parts[-1][-1:]) and WIDE.match(token)):
            parts.append(" ")
            at += 1
        parts.append(token)
        places.append((at, at + len(token)))
        at += len(token)
    return "".join(parts), tuple(places)


def read_conll(path: Path, *, name: str, encoding: str | None = None) -> Table:
    """A table of sentences: column `text` (or the comment `# text = …`), one for each key of comments; lists
    `tokens`, `tags` (the last column of the file), and its further columns by number, `2`, `3`, …"""
    _, note = find_encoding(path, encoding=encoding)
    keys: dict[str, None] = {}
    n_sentences = n_columns = 0
    for sentence in sentences(path, name=name, encoding=encoding):
        keys.update(dict.fromkeys(sentence.comments))
        n_sentences += 1
        n_columns = len(sentence.columns)
    if not n_sentences:
        raise DataError(
            f"{name} was to hold sentences; it is empty. Give one token a line and a blank line between "
            f"sentences."
        )
    columns = ("text", *(key for key in keys if key != "text"))
    numbers = tuple(str(i + 2) for i in range(n_columns))

    def rows(names: Sequence[str]) -> Cells:
        for sentence in sentences(path, name=name, encoding=encoding):
            lists: dict[str, Any] = dict(zip(numbers, sentence.columns, strict=True))
            lists |= {"tokens": sentence.tokens, "tags": sentence.columns[-1] if numbers else None}
            cells = {"text": joined(sentence.tokens), **sentence.comments}
            yield sentence.line, [lists[n] if n in lists else cells.get(n) for n in names]

    lists = ("tokens", "tags", *numbers) if numbers else ("tokens",)
    return Table(name, columns, rows, (name,), (note,) if note else (), typed=True, lists=lists)


PARALLEL = ("seq.in", "seq.out")  # tokens and tags; beside them `label`, the intents


def parallel_files(folder: Path) -> dict[str, Path]:
    """The files of a folder with one of tokens, one of their tags and perhaps one of intents, a sentence a
    line, packed or not; none where it is no such folder."""
    files = {plain_name(path): path for path in sorted(folder.iterdir()) if path.is_file()}
    if not all(part in files for part in PARALLEL):
        return {}
    return {part: files[part] for part in (*PARALLEL, "label") if part in files}


def read_parallel(folder: Path, *, name: str, encoding: str | None = None) -> Table:
    """The table of a folder with seq.in, seq.out and perhaps label: columns `text` and `label`, lists
    `tokens` and `tags`.

    Raises:
        DataError: the files are not of one length.
    """
    files = parallel_files(folder)
    lines = {}
    for kind, path in files.items():
        codec, _ = find_encoding(path, encoding=encoding)
        with open_text(path, codec) as stream:
            lines[kind] = [line.strip() for line in stream]
    if len({len(one) for one in lines.values()}) > 1:
        sizes = ", ".join(f"{kind} {len(one):,}" for kind, one in lines.items())
        raise DataError(
            f"{name} was to hold as many lines in each file, a sentence a line; there are {sizes}. Mend the "
            "file that is too short."
        )

    def rows(names: Sequence[str]) -> Cells:
        labels = lines.get("label", [None] * len(lines["seq.in"]))
        each = zip(lines["seq.in"], lines["seq.out"], labels, strict=True)
        for number, (words, tags, label) in enumerate(each, start=1):
            cells = {"text": words, "label": label, "tokens": words.split(), "tags": tags.split()}
            yield number, [cells[n] for n in names]

    columns = ("text", "label") if "label" in files else ("text",)
    return Table(name, columns, rows, (str(files["seq.in"]),), typed=True, lists=("tokens", "tags"))
