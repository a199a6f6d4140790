"""Entities as spans of characters, and the cells that hold them in JSON: usual forms, read as they are.

| form | of |
|---|---|
| `[{"start": 0, "end": 5, "label": "PER"}]` | most tools (also start_offset, type …) |
| `[[0, 5, "PER"]]`, `{"entities": [[0, 5, "PER"]]}` | doccano, spaCy |
| `{"PER": {"Peter": [[0, 4]]}}` | CLUENER: the last character is named, not the one after it |

Where a form gives the entity's text too, the text decides whether ends are inclusive.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from penjing.data.conll import WIDE
from penjing.data.labels import is_missing

Place = tuple[int, int]  # first character, the one after the last
Raw = tuple[int, int, str, str | None]  # start, end, label, and the entity's own text where it is given

STARTS = ("start", "start_offset", "start_idx", "begin", "from", "start_char")
ENDS = ("end", "end_offset", "end_idx", "stop", "to", "end_char")
LABELS = ("label", "type", "entity_type", "entity_group", "tag", "category", "labels")
SURFACES = ("text", "entity", "word", "mention", "surface", "value")
# Scripts written without spaces, beside Han and kana: Thai, Lao, Burmese, Khmer.
_ALONE = re.compile(WIDE.pattern + "|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_CLITIC = re.compile(r"('s|'re|'ve|'d|'ll|'m|n't)$", re.IGNORECASE)


@dataclass(frozen=True)
class Entity:
    """Characters `start` to `end` (the one after the last) of a text, and what they are."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Tagged:
    """A row whose text holds entities. `words` are what gets tags; `given`: they came with the row."""

    text: str
    words: tuple[Place, ...]
    entities: tuple[Entity, ...]
    given: bool = False
    sites: tuple[Place, ...] = ()  # where what gets a tag stands, once a tokenizer has read the row


def entities_in(cell: Any, text: str) -> tuple[list[Entity], list[str], bool]:
    """The entities of a cell, those that cannot be as they are written, in words, and whether places were
    counted in UTF-16 units, as JavaScript does (an emoji is two); they are turned into characters.

    An entity whose text stands elsewhere is moved to where it is nearest, one that has no place is left out;
    either is named.

    Raises:
        ValueError: the cell is in none of the known forms; its text says what was found.
    """
    found: list[Entity] = []
    flaws = []
    raw = [*_raw(cell)]
    turned = in_characters(raw, text)
    for start, end, label, surface in turned or raw:
        placed = _placed(start, end, surface, text)
        if placed != (start, end) and placed != (start, end + 1):
            what = f"`{surface if surface is not None else label}` ({label}) at {start}–{end}"
            reason = f"of a text of {len(text)} characters"
            if 0 <= start < end <= len(text):
                reason = f"where {text[start:end]!r} stands"
            flaws.append(f"{what}, {reason}")
        if placed is not None:
            found.append(Entity(*placed, label))
    return sorted(set(found), key=lambda e: (e.start, e.end, e.label)), flaws, turned is not None


def in_characters(raw: Sequence[Raw], text: str) -> list[Raw] | None:
    """Places in characters of those that count UTF-16 units; None where nothing says that they do."""
    told = [one for one in raw if one[3] is not None]
    if max(text, default="") <= "\uffff" or all(_stands(a, b, own, text) for a, b, _, own in told):
        return None
    units = np.cumsum([0, *(1 + (sign > "\uffff") for sign in text)]).tolist()
    place = {unit: i for i, unit in enumerate(units)}
    found = [(place.get(a, -1), place.get(b, -1), label, own) for a, b, label, own in raw]
    return found if all(own is None or _stands(a, b, own, text) for a, b, _, own in found) else None


