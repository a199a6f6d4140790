"""CoNLL-style files: a token and its tags a line, a blank line between sentences, comments above.

`read_conll` gives a table of sentences: the text, what comments say, and as lists the tokens, their tags and
each column by its number; `read_parallel` gives the same of a folder with a file a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penjing.data.encoding import find_encoding, open_text, plain_name
from penjing.data.table import Cells, Table
from penjing.errors import DataError

_COMMENT = re.compile(r"#\s*([\w.]+(?: \w+)?)\s*[=:]\s*(\S.*?)\s*$")
_TAG = re.compile(r"(O|[BIESMLUS][-_].+)$")
_NUMBERED = re.compile(r".[0-9]$")
# Written without spaces: kana, Han, and the punctuation that goes with them.
_SIGNS = r"\u3001-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
WIDE = re.compile(rf"[{_SIGNS}\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Sentence:
    """One sentence: first line (1-based), the columns as they stand (one list a column), comments."""

    line: int
    columns: list[list[str]]
    comments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layout:
    """Which columns of a file, counted from 0, hold the tokens and the tags (None: no telling). `numbered`:
    tokens are characters with their place in their word behind them, as Weibo's corpus has them."""

    tokens: int
    tags: int | None
    told: str = ""
    numbered: bool = False


def sentences(path: Path, *, name: str | None = None, encoding: str | None = None) -> Iterator[Sentence]:
    """The sentences of a CoNLL-style file; `-DOCSTART-` lines, and CoNLL-U's ranges such as `1-2`, are passed
    over.

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
            cells = _cells(body, width)
            # The first token of a sentence may be `#NowPlaying:`.
            may_be_token = len(cells) == (width or len(cells)) and _TAG.match(cells[-1])
            match = _COMMENT.match(body) if not lines and not may_be_token else None
            if match or (not lines and body.startswith(("# ", "#\t")) and len(cells) != width):
                comments |= {match[1].lower(): match[2]} if match else {}
                continue
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
    """The cells of a line: a token may be an ideographic or a no-break blank, which part nothing."""
    return line.split("\t") if "\t" in line else [cell for cell in line.split(" ") if cell]


def _cells(line: str, width: int) -> list[str]:
    """The cells of a line of a file with `width` columns: a line that begins with what parts them and has one
    too few is of a blank, which Chinese corpora have as a token."""
    cells = _fields(line)
    return ["", *cells] if len(cells) == width - 1 > 0 and line[:1] == " " else cells


def _sentence(first: int, lines: list[list[str]], comments: dict[str, str]) -> Sentence:
    columns = [list(column) for column in zip(*lines, strict=True)]
    if len(columns) >= 8 and all(re.match(r"\d+([-.]\d+)?$", cell) for cell in columns[0]):
        kept = [i for i, cell in enumerate(columns[0]) if cell.isdigit()]
        columns = [[column[i] for i in kept] for column in columns]
    return Sentence(first, columns, comments)


def _layout(name: str, found: Iterable[Sentence]) -> _Layout:
    """Tokens stand first and tags last, but where the first column counts the tokens, or of two columns the
    first alone holds tags."""
    width = full = n_tokens = longest = n_first = n_last = n_numbered = n_wide = 0
    counted = True
    for sentence in found:
        width = len(sentence.columns)
        # Where all lines end with a tab, nothing stands in the last column.
        full = max(full, *(i + 1 for i, column in enumerate(sentence.columns) if any(column)), 1)
        first, last = sentence.columns[0], sentence.columns[full - 1]
        n_tokens += len(first)
        longest = max(longest, len(first))
        n_first += sum(bool(_TAG.match(cell)) for cell in first)
        n_numbered += sum(bool(_NUMBERED.match(cell)) for cell in first)
        n_wide += sum(bool(WIDE.match(cell)) for cell in first)
        n_last += sum(bool(_TAG.match(cell)) for cell in last)
        counted = counted and first[:1] in (["0"], ["1"]) and _counts(first)
    width = min(width, full)
    if width > 2 and counted and longest > 1:
        # CoNLL-U ends with remarks, of which nothing says that they are tags.
        tags = None if width >= 8 and n_last < 0.95 * n_tokens else width - 1
        return _Layout(1, tags)
    if width == 2 and n_first >= 0.95 * n_tokens > n_last:
        return _Layout(1, 0, f"{name}: tags stand in the first column, tokens in the second")
    tags = width - 1 if width > 1 else None
    if n_numbered >= 0.95 * n_tokens and n_wide > n_tokens / 2:
        told = f"{name}: the digit behind each character, its place in its word, is left out"
        return _Layout(0, tags, told, numbered=True)
    return _Layout(0, tags)


def _counts(cells: list[str]) -> bool:
    return cells == [str(i) for i in range(int(cells[0]), int(cells[0]) + len(cells))]


def is_conll(lines: Sequence[str]) -> bool:
    """Whether lines are tokens and tags: as many columns everywhere, a tag such as `B-PER` last, or first of
    two."""
    rows = [
        _fields(line.rstrip("\r\n"))
        for line in lines
        if line.strip() and not line.startswith(("#", "-DOCSTART-"))
    ]
    if len(rows) < 2 or len(rows[0]) < 2:
        return False
    even = [row for row in rows if len(row) == len(rows[0])]
    last = sum(bool(_TAG.match(row[-1])) for row in even)
    first = sum(len(row) == 2 and bool(_TAG.match(row[0])) and " " not in row[1].strip() for row in even)
    return max(first, last) >= 0.95 * len(rows)


def joined(tokens: Sequence[str]) -> str:
    """Tokens as running text: spaces between words, none beside Han characters, nor between the letters and
    digits of a text that was cut into characters."""
    return laid_out(tokens)[0]


def laid_out(tokens: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The running text of tokens, and where in it each of them stands, as (first, end) characters."""
    parts: list[str] = []
    places = []
    at = 0
    single = _is_cut(tokens)
    last = ""
    for token in tokens:
        glued = WIDE.match(last[-1:]) or WIDE.match(token) or (single and len(last) == len(token) == 1)
        if last and token and not glued:
            parts.append(" ")
            at += 1
        parts.append(token)
        last = token or last
        places.append((at, at + len(token)))
        at += len(token)
    return "".join(parts), tuple(places)


