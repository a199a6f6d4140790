"""Tags of tokens and spans of tokens: which scheme tags are in, what they mean, where they contradict it.

| scheme | an entity of three tokens | of one | another right behind it |
|---|---|---|---|
| `bio1` | I-X I-X I-X | I-X | begins with B-X |
| `bio2` | B-X I-X I-X | B-X | the same |
| `bioes` | B-X I-X E-X (BILOU: L for E, U for S; BMES: M for I) | S-X | the same |
| `io` | X X X, without prefixes | X | cannot be told apart |

Legend: C tags of a model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SCHEMES = ("bio1", "bio2", "bioes", "io")
OUTSIDE = ("O", "")
_PREFIXED = re.compile(r"([BIESMLU])[-_](.+)$", re.DOTALL)
_SUFFIXED = re.compile(r"(.*[^BIESMLU_-].*)[-_]([BIESMLU])$", re.DOTALL)
_AS = {"L": "E", "U": "S", "M": "I"}
_EDGE = ("O", "")
_ALSO_OUTSIDE = ("o", "_", "-", "0")

Span = tuple[int, int, str]  # first token, the one after the last, label


@dataclass(frozen=True)
class Flaw:
    """A tag that contradicts its scheme: which token, and what is wrong, in words."""

    token: int
    text: str


def find_scheme(sequences: Iterable[Sequence[str]]) -> str:
    """The scheme that these tags are in, of `SCHEMES`; tags that fit none are for `spans_of` to name."""
    prefixes: set[str] = set()
    n_bare = n_prefixed = 0
    lone_start = needless_b = False  # an I that begins an entity; a B where an I would have begun one
    for tags in sequences:
        before = _EDGE
        for tag in tags:
            now = taken_apart(tag)
            if now is None:
                n_bare += 1
            elif now != _EDGE:
                n_prefixed += 1
                prefixes.add(now[0])
                lone_start |= now[0] == "I" and (before == _EDGE or before[1] != now[1])
                needless_b |= now[0] == "B" and (before == _EDGE or before[1] != now[1])
            before = now or _EDGE
    if n_bare > n_prefixed:
        return "io"
    if prefixes & {"E", "S"}:
        return "bioes"
    return "bio1" if lone_start and not needless_b else "bio2"


def spelled(tags: Collection[str]) -> dict[str, str]:
    """What the distinct tags of a file mean that are not written as usual: `b-per` is B-per, `PER-B` is
    B-PER, and where no tag is O and all others have a prefix, `o`, `_`, `-` and `0` are O."""
    others = [tag for tag in tags if tag not in (*OUTSIDE, *_ALSO_OUTSIDE)]
    outside = {} if "O" in tags else {tag: "O" for tag in _ALSO_OUTSIDE if tag in tags}
    behind = {tag: match for tag in others if (match := _SUFFIXED.match(tag)) and not _PREFIXED.match(tag)}
    letters = {match[2] for match in behind.values()}
    if len(behind) == len(others) and "B" in letters and letters & {*"IEML"}:
        return {tag: f"{match[2]}-{match[1]}" for tag, match in behind.items()} | outside
    large = {tag: tag[0].upper() + tag[1:] for tag in others}
    if not others or not all(map(_PREFIXED.match, large.values())):
        return {}
    begins = {tag[0] for tag in others}
    small = begins <= set("biesmlu") and ("b" in begins or begins == {"i"})  # or `e-mail` is a label
    if not small and not begins <= set("BIESMLU"):
        return {}
    return (large if small else {}) | outside


def taken_apart(tag: str) -> tuple[str, str] | None:
    """(prefix among B I E S, label) of a tag, `("O", "")` outside; None where it has no known prefix."""
    if tag in OUTSIDE:
        return _EDGE
    match = _PREFIXED.match(tag)
    return (_AS.get(match[1], match[1]), match[2]) if match else None


def spans_of(tags: Sequence[str], scheme: str) -> tuple[list[Span], list[Flaw]]:
    """The entities that tags stand for, and where tags contradict the scheme.

    Contradictions are read as the official CoNLL scorer reads them: whatever cannot go on begins anew. A tag
    with an unknown prefix is outside.
    """
    spans: list[Span] = []
    flaws: list[Flaw] = []
    begun = -1
    before = _EDGE
    for i, tag in enumerate([*tags, "O"]):
        now = ("I" if tag not in OUTSIDE else "O", tag) if scheme == "io" else taken_apart(tag)
        if scheme == "io" and now == ("O", tag):
            now = _EDGE
        if now is None:
            flaws.append(Flaw(i, f"`{tag}` has none of the prefixes B, I, E, S (or M, L, U)"))
            now = _EDGE
        if not _may_follow(before, now, scheme):
            flaws.append(_flaw(i, before, tag if i < len(tags) else "", tags))
        if begun >= 0 and _ends(before, now):
            spans.append((begun, i, before[1]))
            begun = -1
        if _begins(before, now):
            begun = i
        before = now
    return spans, flaws


def _ends(before: tuple[str, str], now: tuple[str, str]) -> bool:
    return before[0] in ("E", "S") or now[0] in ("B", "S", "O") or before[1] != now[1]


def _begins(before: tuple[str, str], now: tuple[str, str]) -> bool:
    if now == _EDGE:
        return False
    return now[0] in ("B", "S") or before[0] in ("E", "S", "O") or before[1] != now[1]


def _may_follow(before: tuple[str, str], now: tuple[str, str], scheme: str) -> bool:
    """Whether the scheme lets `now` stand behind `before`; the edge of a sentence is outside."""
    if scheme in ("io", "bio1"):
        return True
    same = before[1] == now[1]
    if scheme == "bio2":
        return now[0] in ("O", "B") or same
    if before[0] in ("B", "I"):  # not closed yet
        return now[0] in ("I", "E") and same
    return now[0] in ("O", "B", "S")


def _flaw(i: int, before: tuple[str, str], tag: str, tags: Sequence[str]) -> Flaw:
    behind = f"behind `{tags[i - 1]}`" if i else "at the beginning of a sentence"
    if not tag:
        return Flaw(i - 1, f"`{tags[i - 1]}` ends a sentence, and its entity is not closed")
    return Flaw(i, f"`{tag}` stands {behind}")


def tag_names(labels: Sequence[str], scheme: str) -> list[str]:
    """The C tags of a model: O, then for each label B and I, in `bioes` E and S too."""
    prefixes = "BIES" if scheme == "bioes" else "BI"
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in prefixes)]


def tagged(spans: Iterable[tuple[int, int, int]], n_tokens: int, scheme: str) -> np.ndarray:
    """(n,) places among `tag_names` of the tags of tokens, for spans (first, end, place of the label)."""
    each = 4 if scheme == "bioes" else 2
    tags = np.zeros(n_tokens, dtype=np.int64)
    for first, end, label in spans:
        begin = 1 + each * label
        tags[first:end] = begin + 1
        tags[first] = begin
        if each == 4:
            tags[end - 1] = begin + (2 if end - first > 1 else 3)
    return tags


def spans_at(tags: Sequence[int], scheme: str) -> list[tuple[int, int, int]]:
    """The spans (first, end, place of the label) of tags that fit the scheme; `tagged` backwards."""
    each = 4 if scheme == "bioes" else 2
    spans: list[tuple[int, int, int]] = []
    for i, tag in enumerate(tags):
        if tag == 0:
            continue
        label, part = divmod(tag - 1, each)
        if part in (0, 3):
            spans.append((i, i + 1, label))
        else:
            spans[-1] = (spans[-1][0], i + 1, label)
    return spans


def rules(n_labels: int, scheme: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What may begin a sentence (C,), follow what (C, C: row before column) and end a sentence (C,), bool."""
    names = tag_names([str(i) for i in range(n_labels)], scheme)
    parts = [taken_apart(name) or _EDGE for name in names]
    known = "bioes" if scheme == "bioes" else "bio2"
    begin = np.array([_may_follow(_EDGE, part, known) for part in parts])
    follow = np.array([[_may_follow(a, b, known) for b in parts] for a in parts])
    return begin, follow, np.array([_may_follow(part, _EDGE, known) for part in parts])