def _raw(cell: Any) -> Iterator[Raw]:
    """(start, end, label, text or None) of each entity; the end of an entity with a text may be inclusive."""
    if is_missing(cell, typed=False):
        return
    if isinstance(cell, dict) and isinstance(cell.get("entities"), list):  # spaCy 2
        cell = cell["entities"]
    if isinstance(cell, dict):
        for label, inner in cell.items():
            if not isinstance(inner, dict):
                raise ValueError(f"under `{label}` stands {str(inner)[:60]!r}")
            for surface, places in inner.items():
                for start, end in places:
                    yield whole(start), whole(end), str(label), str(surface)
        return
    if not isinstance(cell, list):
        raise ValueError(f"{str(cell)[:60]!r} stands")
    for one in cell:
        if isinstance(one, dict):
            start, end, label = (_under(one, keys) for keys in (STARTS, ENDS, LABELS))
            labels = label if isinstance(label, list) and label else [label]
            if start is None or end is None or not all(map(_is_text, labels)):
                raise ValueError(f"{str(one)[:80]} stands")
            surface = _under(one, SURFACES)
            own = surface if _is_text(surface) else None
            yield from ((whole(start), whole(end), label, own) for label in labels)
        elif isinstance(one, list | tuple) and len(one) == 3 and isinstance(one[2], str):
            yield whole(one[0]), whole(one[1]), one[2], None
        else:
            raise ValueError(f"{str(one)[:80]} stands")


def whole(value: Any) -> int:
    """A whole number, also as `7.0` or "7", as tables write it.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError(f"the place {value!r} stands")
    return int(float(value))


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str)


def _under(one: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((one[key] for key in keys if key in one), None)


def _placed(start: int, end: int, surface: str | None, text: str) -> Place | None:
    """Where an entity stands; None where it cannot be found."""
    if surface is None:
        return (start, end) if 0 <= start < end <= len(text) else None
    if last := _stands(start, end, surface, text):
        return start, last
    hits = [m.start() for m in re.finditer(re.escape(surface), text)] if surface else []
    if not hits:
        return None
    first = min(hits, key=lambda hit: abs(hit - start))
    return first, first + len(surface)


def _stands(start: int, end: int, surface: str | None, text: str) -> int:
    """The place after the last character of what stands where it is said to; 0 where it does not."""
    ends = (last for last in (end, end + 1) if 0 <= start < last <= len(text))
    return next((last for last in ends if text[start:last] == surface), 0)


def overlapping(entities: Iterable[Entity]) -> tuple[list[Entity], list[Entity]]:
    """Entities of which none overlaps another, longer ones first in doubt, and those left out for that."""
    kept: list[Entity] = []
    out: list[Entity] = []
    for entity in sorted(entities, key=lambda e: (e.start - e.end, e.start, e.label)):
        clash = any(entity.start < other.end and other.start < entity.end for other in kept)
        (out if clash else kept).append(entity)
    return sorted(kept, key=lambda e: e.start), out


def words_of(text: str) -> tuple[Place, ...]:
    """Where the words of a running text stand: cut at spaces and around punctuation, as corpora of entities
    are; characters of scripts without spaces are words. `U.N.`, `all-rounder` and `1996-08-30` stay whole.
    """
    found: list[Place] = []
    for chunk in re.finditer(r"\S+", text):
        at = chunk.start()
        for wide in _ALONE.finditer(text, chunk.start(), chunk.end()):
            found += _narrow(text, at, wide.start())
            found.append(wide.span())
            at = wide.end()
        found += _narrow(text, at, chunk.end())
    return tuple(found)


def characters_of(text: str) -> tuple[Place, ...]:
    """Where the characters of a text stand, blanks left out."""
    return tuple((i, i + 1) for i, sign in enumerate(text) if not sign.isspace())


def _narrow(text: str, start: int, end: int) -> list[Place]:
    """The words of a piece without blanks and wide characters."""
    before: list[Place] = []
    after: list[Place] = []
    while start < end and _is_sign(text[start]) and not _is_name(text, start, end):
        before.append((start, start + 1))
        start += 1
    while start < end and _is_sign(text[end - 1]) and not _is_short_form(text[start:end]):
        after.insert(0, (end - 1, end))
        end -= 1
    if start < end:
        clitic = _CLITIC.search(text[start:end])
        if clitic and clitic.start():
            after.insert(0, (start + clitic.start(), end))
            end = start + clitic.start()
        before.append((start, end))
    return before + after


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _is_name(text: str, start: int, end: int) -> bool:
    """Whether @ or # begins a name, as in a post."""
    return text[start] in "@#" and start + 1 < end and text[start + 1].isalnum()


def _is_short_form(word: str) -> bool:
    """`U.N.` and the `J.` of a name keep their dots."""
    return word.endswith(".") and ("." in word[:-1].strip(".") or (len(word) == 2 and word[0].isupper()))
