"""Rows of code: whole files, prompts with what completes them, and problems with unit tests.

HumanEval's and MBPP's fields are known; other tables have a prompt and a completion (perhaps a `suffix` and
`tests`), or whole files in one column. To know one more usual name, add it here.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import listed, named, one_named
from penjing.data.columns import simple as plain
from penjing.data.encoding import find_encoding, open_text
from penjing.data.fields import as_object, given_rows
from penjing.data.lists import literal
from penjing.data.sources import tables
from penjing.data.table import Table
from penjing.errors import DataError
from penjing.records import Rows

_SUFFIXES = """.py .pyi .js .jsx .ts .tsx .java .c .h .cc .cpp .hpp .cs .go .rs .rb .php .sh .sql .scala .kt
.swift .lua .jl .r .m .pl .hs .ml"""
SUFFIXES = frozenset(_SUFFIXES.split())
PROMPTS = ("prompt", "input", "source", "instruction", "question", "text", "prefix")
COMPLETIONS = ("completion", "canonical_solution", "solution", "output", "response", "target", "middle",
               "answer", "code")  # fmt: skip
WHOLE = ("content", "code", "text", "source")
ALPACA = ("instruction", "input")  # neither says enough alone; the second may be empty
TESTS = ("test", "tests", "test_list")
SKIPPED = frozenset(("__pycache__", "node_modules", "venv", "site-packages"))


@dataclass(frozen=True)
class Problem:
    """What stands before and behind a hole, what was there, and a program that tests it (with `prompt` and
    the answer before it). Of a whole file `completion` is the file."""

    prompt: str
    completion: str | None
    suffix: str = ""
    tests: str = ""
    whole: bool = False


def read_code(
    source: Any,
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Rows whose `items` are Problems. `text` and `label` name the columns of prompts and completions; a
    prompt may be several, `a+b`, line by line.

    Raises:
        DataError: no code is there, no such columns, an empty file or completion (unless `drop_empty`).
    """
    if delimiter is not None:
        raise DataError(
            f"`data.delimiter` is {delimiter!r}; code stands in files or columns, and it would be ignored. "
            "Leave it out."
        )
    files = code_files(source)
    found: list[tuple[str, int, Problem]] = []
    notes: list[str] = []
    if files:
        for path in files:
            with open_text(path, find_encoding(path, encoding=encoding)[0]) as stream:
                found.append((str(path), 0, Problem("", stream.read(), whole=True)))
        notes.append(f"{len(files):,} files of code")
    else:
        given = [name for name in (text, label) if name]
        for table in tables(source, encoding=encoding, wanted=[*PROMPTS, *COMPLETIONS, *given]):
            found += _of_table(table, text, label, labelled, notes)
    lacking = [i for i, (_, _, one) in enumerate(found) if _lacks(one, labelled)]
    if lacking and not drop_empty:
        file, line, _ = found[lacking[0]]
        raise DataError(
            f"{file}{f', line {line}' if line else ''}: code was wanted; there is none. {len(lacking):,} of "
            f"{len(found):,} rows are so; fill them, or pass `drop_empty: true` to leave them out."
        )
    if lacking:
        notes.append(f"{len(lacking):,} of {len(found):,} rows left out, they hold no code")
        left = set(lacking)
        found = [one for i, one in enumerate(found) if i not in left]
    return _rows(found, tuple(notes))


def asked_code(inputs: Sequence[Any]) -> Rows:
    """What is to be completed, given by hand: a text, or an object with `prompt` and perhaps `suffix`.

    Raises:
        DataError: one is neither, or empty.
    """
    items = []
    for i, given in enumerate(inputs):
        one = as_object(given) if isinstance(given, str) and given[:1] == "{" else given
        if isinstance(one, dict) and "prompt" not in one and {*ALPACA} <= one.keys():
            found = Problem("".join(f"{one[name]}\n" for name in ALPACA if one.get(name)), None)
        elif isinstance(one, dict) and isinstance(one.get("prompt"), str):
            found = Problem(one["prompt"], None, str(one.get("suffix") or ""))
        else:
            found = Problem(given if isinstance(given, str) else "", None)
        if not (found.prompt + found.suffix).strip():
            raise DataError(
                f"`predict` takes code to complete here; item {i + 1} of {len(inputs)} is "
                f"{str(given)[:60]!r}. "
                'Give a text, or an object such as {"prompt": "def add(a, b):", "suffix": ""}.'
            )
        items.append(found)
    return given_rows(items, [one.prompt or one.suffix for one in items])


def code_files(source: Any) -> list[Path]:
    """The files of code that a source names: a file, a folder with all below it, a pattern, or a list."""
    if isinstance(source, list | tuple):
        return [path for one in source for path in code_files(one)]
    path = Path(str(source)).expanduser()
    if path.is_dir():
        below = sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
        return [
            one
            for one in below
            if not any(part in SKIPPED or part.startswith(".") for part in one.relative_to(path).parts)
        ]
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    if glob.has_magic(str(source)):
        hits = [Path(hit) for hit in sorted(glob.glob(str(path), recursive=True))]
        return [hit for hit in hits if hit.suffix.lower() in SUFFIXES and hit.is_file()]
    return []


