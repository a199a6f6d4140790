"""Rows whose texts hold entities: tokens with tags (CoNLL, JSON, Parquet, parallel files), texts with spans.

Whatever the format, a row becomes a text, where its words stand in it, and entities as spans of characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.conll import WIDE, laid_out
from penjing.data.entities import Entity, Place, Tagged, characters_of, entities_in, overlapping, words_of
from penjing.data.labels import is_missing, label_names
from penjing.data.lists import with_lists
from penjing.data.roles import ENTITIES, TAGS, TOKENS, Roles, roles_of, said_of
from penjing.data.schemes import find_scheme, spans_of, spelled
from penjing.data.sources import tables
from penjing.data.table import Table
from penjing.data.token_rows import sentences_of
from penjing.errors import DataError
from penjing.plural import counted
from penjing.records import Rows

# A cell to a text, where its tokens stand, and whether they are its words.
Laying = Callable[[Any], tuple[str, tuple[Place, ...], bool]]
FLAWS = {
    "tags": "contradicting the scheme",
    "entities": "not where they are said to stand",
    "overlaps": "overlapping a longer one",
}
REPAIRS = {
    "tags": "read as the CoNLL scorer reads them",
    "entities": "moved to where they stand, or left out",
    "overlaps": "left out",
}


@dataclass
class _Found:
    """What has been read so far; `flaws` holds (kind, where, what) of all that is not as it should be."""

    items: list[Tagged] = field(default_factory=list)
    intents: list[tuple[str, ...]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)  # file and line of each row
    flaws: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_empty: int = 0
    n_units: int = 0  # rows whose places counted UTF-16 units
    n_bare: int = 0  # rows whose cell of entities is empty


def read(
    source: str | Path | Sequence[str | Path],
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    intent: bool | str = False,
    units: str = "words",
    overlaps: bool = False,
    repair: bool = False,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Rows with a `Tagged` each in `items`; `labels` hold the intents, where asked for.

    Args:
        text, label: column of the tokens or the text, and of the tags or the entities; of a CoNLL file by
            number, the first column being 1.
        intent: read a label of the whole sentence, too; a column's name, or True to find it.
        units: `words` or `characters`; tokens that rows bring are their words.
        overlaps: entities may overlap.
        repair: mend tags and spans that cannot be as they are, and count them in the notes.

    Raises:
        DataError: what was asked for is not there, or rows cannot be used as they are.
    """
    if delimiter is not None:
        raise DataError(
            "`data.delimiter` stands between labels of one cell; rows with entities have none, so it would "
            "be ignored. Leave it out."
        )
    found = _Found()
    wanted = {*TOKENS, *TAGS, *ENTITIES, text, label, intent} - {None, True, False}
    for given in tables(source, encoding=encoding, wanted=[str(name) for name in wanted]):
        table = (sentences_of(given) if text is None and label is None else None) or with_lists(given)
        roles = roles_of(table, text, label, intent if labelled else False, labelled)
        found.notes += [*table.notes, *said_of(table, roles, text, label)]
        _gather(table, roles, found, units=units, overlaps=overlaps, drop_empty=drop_empty)
    if found.n_empty:
        found.notes.append(f"{found.n_empty:,} rows left out, their text is empty")
    if found.n_units:
        found.notes.append(
            f"{counted(found.n_units, 'row')} with places in UTF-16 units, as JavaScript counts: turned into "
            "characters"
        )
    if found.n_bare:
        found.notes.append(
            f"{counted(found.n_bare, 'row')} with an empty cell of entities: taken to hold none"
        )
    found.notes += _cut_otherwise(found.items) if labelled else []
    _judge(found, repair)
    if not found.items:
        raise DataError(f"{source}: every row is empty or unlabelled, and left out. Give labelled texts.")
    return Rows(
        [item.text for item in found.items],
        found.intents,
        tuple(found.files),
        np.array([file for file, _ in found.places], dtype=np.int32),
        np.array([line for _, line in found.places], dtype=np.int64),
        tuple(dict.fromkeys(found.notes)),
        list(found.items),
    )


def asked(inputs: Sequence[Any], *, units: str = "words") -> Rows:
    """Rows of what somebody asks about: texts, lists of tokens, or objects with `text` or `tokens`.

    Raises:
        DataError: one is none of these.
    """
    items = []
    for i, one in enumerate(inputs):
        body = _under(one) if isinstance(one, dict) else one
        if isinstance(body, list | tuple) and body and all(isinstance(token, str) for token in body):
            items.append(_of_laid(*laid_out(body), units))
        elif isinstance(body, str):
            items.append(_of_text(body, units))
        else:
            raise DataError(
                f"`predict` takes texts or lists of tokens; item {i + 1} of {len(inputs)} is "
                f"{type(one).__name__} {str(one)[:60]!r}. Make it a string or a list of strings."
            )
    n = len(items)
    texts = [item.text for item in items]
    files = ("the texts given",)
    return Rows(texts, [()] * n, files, np.zeros(n, np.int32), np.arange(1, n + 1), (), list(items))


