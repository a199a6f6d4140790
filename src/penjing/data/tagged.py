"""Rows whose texts hold entities: tokens with tags (CoNLL, JSON, Parquet, parallel files), texts with spans.

Whatever the format, a row becomes a text, where its words stand in it, and entities as spans of characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from penjing.data.columns import named, text_by_name
from penjing.data.conll import laid_out
from penjing.data.entities import Entity, Tagged, characters_of, entities_in, overlapping, words_of
from penjing.data.labels import label_names
from penjing.data.schemes import find_scheme, spans_of
from penjing.data.sources import tables
from penjing.data.table import Table, sample
from penjing.data.token_rows import sentences_of
from penjing.errors import DataError
from penjing.records import Rows

TOKENS = ("tokens", "words", "token", "word_list", "text_tokens", "text")
TAGS = ("tags", "ner_tags", "ner", "slots", "slot_tags", "bio", "tag", "labels", "label")
ENTITIES = ("entities", "entity", "spans", "entity_list", "mentions", "annotations", "labels", "label", "ner")
INTENTS = ("intent", "intents", "label", "category", "domain", "class", "意图", "类别")
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


@dataclass(frozen=True)
class Roles:
    """Which column is what. `tags` names a list of tags, `entities` a cell of spans; else there are none."""

    body: str
    tokens: bool  # the body is a list of tokens, else a text
    tags: str | None = None
    entities: str | None = None
    intent: str | None = None


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
    for given in tables(source, encoding=encoding):
        table = (sentences_of(given) if text is None and label is None else None) or given
        roles = _roles(table, text, label, intent if labelled else False, labelled)
        found.notes += [*table.notes, *_said(table, roles, text, label)]
        _gather(table, roles, found, units=units, overlaps=overlaps, drop_empty=drop_empty)
    if found.n_empty:
        found.notes.append(f"{found.n_empty:,} rows left out, their text is empty")
    _judge(found, repair)
    if not found.items:
        raise DataError(f"{source}: every row is empty, and `drop_empty` left them out. Give texts.")
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
            items.append(_of_tokens([*body], units))
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


def _of_tokens(tokens: list[str], units: str) -> Tagged:
    text, places = laid_out(tokens)
    return Tagged(text, places if units == "words" else characters_of(text), (), given=units == "words")


def _of_text(text: str, units: str) -> Tagged:
    return Tagged(text, words_of(text) if units == "words" else characters_of(text), ())


# ---- columns


def _roles(table: Table, text: str | None, label: str | None, intent: bool | str, labelled: bool) -> Roles:
    """Which column is what, as named, else by usual names and by what cells are."""
    kinds = _kinds(table)
    body = _column(table, text, "text") if text else _first(kinds, TOKENS, ("list",))
    if body is None:
        body = next(iter(text_by_name(table)), None) or _first(kinds, table.columns, ("text",))
    if body is None:
        raise _unclear(table, kinds, "text or the tokens", "text")
    tokens = kinds.get(body) == "list"
    whole = _intent(table, kinds, intent, body) if intent else None
    besides = {name: kind for name, kind in kinds.items() if name not in (body, whole)}
    if label:
        marks = _column(table, label, "label") if labelled or label in kinds else None
    elif tokens:
        marks = _first(besides, TAGS, ("list", "numbers")) or _first(besides, ENTITIES, ("spans", "empty"))
    else:
        marks = _first(besides, ENTITIES, ("spans", "empty"))
    spans = [name for name, kind in besides.items() if kind == "spans"]
    if marks is None and len(spans) == 1:
        marks = spans[0]
    if marks is None and labelled:
        raise _unclear(table, kinds, "tags or the entities", "label")
    is_tags = marks is not None and kinds.get(marks) in ("list", "numbers")
    if is_tags and not tokens:
        raise DataError(
            f"{table.name}: `{marks}` holds a list of tags a row, and `{body}` a text. Tags want tokens: "
            "name their column with `text:`."
        )
    return Roles(body, tokens, marks if is_tags else None, None if is_tags else marks, whole)


def _kinds(table: Table) -> dict[str, str]:
    """What the cells of each column are: list (of strings), numbers, spans, text, or empty (lists)."""
    kinds = {name: "numbers" if name != "tokens" and name in table.names else "list" for name in table.lists}
    if table.lists and not all(name in table.columns for name in table.lists):
        return kinds | {name: "text" for name in table.columns if name not in kinds}
    cells = sample(table, n_rows=200)
    for i, name in enumerate(table.columns):
        full = [row[i] for row in cells if row[i] not in (None, "", [], {})]
        first = full[0] if full else None
        if first is None:
            kinds[name] = "empty"
        elif isinstance(first, dict) or (isinstance(first, list) and isinstance(first[0], dict | list)):
            kinds[name] = "spans"
        elif isinstance(first, list):
            kinds[name] = "list" if isinstance(first[0], str) else "numbers"
        else:
            kinds[name] = "text"
    return kinds


def _first(kinds: dict[str, str], names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for kind in wanted for name in names if kinds.get(name) == kind), None)


def _column(table: Table, given: str, key: str) -> str:
    if given in table.lists:
        return given
    return named(replace(table, columns=(*table.columns, *table.lists)), given, key=key, must=True)[0]


def _intent(table: Table, kinds: dict[str, str], intent: bool | str, body: str) -> str:
    if isinstance(intent, str):
        return _column(table, intent, "tag.intent")
    hit = _first({name: kind for name, kind in kinds.items() if name != body}, INTENTS, ("text",))
    if hit is None:
        raise _unclear(table, kinds, "intent", "tag.intent")
    return hit


def _unclear(table: Table, kinds: dict[str, str], what: str, key: str) -> DataError:
    shown = ", ".join(f"`{name}` ({kind})" for name, kind in list(kinds.items())[:12])
    return DataError(
        f"{table.name}: which column holds the {what} could not be found. Columns: {shown or 'none'}. Say "
        f"which with `{key}:`; wanted are tokens and tags as lists, or a text and its entities as spans."
    )


def _said(table: Table, roles: Roles, text: str | None, label: str | None) -> list[str]:
    """What was guessed, in words."""
    if (text and label) or (not text and not label and table.lists and roles.intent is None):
        return []
    marks = roles.tags or roles.entities
    parts = [f"{'tokens' if roles.tokens else 'text'} from column `{roles.body}`"] if not text else []
    if marks and not label:
        parts.append(f"{'tags' if roles.tags else 'entities'} from column `{marks}`")
    parts += [f"intent from `{roles.intent}`"] if roles.intent else []
    return [f"{table.name}: {', '.join(parts)} (found out)"] if parts else []


# ---- rows


def _gather(
    table: Table, roles: Roles, found: _Found, *, units: str, overlaps: bool, drop_empty: bool
) -> None:
    """Add a table's rows to what was found."""
    file = len(found.files)
    found.files += table.files
    columns = [name for name in (roles.body, roles.tags or roles.entities, roles.intent) if name]
    whole = [(line, dict(zip(columns, cells, strict=True))) for line, cells in table.rows(columns)]
    scheme = None
    if roles.tags:
        scheme = find_scheme(_tags(table, roles, row, f"{table.name}, line {line}") for line, row in whole)
        found.notes.append(f"{table.name}: tags are read as {scheme.upper()}")
    for line, row in whole:
        where = f"{table.name}, line {line}"
        body = row[roles.body]
        if isinstance(body, float):
            body = None
        if not (any(body) if isinstance(body, list) else str(body or "").strip()):
            if not drop_empty:
                raise DataError(
                    f"{where}: the text is empty; a row needs at least one token. Fill it, or pass "
                    f"`drop_empty: true` to leave such rows out."
                )
            found.n_empty += 1
            continue
        item = _of_tokens([str(t) for t in body], units) if roles.tokens else _of_text(str(body), units)
        if scheme:
            entities = _of_tags(item, body, _tags(table, roles, row, where), scheme, where, table, found)
        else:
            entities = _of_spans(item, row.get(roles.entities or ""), where, table, found)
        if not overlaps:
            entities, out = overlapping(entities)
            found.flaws += [
                ("overlaps", where, f"`{item.text[e.start : e.end]}` ({e.label}) overlaps another entity")
                for e in out
            ]
        found.items.append(replace(item, entities=tuple(entities)))
        found.intents.append(_whole(row[roles.intent], table, roles.intent, where) if roles.intent else ())
        found.places.append((file, line))


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
    assert roles.tags
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
    item: Tagged, tokens: list[str], tags: list[str], scheme: str, where: str, table: Table, found: _Found
) -> list[Entity]:
    if len(tags) != len(tokens):
        raise DataError(
            f"{where}: a tag a token was wanted; there are {len(tokens)} tokens and {len(tags)} tags. Mend "
            "the row."
        )
    spans, flaws = spans_of(tags, scheme)
    conll = table.lists and table.lists[-1].isdigit()  # a token a line
    for flaw in flaws:
        at = f"{table.name}, line {int(where.rpartition(' ')[2]) + flaw.token}" if conll else where
        found.flaws.append(("tags", at, f"{flaw.text} (token `{tokens[flaw.token]}`)"))
    places = laid_out(tokens)[1]
    return [Entity(places[first][0], places[last - 1][1], label) for first, last, label in spans]


def _of_spans(item: Tagged, cell: Any, where: str, table: Table, found: _Found) -> list[Entity]:
    try:
        entities, flaws = entities_in(cell, item.text)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: entities were wanted as {{start, end, label}}, [start, end, label] or {{label: "
            f"{{text: [[start, end]]}}}}; {error}. Write them so, or name another column with `label:`."
        ) from error
    found.flaws += [("entities", where, text) for text in flaws]
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