def _lacks(one: Problem, labelled: bool) -> bool:
    given = one.completion if one.whole or labelled else one.prompt + one.suffix
    return not (given or "").strip()


def _rows(found: list[tuple[str, int, Problem]], notes: tuple[str, ...]) -> Rows:
    files = tuple(dict.fromkeys(file for file, _, _ in found))
    places = {file: i for i, file in enumerate(files)}
    texts = [one.prompt + (one.completion or "") + one.suffix for _, _, one in found]
    return Rows(
        texts,
        [()] * len(found),
        files,
        np.array([places[file] for file, _, _ in found], np.int32),
        np.array([line for _, line, _ in found], np.int64),
        notes,
        [one for _, _, one in found],
    )


def _of_table(
    table: Table, text: str | None, label: str | None, labelled: bool, notes: list[str]
) -> list[tuple[str, int, Problem]]:
    every = (*table.columns, *table.lists)
    plain_names = {plain(name): name for name in reversed(every)}
    first = named(table, text, key="text", must=True) if text else []
    said = one_named(table, label, key="label", must=labelled, why="a completion has one") if label else None
    second = [said] if said else []
    known = lambda names, besides: next(  # noqa: E731
        (plain_names[one] for one in names if one in plain_names and plain_names[one] not in besides), None
    )
    if not second and not (text and not labelled):
        hit = known(COMPLETIONS, first)
        second = [hit] if hit else []
    if not first:
        hit = known(PROMPTS, second)
        first = [hit] if hit else []
        if hit and plain(hit) in ALPACA and all(one in plain_names for one in ALPACA):
            first = [plain_names[one] for one in ALPACA]
    if not first or (labelled and not second):
        whole = (second or first or [known(WHOLE, ()) or ""])[0]
        if not whole and len(table.columns) == 1:
            whole = table.columns[0]
        if not whole:
            raise DataError(
                f"{table.name}: code was wanted, whole files in one column or a prompt and its completion; "
                f"which they are could not be guessed. Columns: {', '.join(every[:20])}. Say which, such as "
                f"`text: {every[0]}` and `label: {every[-1]}`."
            )
        notes.append(
            f"{table.name}: {'whole files' if labelled else 'prompts'} from {listed([whole])} (guessed)"
        )
        first, second = ([], [whole]) if labelled else ([whole], [])
    elif not (text and label):
        both = ["+".join(first), *second] if labelled else ["+".join(first)]
        notes.append(
            f"{table.name}: {' and '.join(f'`{name}`' for name in both)} as prompt and completion (guessed)"
        )
    more = [known((one,), (*first, *second)) for one in ("suffix", "entry_point", "test_setup_code")]
    tests = known(TESTS, (*first, *second))
    wanted = [name for name in (*first, *second, *more, tests) if name]
    found = []
    for number, (line, cells) in enumerate(table.rows(wanted)):
        row = dict(zip(wanted, cells, strict=True))
        file = table.files[number if table.file_a_row else 0]
        try:
            one = _problem(row, first, second if labelled else [], more, tests)
        except (ValueError, SyntaxError) as error:
            raise DataError(
                f"{file}, line {line}: a program or a list of tests was wanted in `{tests}`; "
                f"{str(row[tests or ''])[:60]!r} stands ({error}). Write the list as JSON."
            ) from error
        found.append((file, line, one))
    return found


def _problem(
    row: dict[str, Any], first: list[str], second: list[str], more: list[str | None], tests: str | None
) -> Problem:
    said = lambda name: "" if not name or row.get(name) is None else str(row[name])  # noqa: E731
    suffix, entry, setup = more
    prompt = "\n".join(filter(None, map(said, first)))
    if {*map(plain, first)} == {*ALPACA}:
        prompt += "\n"  # what is asked in words ends with its line
    completion = said(second[0]) if second else None
    if not first:
        return Problem("", completion, whole=True)
    checks = _list(row[tests]) if tests else []
    program = "\n".join([one for one in (said(setup), *checks) if one])
    if entry and program:
        program += f"\ncheck({said(entry)})"
    if (
        tests and plain(tests) == "test_list"
    ):  # MBPP: the task in words, and one of the tests to show the name
        prompt = f'"""\n{prompt.strip()}\n{checks[0] if checks else ""}\n"""\n'
    return Problem(prompt, completion, said(suffix), program)


def _list(cell: Any) -> list[str]:
    """Tests as they are written: a program, a list of them, or such a list as text.

    Raises:
        ValueError, SyntaxError: a list that cannot be read; as a program it would test nothing.
    """
    if isinstance(cell, str) and cell.strip()[:1] == "[":
        cell = literal(cell.strip())
    if isinstance(cell, list | tuple):
        return [str(one) for one in cell]
    return [] if cell is None else [str(cell)]
