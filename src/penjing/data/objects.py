"""JSON and JSON lines to a table: objects, [text, label] pairs, columns, or one of these under a key.

Elements are decoded one by one, so that each keeps the line it begins on; where they share lines, its number.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing.data import label_studio
from penjing.data.columns import is_known
from penjing.data.encoding import find_encoding, open_text, plain_name
from penjing.data.table import Cells, Table
from penjing.errors import DataError, nearest
from penjing.plural import counted

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[\s\ufeff]*")
# An escape: both halves of a character beyond U+FFFF, one half alone (which no tokenizer takes), any other.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)


def read_json(path: Path, *, name: str, encoding: str | None, key: str | None = None) -> Table:
    """The table of a JSON file (`key` chooses among several lists) or JSON lines, told apart by content.

    Raises:
        DataError: not JSON (with the line), no list of rows, several lists and no key.
    """
    codec, note = find_encoding(path, encoding=encoding)
    notes: tuple[str, ...] = (note,) if note else ()
    halves: dict[int, int] = {}
    with open_text(path, codec) as stream:
        by_line = _is_lines(stream, named=".json" not in plain_name(path)[-5:])
    if by_line and key is None:
        table = _table(name, lambda: _elements_of_lines(path, codec, name, halves), notes)
        return replace(table, notes=(*table.notes, *_told(name, halves)))
    with open_text(path, codec) as stream:
        text = _paired(stream.read(), 1, halves)
    notes += _told(name, halves)
    start = _skip(text, 0)
    if start == len(text):
        raise DataError(
            f'{name} was to hold rows; it is empty. Give a list of objects such as {{"text": …, "label": …}}.'
        )
    if text[start] not in "[{":
        raise DataError(
            f"{name} was to hold a JSON list or object; it begins with {text[start : start + 20]!r}. Give "
            f"rows as JSON lines."
        )
    members, end = _members(text, start, name) if text[start] == "{" else ({}, start)
    if end == start or _skip(text, end) < len(text):
        if key is not None:
            raise DataError(
                f"`{name}#{key}` asks for the list under `{key}`; {name} is not one object with lists. Leave "
                f"`#{key}` out."
            )
        return _table(name, lambda: _values(text, start, name), notes)
    by_key = {k: value for k, (_, value) in members.items()}
    if key is None and _is_rows_by_key(by_key):
        places = [text.count("\n", 0, at) + 1 for at, _ in members.values()]
        rows = list(zip(places, by_key.values(), strict=True))
        return _table(name, lambda: iter(rows), (*notes, f"{name}: a row under each of {len(rows):,} keys"))
    columns = _as_columns(by_key)
    if columns is not None and key is None:
        return _of_columns(name, columns, notes)
    at, told = _choose_list(name, members, key)
    return _table(name, lambda: _elements(text, at, name), notes + told)


def _is_lines(stream: Iterator[str], *, named: bool) -> bool:
    """Whether the first two lines not blank are whole JSON values by themselves (one line: an object, of any
    kind where the file is `named` as one of lines)."""
    found: list[Any] = []
    for line in stream:
        if line.strip():
            try:
                found.append(json.loads(line.lstrip("\ufeff")))
            except ValueError:
                # A broken second line under a good first one: JSON lines, and the reader will name it.
                return len(found) == 1 and isinstance(found[0], dict)
            if len(found) == 2:
                return True
    if len(found) == 1 and isinstance(found[0], dict):
        return named or (
            not any(
                isinstance(value, list) and value and isinstance(value[0], dict | list)
                for value in found[0].values()
            )
            and (_as_columns(found[0]) is None)
        )
    return False


def _elements_of_lines(
    path: Path, codec: str, name: str, halves: dict[int, int]
) -> Iterator[tuple[int, Any]]:
    with open_text(path, codec) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.isspace():
                try:
                    yield number, json.loads(_paired(line.lstrip("\ufeff"), number, halves))
                except ValueError as error:
                    raise DataError(
                        f"{name}, line {number}: not a JSON value: {error}; it begins {line[:40]!r}. Mend "
                        f"the line."
                    ) from error


def _paired(text: str, line: int, halves: dict[int, int]) -> str:
    """JSON with U+FFFD in the place of lone halves of characters; how many, is kept under the line."""
    if "\\ud" not in text and "\\uD" not in text:
        return text
    n = sum(match[1] is not None for match in _ESCAPE.finditer(text))
    if not n:
        return text
    halves[line] = n
    return _ESCAPE.sub(lambda match: "\\ufffd" if match[1] else match[0], text)


def _told(name: str, halves: dict[int, int]) -> tuple[str, ...]:
    n = sum(halves.values())
    return (f"{name}: {counted(n, 'half', 'halves')} of characters (lone surrogates) read as U+FFFD",) * (
        n > 0
    )


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _decode(text: str, at: int, name: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except ValueError as error:
        position = getattr(error, "pos", at)
        line = text.count("\n", 0, position) + 1
        raise DataError(
            f"{name}, line {line}: not JSON: {error}. Mend the file there; a list wants `,` between objects."
        ) from error


def _values(text: str, start: int, name: str) -> Iterator[tuple[int, Any]]:
    """(line, element) of the lists and objects that stand one behind the other, as `jq` writes them."""
    line, counted, at = 1, 0, start
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        if text[at] == "[":
            end = yield from _elements(text, at, name)
        else:
            value, end = _decode(text, at, name)
            yield line, value
        at = _skip(text, end)


def _elements(text: str, start: int, name: str) -> Generator[tuple[int, Any], None, int]:
    """(line, element) of the list that opens at `start`; gives where it ends."""
    line, counted = 1, 0
    at = _skip(text, start + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, at = _decode(text, at, name)
        yield line, value
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            here = text.count("\n", 0, at) + 1
            raise DataError(
                f"{name}, line {here}: `,` or `]` was wanted after a row; found {text[at : at + 20]!r}. The "
                f"file may be cut short."
            )
    return at + 1


def _members(text: str, start: int, name: str) -> tuple[dict[str, tuple[int, Any]], int]:
    """Key to (position, value) of the object that opens at `start`, and where it ends."""
    found: dict[str, tuple[int, Any]] = {}
    at = _skip(text, start + 1)
    while text[at : at + 1] != "}":
        key, at = _decode(text, at, name)
        at = _skip(text, _skip(text, at) + 1)
        found[str(key)] = (at, None)
        value, end = _decode(text, at, name)
        found[str(key)] = (at, value)
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
    return found, at + 1


def _is_rows_by_key(value: Mapping[str, Any]) -> bool:
    """Whether an object is `{"17": {"text": …, "label": …}, …}`: rows, and not columns, under keys."""
    if len(value) < 2 or not all(isinstance(v, dict) and v for v in value.values()):
        return False
    shared = set.intersection(*(set(v) for v in value.values()))
    return any(map(is_known, shared)) and not any(map(is_known, value))


def _as_columns(value: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """`{"text": [...], "label": [...]}`, or pandas' `{"text": {"0": ...}, "label": {"0": ...}}`."""
    if len(value) > 1 and all(isinstance(v, dict) for v in value.values()):
        keys = [list(v) for v in value.values()]
        if keys[0] and all(k == keys[0] for k in keys):
            plain = {name: list(v.values()) for name, v in value.items()}
            return (
                plain if not any(isinstance(x, dict | list) for v in plain.values() for x in v[:3]) else None
            )
        return None
    lists = {name: v for name, v in value.items() if isinstance(v, list)}
    if (
        len(lists) < 2
        or len(lists) < len(value)
        or len({len(v) for v in lists.values()}) != 1
        or not next(iter(lists.values()))
    ):
        return None
    nested = [
        isinstance(v[0], dict) or (isinstance(v[0], list) and len(v[0]) == 2 and isinstance(v[0][0], str))
        for v in lists.values()
    ]
    return None if all(nested) else lists


