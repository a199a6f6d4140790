"""A folder of brat's: texts (`.txt`) with their entities beside them (`.ann`), a document a row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.data.encoding import find_encoding, find_encodings, open_text
from penjing.data.table import Cells, Table
from penjing.errors import DataError

_ENTITY = re.compile(r"(T\d+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)$")
_RELATION = re.compile(r"R\d+\t(\S+) \S+:(T\d+) \S+:(T\d+)\s*$")
Marks = list[dict[str, Any]]
_KINDS = {
    "R": "relations of no known form",
    "E": "events",
    "A": "attributes",
    "M": "attributes",
    "#": "comments",
    "N": "links",
}


def documents(folder: Path) -> list[Path]:
    """The texts of a folder, at any depth, beside which annotations stand."""
    return sorted(p for p in folder.rglob("*.txt") if p.with_suffix(".ann").is_file())


def read_brat(paths: Sequence[Path], *, name: str, encoding: str | None = None) -> Table:
    """The table of these texts: columns `text`, `entities`, of {id, start, end, label, text}, and
    `relations`, of {from_id, to_id, type}.

    Entities of several pieces and what else brat knows are counted and left out.

    Raises:
        DataError: an entity is not written as brat writes it.
    """
    codecs, note = find_encodings(paths, name=name, encoding=encoding)
    left = Counter[str]()
    found = [_marks(path.with_suffix(".ann"), encoding, left) for path in paths]

    def rows(names: Sequence[str]) -> Cells:
        for path, codec, (entities, relations) in zip(paths, codecs, found, strict=True):
            with open_text(path, codec) as stream:
                cells = {"text": stream.read(), "entities": entities, "relations": relations}
            yield 1, [cells[column] for column in names]

    told = ", ".join(f"{n:,} {kind}" for kind, n in left.items())
    notes = (note, f"{name}: left out: {told}" if told else "")
    files = tuple(map(str, paths))
    kept = tuple(one for one in notes if one)
    columns = ("text", "entities", "relations")
    return Table(name, columns, rows, files, kept, typed=True, file_a_row=True)


def _marks(path: Path, encoding: str | None, left: Counter[str]) -> tuple[Marks, Marks]:
    """Entities and relations."""
    found: Marks = []
    relations: Marks = []
    if not path.stat().st_size:
        return found, relations
    codec, _ = find_encoding(path, encoding=encoding)
    with open_text(path, codec) as stream:
        for number, line in enumerate(stream, start=1):
            body = line.rstrip("\r\n")
            if relation := _RELATION.match(body):
                relations.append({"type": relation[1], "from_id": relation[2], "to_id": relation[3]})
                continue
            if not body.startswith("T"):
                left.update([_KINDS.get(body[:1], "other lines")] if body.strip() else [])
                continue
            match = _ENTITY.match(body)
            if match is None:
                raise DataError(
                    f"{path}, line {number}: an entity such as `T1<TAB>Person 0 4<TAB>Anna` was wanted; "
                    f"it is {body[:60]!r}. Mend the line."
                )
            if ";" in match[3]:
                left["entities of several pieces"] += 1
                continue
            start, end = map(int, match[3].split())
            found.append({"id": match[1], "start": start, "end": end, "label": match[2], "text": match[4]})
    return found, relations
