"""Questions and their texts as sequences: a window of a long text behind the question, again and again.

Neighbouring windows share at least as many pieces as the longest answer may have, so every answer that could
be given stands whole in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penjing.data.align import sites_of
from penjing.data.entities import Place
from penjing.data.questions import Question
from penjing.data.tokenize import backend_of, own_backend
from penjing.errors import NotSupported, SpecError
from penjing.models.queries import pair_frame, words
from penjing.records import Tokens

_CHUNK = 1024
_WHOLE = 1 << 30
# Columns of `Laid.marks`, all places in the window but the last: what is asked for, where the text's pieces
# begin and end, where "no answer" stands, and which piece of the text is the first.
START, END, FIRST, AFTER, NONE, SHIFT = range(6)


@dataclass(frozen=True)
class Laid:
    """Questions as windows. `marks` (n, 6) int64: see above; `weights` (n,) are 0 where a window may not be
    learned from, as no answer of its question stands whole in any."""

    tokens: Tokens
    owners: np.ndarray  # (n,) int64
    marks: np.ndarray
    weights: np.ndarray  # (n,) float32
    items: list[Question]  # with their pieces
    notes: tuple[str, ...]


def lay(
    tokenizer: Any,
    items: Sequence[Question],
    *,
    max_length: int,
    overlap: float,
    longest: int,
    most_question: int,
    last: bool,
    labelled: bool = True,
) -> Laid:
    """Questions as sequences of at most `max_length` tokens.

    overlap: share of a window that neighbours have in common, at least `longest` pieces (the most of an
    answer). most_question: pieces of a question that are read. last: "no answer" stands at a window's last
    token, which has seen all of it, else at its first.

    Raises:
        SpecError: no room is left for the text.
        NotSupported: the tokenizer does not tell where in the text its pieces stand.
    """
    if backend_of(tokenizer) is None:
        raise NotSupported(
            f"Answers are places in a text; {type(tokenizer).__name__} does not tell where its pieces stand. "
            "Take a base with a fast tokenizer (tokenizer.json)."
        )
    before, between, after, kind = pair_frame(tokenizer)
    between = between or words(tokenizer, "\n")
    after = after or (words(tokenizer, "\n")[:1] if last else ())  # "no answer" is no place of the text
    frame = len(before) + len(between) + len(after)
    most_question = min(most_question, max(1, (max_length - frame) // 2))
    if max_length - frame - most_question < 2:
        raise SpecError(
            f"`data.max_length` is {max_length}; question and special tokens take {frame + most_question}, "
            "so hardly a piece of the text would be left. Use at least 32."
        )
    sums = _Sums()
    dtype = np.uint16 if len(tokenizer) < 65536 else np.int32
    sequences: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []  # tokens before the text, and in all
    marks: list[list[int]] = []
    owners: list[int] = []
    mute: list[bool] = []  # of each question: it has answers, and none can be learned
    read: list[Question] = []
    for row, (item, asked, text_ids, pieces) in enumerate(_pieces(tokenizer, items)):
        sums.cut += len(asked) > most_question
        lead = [*before, *asked[:most_question], *between]
        room = max_length - len(lead) - len(after)
        spans = _spans(item, pieces, longest, sums) if labelled else []
        seen = False
        for first, end in _windows(len(text_ids), room, overlap, longest):
            whole = np.array([*lead, *text_ids[first:end], *after], dtype=dtype)
            none = len(whole) - 1 if last else 0
            hit = next(((a, b) for a, b in spans if first <= a and b <= end), None)
            seen = seen or hit is not None
            at = (len(lead) - first + hit[0], len(lead) - first + hit[1] - 1) if hit else (none, none)
            marks.append([*at, len(lead), len(lead) + end - first, none, first])
            sequences.append(whole)
            sizes.append((len(lead), len(whole)))
            owners.append(row)
        sums.torn += bool(spans) and not seen
        mute.append(bool(item.answers) and not seen)
        read.append(replace(item, pieces=pieces))
    starts = np.concatenate([[0], np.cumsum([n for _, n in sizes])]).astype(np.int64)
    segments = None
    if kind:
        segments = np.concatenate([np.arange(n) >= lead for lead, n in sizes]).astype(np.uint8)
    flat = np.concatenate([*sequences, np.zeros(0, dtype)])
    owned = np.array(owners, dtype=np.int64)
    return Laid(
        Tokens(flat, starts, segments=segments),
        owned,
        np.array(marks, dtype=np.int64).reshape(-1, 6),
        1.0 - np.array(mute, dtype=np.float32)[owned],
        read,
        sums.notes(most_question, longest),
    )


@dataclass
class _Sums:
    """What is worth telling of how questions were laid out."""

    cut: int = 0  # questions that lost their end
    long: int = 0  # answers longer than the longest
    inside: int = 0  # answers that begin or end inside a piece
    torn: int = 0  # questions whose answers stand whole in no window

    def notes(self, most_question: int, longest: int) -> tuple[str, ...]:
        told = (
            (self.cut, f"questions are longer than {most_question} tokens; their ends are cut"),
            (
                self.long,
                f"answers have over {longest} tokens (`answer.longest`) and cannot be given whole",
            ),
            (self.inside, "answers begin or end inside a token: they are learned as whole tokens"),
            (
                self.torn,
                "questions have no answer whole in one window and are not learned from; give "
                "`data.max_length` more room",
            ),
        )
        return tuple(f"{n:,} {text}" for n, text in told if n)


def _pieces(tokenizer: Any, items: Sequence[Question]) -> Any:
    """(item, the question's ids, the text's ids, where they stand) of each; equal texts are read once."""
    backend = own_backend(tokenizer, _WHOLE)
    kept: dict[str, tuple[list[int], tuple[Place, ...]]] = {}
    for begin in range(0, len(items), _CHUNK):
        chunk = items[begin : begin + _CHUNK]
        asked = backend.encode_batch_fast([item.question for item in chunk], add_special_tokens=False)
        new = [text for text in dict.fromkeys(item.context for item in chunk) if text not in kept]
        for text, found in zip(new, backend.encode_batch(new, add_special_tokens=False), strict=True):
            kept[text] = found.ids, tuple(_trimmed(text, place) for place in found.offsets)
        for item, one in zip(chunk, asked, strict=True):
            yield item, one.ids, *kept[item.context]


def _trimmed(text: str, place: Place) -> Place:
    """Without the blanks that some tokenizers count to a word."""
    start, end = place
    inner = text[start:end]
    left = start + len(inner) - len(inner.lstrip())
    return (left, max(left, end - (len(inner) - len(inner.rstrip()))))


def _spans(item: Question, pieces: tuple[Place, ...], longest: int, sums: _Sums) -> list[tuple[int, int]]:
    """(first piece, the one after the last) of each right answer, in their order."""
    spans = []
    for answer in dict.fromkeys(item.answers):
        if answer.start < 0:
            continue
        first, end = sites_of(pieces, answer.start, answer.end)
        if first == end:
            continue
        sums.inside += pieces[first][0] < answer.start or pieces[end - 1][1] > answer.end
        sums.long += end - first > longest
        spans.append((first, end))
    return spans


def _windows(n: int, room: int, overlap: float, longest: int) -> list[tuple[int, int]]:
    """(first, end) of windows of at most `room` over n pieces."""
    if n <= room:
        return [(0, n)]
    shared = min(max(int(room * overlap), longest), room // 2)
    return [*((a, a + room) for a in range(0, n - room, room - shared)), (n - room, n)]