def _choose_list(
    name: str, members: dict[str, tuple[int, Any]], key: str | None
) -> tuple[int, tuple[str, ...]]:
    lists = [k for k, (_, value) in members.items() if isinstance(value, list) and value]
    if key is not None:
        if key in lists:
            return members[key][0], ()
        raise DataError(
            f"{name}#{key} asks for the list under `{key}`; there is none.{nearest(key, lists)} Lists: "
            f"{', '.join(lists) or 'none'}."
        )
    if len(lists) == 1 or "data" in lists:
        chosen = lists[0] if len(lists) == 1 else "data"
        return members[chosen][0], (f"{name}: rows from the list `{chosen}`",)
    if not lists:
        raise DataError(
            f"{name} holds one object (keys: {', '.join([*members][:8])}) and no list of rows. Give a list "
            f"of objects or JSON lines."
        )
    raise DataError(
        f"{name} holds {len(lists)} lists ({', '.join(lists[:8])}); one was wanted. Choose with `#`, such as "
        f"`{name}#{lists[0]}`."
    )


def _of_columns(name: str, columns: dict[str, list[Any]], notes: tuple[str, ...]) -> Table:
    def rows(names: Sequence[str]) -> Cells:
        yield from enumerate(zip(*(columns[n] for n in names), strict=True), start=1)

    return Table(name, tuple(columns), rows, (name,), notes, typed=True)


