"""Which column of a table is what, for rows that hold entities: text or tokens, tags, spans, intent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penjing.data.columns import one_named, text_by_name
from penjing.data.table import Table, sample
from penjing.errors import DataError

TOKENS = ("tokens", "words", "token", "word_list", "text_tokens", "text")
TAGS = ("tags", "ner_tags", "ner", "slots", "slot_tags", "bio", "tag", "labels", "label")
ENTITIES = ("entities", "entity", "spans", "entity_list", "mentions", "annotations", "labels", "label", "ner")
RELATIONS = ("relations", "relation_list", "spo_list")  # between entities, as `linked.py` reads them
INTENTS = ("intent", "intents", "label", "category", "domain", "class", "意图", "类别")


@dataclass(frozen=True)
class Roles:
    """Which column is what. `tags` names a list of tags, `entities` a cell of spans; else there are none."""

    body: str
    tokens: bool  # the body is a list of tokens, else a text
    tags: str | None = None
    entities: str | None = None
    intent: str | None = None


def roles_of(table: Table, text: str | None, label: str | None, intent: bool | str, labelled: bool) -> Roles:
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
    if not labelled:
        return Roles(body, tokens, intent=whole)
    lists, places = _first(besides, TAGS, ("list", "numbers")), _first(besides, ENTITIES, ("spans", "empty"))
    marks = _column(table, label, "label") if label else (lists or places) if tokens else (places or lists)
    spans = [name for name, kind in besides.items() if kind == "spans" and name not in RELATIONS]
    if marks is None and len(spans) == 1:
        marks = spans[0]
    if marks is None:
        raise _unclear(table, kinds, "tags or the entities", "label")
    is_tags = kinds.get(marks) in ("list", "numbers")
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
    every = replace(table, columns=(*table.columns, *table.lists))
    return one_named(every, given, key=key, must=True) or ""


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


def said_of(table: Table, roles: Roles, text: str | None, label: str | None) -> list[str]:
    """What was guessed, in words."""
    if (text and label) or (not text and not label and table.lists and roles.intent is None):
        return []
    marks = roles.tags or roles.entities
    parts = [f"{'tokens' if roles.tokens else 'text'} from column `{roles.body}`"] if not text else []
    if marks and not label:
        parts.append(f"{'tags' if roles.tags else 'entities'} from column `{marks}`")
    parts += [f"intent from `{roles.intent}`"] if roles.intent else []
    return [f"{table.name}: {', '.join(parts)} (found out)"] if parts else []
