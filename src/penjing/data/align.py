"""Words and word pieces: which piece stands for which word, and long rows read by windows.

A *site* is a place that gets a tag: a word's first piece, or every piece. A row longer than the model reads
becomes several windows that overlap, and each site belongs to the window in which it stands furthest from a
border, so nothing is decided with half of its surroundings cut off.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from penjing.data.entities import Place, Tagged
from penjing.data.tokenize import backend_of, own_backend
from penjing.errors import NotSupported, SpecError
from penjing.models.queries import frame
from penjing.records import Tokens

_CHUNK = 4096  # rows at once
_WHOLE = 1 << 30  # no limit: long rows are cut into windows here


@dataclass(frozen=True)
class Pieces:
    """A row's pieces without special tokens, and of each site its first piece and its place in the text."""

    ids: list[int]
    sites: list[int]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Laid:
    """Rows as sequences: tokens whose `labels` are 0 at sites that the sequence owns and -100 elsewhere, the
    row of each sequence, and each row's places of its sites."""

    tokens: Tokens
    owners: np.ndarray  # (n,) int64
    places: list[tuple[Place, ...]]


def pieces_of(tokenizer: Any, items: Sequence[Tagged], *, every: bool = False) -> Iterator[Pieces]:
    """Each row's pieces. A site is a word's first piece; with `every`, each piece.

    Words that share a piece (characters of a Latin word, say) are one site; a word of which the tokenizer
    makes nothing has none.

    Raises:
        NotSupported: `every`, and the tokenizer does not tell where in the text its pieces stand.
    """
    if backend_of(tokenizer) is None:
        if every:
            raise NotSupported(
                f"`units: pieces` needs to know where pieces stand in the text; {type(tokenizer).__name__} "
                "does not tell. Use `units: words`."
            )
        yield from (_word_by_word(tokenizer, item) for item in items)
        return
    backend = own_backend(tokenizer, _WHOLE)
    for begin in range(0, len(items), _CHUNK):
        chunk = items[begin : begin + _CHUNK]
        found = backend.encode_batch([item.text for item in chunk], add_special_tokens=False)
        for item, one in zip(chunk, found, strict=True):
            by = _every_piece if every else _first_pieces
            yield Pieces(one.ids, *by(item, one.offsets))


def _first_pieces(item: Tagged, offsets: list[Place]) -> tuple[list[int], tuple[Place, ...]]:
    sites: list[int] = []
    places: list[Place] = []
    piece = 0
    for start, end in item.words:
        while piece < len(offsets) and offsets[piece][1] <= start:
            piece += 1
        if piece == len(offsets) or offsets[piece][0] >= end:
            continue
        if sites and sites[-1] == piece:
            places[-1] = (places[-1][0], end)
        else:
            sites.append(piece)
            places.append((start, end))
    return sites, tuple(places)


def _every_piece(item: Tagged, offsets: list[Place]) -> tuple[list[int], tuple[Place, ...]]:
    sites: list[int] = []
    places: list[Place] = []
    for piece, (start, end) in enumerate(offsets):
        inner = item.text[start:end]
        start += len(inner) - len(inner.lstrip())
        end -= len(inner) - len(inner.rstrip())
        if start < end and (not places or places[-1] != (start, end)):  # one character may be many pieces
            sites.append(piece)
            places.append((start, end))
    return sites, tuple(places)


def _word_by_word(tokenizer: Any, item: Tagged) -> Pieces:
    """The pieces of words that are tokenized one by one, with the blank before them where there is one."""
    ids: list[int] = []
    sites: list[int] = []
    places = []
    for start, end in item.words:
        lead = " " if start and item.text[start - 1].isspace() else ""
        own = tokenizer(f"{lead}{item.text[start:end]}", add_special_tokens=False, verbose=False)["input_ids"]
        if own:
            sites.append(len(ids))
            places.append((start, end))
            ids += own
    return Pieces(ids, sites, tuple(places))


def windows(n: int, room: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """(first, end, first owned, end of the owned) of windows of at most `room` over n pieces.

    Neighbours share at least the share `overlap` of a window, and what they share is halved between them: a
    piece belongs to the window where it is furthest from a border. The row's own ends are none.
    """
    if n <= room:
        return [(0, n, 0, n)]
    stride = max(1, room - int(room * overlap))
    starts = [*range(0, n - room, stride), n - room]
    cuts = [0, *((b + a + room) // 2 for a, b in pairwise(starts)), n]
    return [(start, start + room, cuts[k], cuts[k + 1]) for k, start in enumerate(starts)]


def lay(
    tokenizer: Any, items: Sequence[Tagged], *, max_length: int, overlap: float, every: bool = False
) -> Laid:
    """Rows as sequences of at most `max_length` tokens, special ones included.

    Raises:
        SpecError: the special tokens leave no room.
    """
    before, after = frame(tokenizer)
    room = max_length - len(before) - len(after)
    if room < 2:
        raise SpecError(
            f"`data.max_length` is {max_length}; this tokenizer adds {len(before) + len(after)} special "
            "tokens, so hardly a piece of text would be left. Use at least 16."
        )
    dtype = np.uint16 if len(tokenizer) < 65536 else np.int32
    ids: list[np.ndarray] = []
    asked: list[np.ndarray] = []
    owners: list[int] = []
    places = []
    for row, found in enumerate(pieces_of(tokenizer, items, every=every)):
        places.append(found.places)
        sites = np.asarray(found.sites, dtype=np.int64)
        for first, end, own, own_end in windows(len(found.ids), room, overlap):
            ids.append(np.array([*before, *found.ids[first:end], *after], dtype=dtype))
            mark = np.full(len(ids[-1]), -100, dtype=np.int64)
            mark[sites[(sites >= own) & (sites < own_end)] - first + len(before)] = 0
            asked.append(mark)
            owners.append(row)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    flat = np.concatenate([*ids, np.zeros(0, dtype)])
    tokens = Tokens(flat, starts, labels=np.concatenate([*asked, np.zeros(0, np.int64)]))
    return Laid(tokens, np.array(owners, dtype=np.int64), places)


def sites_of(places: Sequence[Place], start: int, end: int) -> tuple[int, int]:
    """(first, end) of the sites that characters `start` to `end` touch; equal where they touch none."""
    first = bisect_right(places, start, key=lambda place: place[1])
    return first, max(first, bisect_left(places, end, key=lambda place: place[0]))