def _under(one: dict[str, Any]) -> Any:
    return next((one[key] for key in ("tokens", "text") if key in one), None)


def _of_laid(text: str, places: tuple[Place, ...], units: str) -> Tagged:
    return Tagged(text, places if units == "words" else characters_of(text), (), given=units == "words")


def _of_text(text: str, units: str) -> Tagged:
    return Tagged(text, words_of(text) if units == "words" else characters_of(text), ())


def _gather(
    table: Table, roles: Roles, found: _Found, *, units: str, overlaps: bool, drop_empty: bool
) -> None:
    """Add a table's rows to what was found."""
    first_file = len(found.files)
    found.files += table.files
    columns = [name for name in (roles.body, roles.tags or roles.entities, roles.intent) if name]
    whole = [(line, dict(zip(columns, cells, strict=True))) for line, cells in table.rows(columns)]
    tags = [_tags(table, roles, row, f"{table.name}, line {line}") for line, row in whole]
    scheme = _scheme(table, tags, found) if roles.tags else None
    laid = _laying(table, roles, whole, tags)
    unlabelled = table.unlabelled if roles.tags or roles.entities else frozenset[int]()
    found.notes += (
        [f"{table.name}: {len(unlabelled):,} of {counted(len(whole), 'row')} left out, nobody labelled them"]
        if unlabelled
        else []
    )
    for i, (line, row) in enumerate(whole):
        if i in unlabelled:
            continue
        where = f"{table.files[i] if table.file_a_row else table.name}, line {line}"
        body = row[roles.body]
        if _is_empty(body):
            if not drop_empty:
                raise DataError(
                    f"{where}: the text is empty; a row needs at least one token. Fill it, or pass "
                    f"`drop_empty: true` to leave such rows out."
                )
            found.n_empty += 1
            continue
        text, places, given = laid(body) if laid else (str(body), (), False)
        item = _of_laid(text, places, units) if given else _of_text(text, units)
        if scheme:
            entities = _of_tags(text, places, tags[i], scheme, where, table, found)
        else:
            entities = _of_spans(item, row[roles.entities], where, found) if roles.entities else []
        if not overlaps:
            entities, out = overlapping(entities)
            found.flaws += [
                ("overlaps", where, f"`{item.text[e.start : e.end]}` ({e.label}) overlaps another entity")
                for e in out
            ]
        found.items.append(replace(item, entities=tuple(entities)))
        found.intents.append(_whole(row[roles.intent], table, roles.intent, where) if roles.intent else ())
        found.places.append((first_file + (i if table.file_a_row else 0), line))


def _is_empty(body: Any) -> bool:
    if body is None or isinstance(body, float):  # float: not a number, as pandas writes what is missing
        return True
    return not (any(body) if isinstance(body, list) else str(body).strip())


def _scheme(table: Table, tags: list[list[str]], found: _Found) -> str:
    """The scheme of a table's tags, told; tags spelled otherwise are mended in place."""
    meant = spelled({tag for each in tags for tag in each})
    if meant:
        tags[:] = [[meant.get(tag, tag) for tag in each] for each in tags]
    scheme = find_scheme(tags)
    first = sorted(meant.items(), key=lambda pair: (pair[1] != "O", pair))[:3]
    ways = ", ".join(f"`{tag}` is {way}" for tag, way in first)
    found.notes.append(f"{table.name}: tags are read as {scheme.upper()}{f' ({ways})' if ways else ''}")
    return scheme


def _laying(
    table: Table, roles: Roles, whole: list[tuple[int, dict[str, Any]]], tags: list[list[str]]
) -> Laying | None:
    """How a row becomes a text with its tokens' places; None where it is a text without tags.

    The tags of a text are a tag a word between blanks, or a tag a character, as all rows have them.
    """
    if roles.tokens:
        return lambda body: (*laid_out(["" if token is None else str(token) for token in body]), True)
    if roles.tags is None:
        return None
    ways: list[Laying] = [
        lambda body: (*laid_out(str(body).split()), True),
        lambda body: (str(body), tuple((i, i + 1) for i in range(len(str(body)))), False),
        lambda body: (str(body), characters_of(str(body)), False),
    ]
    rows = [(line, row[roles.body], len(own)) for (line, row), own in zip(whole, tags, strict=True)]
    rows = [one for one in rows if not _is_empty(one[1])]
    odd = [[row for row in rows if len(way(row[1])[1]) != row[2]] for way in ways]
    least = min(range(len(ways)), key=lambda i: len(odd[i]))
    if odd[least]:
        line, body, n = odd[least][0]
        raise DataError(
            f"{table.name}, line {line}: a tag a word or a character was wanted in `{roles.tags}`; it has "
            f"{n}, and `{roles.body}` {len(ways[0](body)[1])} words and {len(str(body))} characters. "
            f"{len(odd[least]):,} of {len(rows):,} rows are so; mend them, or name a column of tokens with "
            "`text:`."
        )
    return ways[least]


