"""Documents with entities and the relations between them, as tools of annotation write them: each two
entities of a text are a row of `relate`, and those between which nobody drew a relation say so.

| form | of |
|---|---|
| `entities` with an `id` each, `relations` of `from_id` and `to_id` | doccano, Label Studio, brat |
| `relations` whose `head` and `tail` are places among `entities`, which count tokens | SpERT |
| `spo_list` of `subject`, `predicate` and `object` as texts | DuIE: where they stand is found |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penjing.data.conll import laid_out
from penjing.data.entities import ENDS, LABELS, STARTS, SURFACES, Place, Raw, in_characters, whole
from penjing.data.roles import RELATIONS
from penjing.errors import DataError
from penjing.plural import counted

ENTITIES = ("entities", "entity_list", "spans", "labels", "label", "ner")
FROM = ("from_id", "head", "from", "head_id", "h")
TO = ("to_id", "tail", "to", "tail_id", "t")
KINDS = ("type", "label", "relation", "predicate", "labels")
NONE = "no_relation"
MOST_PAIRS = 200  # of one text, as `jobs/relating.py` asks about; the nearest without a relation


@dataclass(frozen=True)
class Found:
    """An entity of a document: its place, in characters, and what it is."""

    place: Place
    kind: str


Pairs = list[tuple[Found, Found, str]]


@dataclass
class Told:
    """What is worth telling of the documents that were read."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """The same in words."""
        said = (
            (
                "pairs",
                f"{{}} of two entities of a text, of which {self.counts['none']:,} are `{NONE}`",
                "pair",
            ),
            ("alone", "{} with fewer than two entities left out", "text"),
            ("far", f"{{}} without a relation left out, beyond the {MOST_PAIRS} of a text", "pair"),
            (
                "lost",
                "{} left out, as an end of it stands nowhere, in itself or in several pieces",
                "relation",
            ),
            ("more", "{} left out, as another stands between the same two", "relation"),
        )
        return [
            f"{self.name}: {text.format(counted(self.counts[key], what))}"
            for key, text, what in said
            if self.counts[key]
        ]


def list_of(columns: Sequence[str]) -> str | None:
    """The column that holds a document's relations, if there is one."""
    return next((name for name in RELATIONS if name in columns), None)


def pairs_of_document(
    row: dict[str, Any], body: Any, lists: str, where: str, told: Told
) -> tuple[str, Pairs]:
    """A document's text, and of each two of its entities the relation, in both orders.

    Raises:
        DataError: entities or relations in no known form.
    """
    tokens = [str(token) for token in body] if isinstance(body, list) else None
    text, words = laid_out(tokens) if tokens else (str(body), ())
    try:
        if lists == "spo_list":
            found, drawn = _of_triples(row[lists] or [], text, told)
        else:
            ids, found = _entities(row, lists, text, words)
            drawn = _relations(row[lists] or [], ids, told)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: entities of {{id, start, end, label}} and relations of {{from_id, to_id, type}} were "
            f"wanted; {error}. Write them so, or give a row for each pair."
        ) from error
    pairs = _all_pairs(found, drawn, told)
    told.counts.update(alone=not pairs, pairs=len(pairs), none=sum(kind == NONE for *_, kind in pairs))
    return text, pairs


def _all_pairs(found: Sequence[Found], drawn: dict[tuple[int, int], str], told: Told) -> Pairs:
    """Pairs that stand apart: those with a relation, then the nearest without one."""
    n = len(found)
    places = [(i, j) for i in range(n) for j in range(n) if i != j and _gap(found[i], found[j]) >= 0]
    told.counts["lost"] += len(drawn.keys() - {*places})
    kept = [pair for pair in places if pair in drawn]
    others = sorted(
        (pair for pair in places if pair not in drawn), key=lambda p: _gap(found[p[0]], found[p[1]])
    )
    room = max(0, MOST_PAIRS - len(kept))
    told.counts["far"] += len(others[room:])
    return [(found[i], found[j], drawn.get((i, j), NONE)) for i, j in sorted(kept + others[:room])]