def _table(name: str, elements: Any, notes: tuple[str, ...]) -> Table:
    """A table over objects (missing keys are empty cells), lists (columns are numbered) or strings."""
    if _share_a_line(elements):
        elements = _numbered(elements)
        notes = (*notes, f"{name}: rows share a line: what is called a line is the row's number")
    columns: dict[str, None] = {}
    kinds = set()
    first: dict[type, int] = {}
    unlabelled = frozenset[int]()
    if label_studio.is_task(next((value for _, value in elements()), None)):
        tasks = ((i, one) for i, (_, one) in enumerate(elements()) if label_studio.is_task(one))
        unlabelled = frozenset(i for i, one in tasks if label_studio.annotation_of(one) is None)
        elements, notes = _of_tasks(elements), (*notes, f"{name}: tasks of Label Studio")
    for line, value in elements():
        kind = type(value) if isinstance(value, dict | list) else str
        kinds.add(kind)
        first.setdefault(kind, line)
        if kind is dict:
            columns.update(dict.fromkeys(map(str, value)))
        elif kind is list and len(value) > len(columns):
            columns.update(dict.fromkeys(str(i + 1) for i in range(len(value))))
    if not kinds:
        raise DataError(
            f'{name} holds an empty list. Give at least one row such as {{"text": …, "label": …}}.'
        )
    if len(kinds) > 1:
        lines = ", ".join(
            f"line {line} {'an object' if k is dict else 'a list' if k is list else 'a plain value'}"
            for k, line in first.items()
        )
        raise DataError(
            f"{name}: every row must be of one kind; {lines}. Write all as objects with the same keys."
        )
    kind = kinds.pop()
    columns = columns if kind is not str else {"1": None}
    if not columns:
        raise DataError(
            f"{name} was to hold rows; all of them are empty objects. Give rows such as "
            f'{{"text": …, "label": …}}.'
        )

    def rows(names: Sequence[str]) -> Cells:
        at = [] if kind is dict else [int(n) - 1 for n in names]
        for line, value in elements():
            if kind is dict:
                yield line, [value.get(n) for n in names]
            else:
                cells = value if kind is list else [value]
                yield line, [cells[i] if i < len(cells) else None for i in at]

    headed = kind is dict
    return Table(name, tuple(columns), rows, (name,), notes, typed=True, headed=headed, unlabelled=unlabelled)


def _share_a_line(elements: Any) -> bool:
    """Whether the first two rows do: a list that was written without line ends."""
    lines = [line for line, _ in itertools.islice(elements(), 2)]
    return len(lines) == 2 and lines[0] == lines[1]


def _numbered(elements: Any) -> Any:
    return lambda: ((number, value) for number, (_, value) in enumerate(elements(), 1))


def _of_tasks(elements: Any) -> Any:
    """Rows in the place of Label Studio's tasks; what is no task stays as it is."""
    return lambda: ((line, label_studio.flat(v) if label_studio.is_task(v) else v) for line, v in elements())