def _cut_otherwise(items: Sequence[Tagged]) -> list[str]:
    """A note where rows bring Chinese words, and running text would be cut into characters."""
    for item in items:
        for start, end in item.words if item.given else ():
            if end - start > 1 and all(map(WIDE.match, item.text[start:end])):
                return [
                    f"rows bring words such as `{item.text[start:end]}`, and a text to predict is cut into "
                    "its characters; `units: characters` (`task: {tag: {units: characters}}`) learns so, too"
                ]
    return []


def _whole(cell: Any, table: Table, column: str, where: str) -> tuple[str, ...]:
    names = label_names(cell, names=table.names.get(column), typed=table.typed)
    if len(names) != 1:
        raise DataError(
            f"{where}: one intent was wanted in `{column}`; there is {cell!r}. Fill it, or name another "
            "column with `tag.intent:`."
        )
    return names


def _tags(table: Table, roles: Roles, row: dict[str, Any], where: str) -> list[str]:
    """The tags of a row by name; whole numbers look their names up in the file's own schema."""
    if roles.tags is None:
        return []
    cell = row[roles.tags]
    names = table.names.get(roles.tags)
    tags = []
    for tag in cell if isinstance(cell, list) else []:
        if isinstance(tag, str):
            tags.append(tag)
        elif names is not None and isinstance(tag, int) and 0 <= tag < len(names):
            tags.append(names[tag])
        else:
            raise DataError(
                f"{where}: tags by name were wanted in `{roles.tags}`; there is {tag!r}, and the file does "
                "not say what numbers stand for. Write the names, or save it with `datasets`, which keeps "
                "them."
            )
    return tags


def _of_tags(
    text: str, places: Sequence[Place], tags: list[str], scheme: str, where: str, table: Table, found: _Found
) -> list[Entity]:
    if len(tags) != len(places):
        raise DataError(
            f"{where}: a tag a token was wanted; there are {len(places)} tokens and {len(tags)} tags. Mend "
            "the row."
        )
    spans, flaws = spans_of(tags, scheme)
    conll = table.lists and table.lists[-1].isdigit()  # a token a line
    for flaw in flaws:
        at = f"{table.name}, line {int(where.rpartition(' ')[2]) + flaw.token}" if conll else where
        found.flaws.append(("tags", at, f"{flaw.text} (token `{text[slice(*places[flaw.token])]}`)"))
    return [Entity(places[first][0], places[last - 1][1], label) for first, last, label in spans]


def _of_spans(item: Tagged, cell: Any, where: str, found: _Found) -> list[Entity]:
    try:
        entities, flaws, turned = entities_in(cell, item.text)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: entities were wanted as {{start, end, label}}, [start, end, label] or {{label: "
            f"{{text: [[start, end]]}}}}; {error}. Write them so, or name another column with `label:`."
        ) from error
    found.flaws += [("entities", where, text) for text in flaws]
    found.n_units += turned
    found.n_bare += is_missing(cell, typed=False)
    return entities


def _judge(found: _Found, repair: bool) -> None:
    """Refuse rows that contradict themselves, or say how they are mended."""
    counts = Counter(kind for kind, _, _ in found.flaws)
    if repair:
        found.notes += [
            f"{n:,} {_noun(kind, n)} {FLAWS[kind]}: {REPAIRS[kind]} (`repair`)" for kind, n in counts.items()
        ]
    elif found.flaws:
        _, where, text = found.flaws[0]
        total = " and ".join(f"{n:,} {_noun(kind, n)} {FLAWS[kind]}" for kind, n in counts.items())
        raise DataError(
            f"{where}: {text}. In all {total}. Mend them, or set `repair: true` (`task: {{tag: {{repair: "
            "true}}`): tags are then read as the CoNLL scorer reads them, misplaced entities moved or left "
            "out, and of overlapping ones the longer is kept."
        )


def _noun(kind: str, n: int) -> str:
    one = "tag" if kind == "tags" else "entity"
    many = "tags" if kind == "tags" else "entities"
    return one if n == 1 else many
