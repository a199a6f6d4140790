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

_ENTITY = re.compile(r"T\d+\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)$")
_KINDS = {
    "R": "relations",
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
    """The table of these texts: columns `text` and `entities`, of {start, end, label, text}.

    Entities of several pieces, relations and what else brat knows are counted and left out.

    Raises:
        DataError: an entity is not written as brat writes it.
    """
    codecs, note = find_encodings(paths, name=name, encoding=encoding)
    left = Counter[str]()
    found = [_entities(path.with_suffix(".ann"), encoding, left) for path in paths]

    def rows(names: Sequence[str]) -> Cells:
        for path, codec, entities in zip(paths, codecs, found, strict=True):
            with open_text(path, codec) as stream:
                cells = {"text": stream.read(), "entities": entities}
            yield 1, [cells[column] for column in names]

    told = ", ".join(f"{n:,} {kind}" for kind, n in left.items())
    notes = (note, f"{name}: left out: {told}" if told else "")
    files = tuple(map(str, paths))
    kept = tuple(one for one in notes if one)
    return Table(name, ("text", "entities"), rows, files, kept, typed=True, file_a_row=True)


def _entities(path: Path, encoding: str | None, left: Counter[str]) -> list[dict[str, Any]]:
    if not path.stat().st_size:
        return []
    codec, _ = find_encoding(path, encoding=encoding)
    found = []
    with open_text(path, codec) as stream:
        for number, line in enumerate(stream, start=1):
            body = line.rstrip("\r\n")
            if not body.startswith("T"):
                left.update([_KINDS.get(body[:1], "other lines")] if body.strip() else [])
                continue
            match = _ENTITY.match(body)
            if match is None:
                raise DataError(
                    f"{path}, line {number}: an entity such as `T1<TAB>Person 0 4<TAB>Anna` was wanted; "
                    f"it is {body[:60]!r}. Mend the line."
                )
            if ";" in match[2]:
                left["entities of several pieces"] += 1
                continue
            start, end = map(int, match[2].split())
            found.append({"start": start, "end": end, "label": match[1], "text": match[3]})
    return found
