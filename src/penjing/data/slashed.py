"""Rows of words with their tags behind a stroke: `王明/nr 在/p 北京/ns`, `The/DT cat/NN`.

The text of a row is its line as it stands; lists `tokens` and `tags` hold what it says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from penjing.data.encoding import open_text
from penjing.data.schemes import OUTSIDE, taken_apart
from penjing.data.table import Cells, Table
from penjing.errors import DataError
from penjing.plural import counted

_ITEM = re.compile(r"(\S+)/([A-Za-z-][\w$-]{0,30}|[^\w\s/]{1,2})$")
_GROUP = re.compile(r"\[([^\[\]]*/\w+)\]/?\w+")  # People's Daily: [中央/n 电视台/n]nt
_SHARE = 0.95  # of all items that must have a tag, for lines to be read so


def is_slashed(lines: Sequence[str]) -> bool:
    """Whether (nearly) all that blanks part on these lines has a tag, and lines hold several."""
    items = [item for line in lines for item in _GROUP.sub(r"\1", line).split()]
    n_fit = sum(bool(_ITEM.match(item)) for item in items)
    return len(items) >= 2 * len(lines) and n_fit >= _SHARE * len(items)


def read_slashed(path: Path, codec: str, *, name: str, note: str) -> Table:
    """The table of such a file: column `text`, lists `tokens` and `tags`.

    Tags with prefixes (`王/B-nr 明/I-nr`) stay; else each word is an entity of its own tag, and the commonest
    tag is none where it is `o` or `O`. Brackets around several words are left out and counted.

    Raises:
        DataError: a word has no tag; with its line.
    """
    counts = Counter[str]()
    n_groups = 0
    for number, line in _lines(path, codec):
        n_groups += len(_GROUP.findall(line))
        counts.update(tag for _, tag in _items(line, f"{name}, line {number}"))
    commonest = counts.most_common(1)[0][0]
    outside = commonest if commonest in ("o", "O") else "O"
    bare = not all(tag in OUTSIDE or taken_apart(tag) for tag in counts)

    def rows(names: Sequence[str]) -> Cells:
        for number, line in _lines(path, codec):
            items = _items(line, f"{name}, line {number}")
            tags = [("O" if tag == outside else f"S-{tag}") if bare else tag for _, tag in items]
            cells = {"text": line, "tokens": [word for word, _ in items], "tags": tags}
            yield number, [cells[column] for column in names]

    told = f"{name}: words with their tags, such as `{_items(next(_lines(path, codec))[1], name)[0][0]}`"
    told += ", each word an entity of its own" if bare else ""
    told += f" but for `{outside}`" if bare and outside in counts else ""
    left = f"{name}: {counted(n_groups, 'bracket')} around several words left out" if n_groups else ""
    notes = tuple(one for one in (note, told, left) if one)
    return Table(name, ("text",), rows, (name,), notes, typed=True, headed=False, lists=("tokens", "tags"))


def _lines(path: Path, codec: str) -> Iterator[tuple[int, str]]:
    with open_text(path, codec) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line.strip()


def _items(line: str, where: str) -> list[tuple[str, str]]:
    """(word, tag) of each item of a line."""
    items = []
    for item in _GROUP.sub(r"\1", line).split():
        match = _ITEM.match(item)
        if match is None:
            raise DataError(
                f"{where}: a word and its tag were wanted, as in `word/tag` on the other lines; it is "
                f"`{item[:60]}`. Mend the line."
            )
        items.append((match[1], match[2]))
    return items