def _is_cut(tokens: Sequence[str]) -> bool:
    """Whether a text was cut into its characters: those of Chinese, and with them digits and letters."""
    wide = [token for token in tokens if WIDE.match(token)]
    return bool(wide) and all(len(token) == 1 for token in wide)


def read_conll(path: Path, *, name: str, encoding: str | None = None) -> Table:
    """A table of sentences: column `text` (or the comment `# text = …`), one for each key of comments; lists
    `tokens`, `tags` where the file has them, and each of its columns by number, `1`, `2`, …"""
    _, note = find_encoding(path, encoding=encoding)
    keys: dict[str, None] = {}
    n_columns = 0

    def seen() -> Iterator[Sentence]:
        nonlocal n_columns
        for sentence in sentences(path, name=name, encoding=encoding):
            keys.update(dict.fromkeys(sentence.comments))
            n_columns = len(sentence.columns)
            yield sentence

    layout = _layout(name, seen())
    if not n_columns:
        raise DataError(
            f"{name} was to hold sentences; it is empty. Give one token a line and a blank line between "
            f"sentences."
        )
    columns = ("text", *(key for key in keys if key != "text"))
    places = {"tokens": layout.tokens} | ({} if layout.tags is None else {"tags": layout.tags})
    places |= {str(i + 1): i for i in range(n_columns)}

    def rows(names: Sequence[str]) -> Cells:
        for sentence in sentences(path, name=name, encoding=encoding):
            lists = {key: sentence.columns[i] for key, i in places.items()}
            if layout.numbered:
                lists["tokens"] = [token[:1] for token in lists["tokens"]]
            cells = {"text": joined(lists["tokens"]), **sentence.comments}
            yield sentence.line, [lists[n] if n in lists else cells.get(n) for n in names]

    notes = tuple(one for one in (note, layout.told) if one)
    return Table(name, columns, rows, (name,), notes, typed=True, lists=tuple(places))


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