def _gap(one: Found, other: Found) -> int:
    """Characters between two entities; below 0 where they overlap."""
    (a, b), (c, d) = one.place, other.place
    return max(c - b, a - d)


def _entities(
    row: dict[str, Any], lists: str, text: str, words: Sequence[Place]
) -> tuple[dict[Any, int], list[Found]]:
    """Entities, and by the names by which relations call them their places in that list."""
    names = [name for name in (*ENTITIES, *row) if name != lists and _are_entities(row.get(name))]
    cells = row[names[0]] if names else []
    raw: list[Raw] = []
    for one in cells:
        start, end = (whole(_under(one, keys)) for keys in (STARTS, ENDS))
        own = next((one[key] for key in SURFACES if isinstance(one.get(key), str)), None)
        raw.append((start, end, _kind(one, LABELS), own))
    found: list[Found] = []
    for start, end, kind, own in (None if words else in_characters(raw, text)) or raw:
        if not 0 <= start < end <= (len(words) or len(text)):
            raise ValueError(f"an entity stands at {start}–{end}, outside the text")
        if own is not None and not words and text[start:end] != own:
            raise ValueError(f"`{own}` at {start}–{end}, where {text[start:end]!r} stands")
        found.append(Found((words[start][0], words[end - 1][1]) if words else (start, end), kind))
    return {str(one.get("id", i)): i for i, one in enumerate(cells)}, found


def _are_entities(cell: Any) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(one, dict) for one in cell)


def _under(one: Any, keys: Sequence[str]) -> Any:
    """What stands under the first of these keys that there is."""
    if not isinstance(one, dict):
        raise TypeError(f"{str(one)[:60]!r} stands")
    for key in keys:
        if key in one:
            return one[key]
    raise ValueError(f"{str(one)[:60]} has no `{keys[0]}`")


def _kind(one: dict[str, Any], keys: Sequence[str]) -> str:
    said = next((one[key] for key in keys if one.get(key)), "")
    return str(said[0]) if isinstance(said, list) else str(said)


def _relations(cell: Sequence[dict[str, Any]], ids: dict[Any, int], told: Told) -> dict[tuple[int, int], str]:
    drawn: dict[tuple[int, int], str] = {}
    for one in cell:
        ends = [ids.get(str(_under(one, keys))) for keys in (FROM, TO)]
        if None in ends:
            told.counts["lost"] += 1
            continue
        _draw(drawn, (ends[0] or 0, ends[1] or 0), _kind(one, KINDS), told)
    return drawn


def _draw(drawn: dict[tuple[int, int], str], pair: tuple[int, int], kind: str, told: Told) -> None:
    if not kind:
        raise ValueError("a relation has no type")
    told.counts["more"] += drawn.setdefault(pair, kind) != kind


def _of_triples(
    cell: Sequence[dict[str, Any]], text: str, told: Told
) -> tuple[list[Found], dict[tuple[int, int], str]]:
    """Of texts of subjects and objects, the two places that are nearest to each other."""
    known: dict[Found, int] = {}
    drawn: dict[tuple[int, int], str] = {}
    for one in cell:
        end = _under(one, ("object",))
        words = [str(_under(one, ("subject",))), str(end.get("@value", "") if isinstance(end, dict) else end)]
        kinds = [one.get(f"{side}_type", "") for side in ("subject", "object")]
        kinds = [str(kind.get("@value", "") if isinstance(kind, dict) else kind) for kind in kinds]
        places = [
            [(hit.start(), hit.end()) for hit in re.finditer(re.escape(word), text)] if word else []
            for word in words
        ]
        both = [(Found(a, kinds[0]), Found(b, kinds[1])) for a in places[0] for b in places[1]]
        both = [pair for pair in both if _gap(*pair) >= 0]
        if not both:
            told.counts["lost"] += 1
            continue
        first, second = (
            known.setdefault(side, len(known)) for side in min(both, key=lambda pair: _gap(*pair))
        )
        _draw(drawn, (first, second), str(_under(one, ("predicate",))), told)
    return [*known], drawn
