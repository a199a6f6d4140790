"""Text from a language model: greedy, sampled, by beams, or a token at a time.

Rows of the whole queue are sorted by length and read in batches; those that have ended leave their batch.
What a row is answered does not depend on who shares it. Beams are searched as in transformers' `generate`.

Legend: n rows under way, k beams, V words, t tokens said so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.data.batches import cut
from penjing.errors import DataError
from penjing.models import encdec
from penjing.models.decoding import Allow, Decoding, changed, drawn, narrowed, needs_history
from penjing.models.model import Model
from penjing.models.modes import evaluating
from penjing.models.reading import Reader, reader_of
from penjing.records import Part

NEVER = -1.0e9  # the score of a hypothesis that is none


@dataclass(frozen=True)
class Said:
    """An answer: its tokens without the stop token, whether it came to one, and its score: the sum of the
    chosen words' log-probabilities, of beams over tokens to the power `length_penalty`."""

    ids: tuple[int, ...]
    ended: bool
    score: float


@dataclass(frozen=True)
class Prompts:
    """What a task has its model go on from, and how: `found` makes of what was said what the task's `answers`
    takes, `text` words of ids."""

    rows: list[list[int]]
    how: Decoding
    stop: tuple[int, ...]
    limit: int | None
    found: Callable[[Said], Any]
    text: Callable[[Sequence[int]], str]
    allow: Allow | None = None


def prompts_of(
    part: Part,
    tokenizer: Any,
    how: Decoding,
    *,
    stop: Iterable[int],
    limit: int | None,
    found: Any = None,
    rule: Any = None,
) -> Prompts:
    """Those of a part whose sequences are prompts; where `marks` say so, only so much of each. `rule` is that
    of a form (`models/forms.py`) which answers shall have."""
    rows = [part.tokens.ids[a:b].tolist() for a, b in pairwise(part.tokens.starts)]
    if part.marks is not None:
        rows = [row[: int(n)] for row, n in zip(rows, part.marks[:, 0], strict=True)]

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode([*ids], skip_special_tokens=True))

    found = found or (lambda said: said)
    if rule is None:
        return Prompts(rows, how, tuple(sorted(stop)), limit, found, text)
    return Prompts(rows, how, tuple(sorted(stop)), limit, found, rule.text, rule.allow)


@dataclass(frozen=True)
class Asked:
    """What a batch is asked, in its order."""

    rows: list[Sequence[int]]  # prompts or sources
    before: list[Sequence[int]]  # what counts as said before the answer
    room: Tensor  # (n,) tokens that may be said
    chances: Tensor  # (n, most) of sampling
    stop: tuple[int, ...]
    allow: Allow | None
    never: tuple[int, ...]  # ids that are no words
    ahead: int  # tokens of an answer that stand before its first word, chosen by nobody: its language


def generate(
    model: Model,
    rows: Sequence[Sequence[int]],
    how: Decoding,
    *,
    stop: Sequence[int],
    limit: int | None = None,
    allow: Allow | None = None,
    tokens: int = 8192,
    cached: bool = True,
) -> list[list[Said]]:
    """`how.best` answers to each row of token ids, the best first, in the rows' order.

    stop: ids that end an answer. limit: most tokens that the model reads in one sequence. allow: which ids
    may follow what was said (`models/forms.py` makes it of a schema, a pattern or choices). tokens: about as
    many are under way at once, beams and answers counted. cached: without, every row is read anew at each
    step (slow: to compare with).

    Raises:
        DataError: a row is empty, or leaves no room for an answer.
    """
    begin = encdec.begin_of(model)
    room = rooms_of(rows, how, limit, begin)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    found: list[list[Said]] = [[] for _ in rows]
    if not len(rows):
        return found
    with evaluating(model), torch.inference_mode():
        for piece in cut(np.arange(len(rows)), (lengths + room) * how.beams, tokens=tokens):
            own = [rows[i] for i in piece]
            chances: list[Any] = [
                np.random.default_rng([how.seed, int(i)]).random(how.max_new) if how.sample else []
                for i in piece
            ]
            drawn_by = torch.tensor(np.array(chances))
            asked = asked_of(model, own, torch.from_numpy(room[piece]), drawn_by, stop, allow)
            reader = reader_of(model, own, cached=cached)
            answers = _beams(reader, asked, how) if how.beams > 1 else _one_each(reader, asked, how)
            for i, answer in zip(piece, answers, strict=True):
                found[i] = answer
    return found


def stream(
    model: Model,
    row: Sequence[int],
    how: Decoding,
    *,
    stop: Sequence[int],
    limit: int | None = None,
    allow: Allow | None = None,
) -> Iterator[int]:
    """The tokens of one answer, each as soon as it is chosen; the stop token is not among them.

    Between two tokens the model is as it was and may serve others.
    """
    room = torch.from_numpy(rooms_of([row], how, limit, encdec.begin_of(model)))
    chances = torch.from_numpy(np.random.default_rng([how.seed, 0]).random((1, how.max_new)))
    asked = asked_of(model, [row], room, chances, stop, allow)
    reader, said = reader_of(model, [row]), list[int]()
    while len(said) < int(room[0]):
        with evaluating(model), torch.inference_mode():
            last = torch.tensor(said[-1:], device=next(model.trunk.parameters()).device)
            scores = reader.step(last) if said else reader.start()
            token, _ = choose_words(scores, asked, how, [said], torch.zeros(1, dtype=torch.int64), len(said))
        said.append(int(token[0]))
        if said[-1] in asked.stop:
            return
        yield said[-1]


def asked_of(
    model: Model,
    rows: Sequence[Sequence[int]],
    room: Tensor,
    chances: Tensor,
    stop: Sequence[int],
    allow: Allow | None,
) -> Asked:
    """What a batch of prompts or sources is asked of this model."""
    begin = encdec.begin_of(model)
    before: list[Sequence[int]] = [begin] * len(rows) if begin else [*rows]
    never, ahead = encdec.unsaid(model.trunk, stop), len(begin[1:])
    return Asked([*rows], before, room, chances, tuple(stop), allow, never, ahead)


def rooms_of(
    rows: Sequence[Sequence[int]], how: Decoding, limit: int | None, begin: Sequence[int]
) -> np.ndarray:
    """(rows,) tokens that may be said in answer to each; `begin`: what a decoder beside an encoder begins
    with, nothing where one decoder reads all."""
    both = bool(begin)
    most = np.full(len(rows), how.max_new, dtype=np.int64)
    for i, row in enumerate(rows):
        if not len(row):
            raise DataError(
                f"Row {i + 1} of {len(rows)} has no token to begin with; text cannot be made of nothing. "
                "Give it a word, or the tokenizer's first token."
            )
        if limit is not None and both and len(row) > limit:
            raise DataError(
                f"Row {i + 1} of {len(rows)} has {len(row)} tokens; the base reads sources of {limit} at "
                "most. Shorten it, or take a base that reads more."
            )
        if limit is not None:
            most[i] = min(how.max_new, limit if both else limit - len(row))
        most[i] -= len(begin[1:])
        if most[i] < 1:
            raise DataError(
                f"Row {i + 1} of {len(rows)} has {len(row)} tokens; the base reads {limit} at most, answer "
                "included. Shorten it, or take a base that reads more."
            )
    return most


def choose_words(
    scores: Tensor, asked: Asked, how: Decoding, said: list[list[int]], rows: Tensor, t: int
) -> tuple[Tensor, Tensor]:
    """(n,) the next word of each, and its log-probability under the rules."""
    own = rows.tolist()
    before = [asked.before[i] for i in own] if needs_history(how) else None
    left = (asked.room[rows] - t).tolist() if asked.allow else ()
    n_said = t + asked.ahead
    scores = changed(scores.clone(), how, said, before, n_said, asked.stop, asked.allow, left, asked.never)
    if how.sample:
        scores = narrowed(scores, how)
        words = drawn(scores, asked.chances[rows, t].to(scores.device))
    else:
        words = scores.argmax(1)
    return words, scores.log_softmax(1).gather(1, words[:, None])[:, 0]


def _one_each(reader: Reader, asked: Asked, how: Decoding) -> list[list[Said]]:
    """The likeliest or a drawn word at each step."""
    said: list[list[int]] = [[] for _ in asked.rows]
    totals, ended = [0.0] * len(said), [False] * len(said)
    rows = torch.arange(len(said))  # under way, some perhaps ended
    scores, t = reader.start(), 0
    while True:
        own = rows.tolist()
        words, odds = choose_words(scores, asked, how, [said[i] for i in own], rows, t)
        t += 1
        room = asked.room[rows].tolist()
        open_places = []
        for place, (i, word, chance) in enumerate(zip(own, words.tolist(), odds.tolist(), strict=True)):
            if ended[i] or len(said[i]) == room[place]:
                continue
            totals[i] += chance
            ended[i] = word in asked.stop
            if not ended[i]:
                said[i].append(word)
            if not ended[i] and len(said[i]) < room[place]:
                open_places.append(place)
        if not open_places:
            return [[Said(tuple(s), e, x)] for s, e, x in zip(said, ended, totals, strict=True)]
        if len(open_places) < len(own):
            kept = torch.tensor(open_places)
            reader.keep(kept.to(words.device))
            rows, words = rows[kept], words[kept.to(words.device)]
        scores = reader.step(words)


@dataclass
class _Search:
    """Beams of n rows: those under way (`said`, `sums`), the best that ended (`done`, `scores`, `full`)."""

    said: Tensor  # (n, k, t)
    sums: Tensor  # (n, k) log-probabilities
    done: list[list[tuple[int, ...]]]  # k each, where `full`
    scores: Tensor  # (n, k)
    full: Tensor  # (n, k) bool


def _beams(reader: Reader, asked: Asked, how: Decoding) -> list[list[Said]]:
    """Beam search with transformers' rules: of 2k (or more) candidates those among the first k that stop are
    hypotheses, and the best k that go on are the next beams."""
    n, k = len(asked.rows), how.beams
    first = reader.start()
    reader.repeat(k)
    device = first.device
    sums = torch.full((n, k), NEVER, device=device)
    sums[:, 0] = 0.0
    none = torch.full((n, k), NEVER, device=device)
    at = _Search(
        torch.zeros(n, k, 0, dtype=torch.int64, device=device),
        sums,
        [[()] * k for _ in range(n)],
        none,
        none > 0,
    )
    found: list[list[Said]] = [[] for _ in range(n)]
    rows = torch.arange(n)
    scores, t = first.repeat_interleave(k, 0), 0
    while True:
        from_beam, open_rows = _grown(at, scores, asked, how, rows, t)
        t += 1
        going = open_rows.tolist()
        for place, i in enumerate(rows.tolist()):
            if not going[place]:
                found[i] = _hypotheses(at, place, asked, how)
        if not any(going):
            return found
        base = torch.arange(len(rows), device=device)[:, None] * k
        reader.keep((base + from_beam).flatten(), reorder=True)
        if not all(going):
            kept = open_rows.nonzero()[:, 0]
            places = (kept[:, None] * k + torch.arange(k, device=device)).flatten()
            reader.keep(places)
            rows = rows[kept.cpu()]
            done = [at.done[i] for i in kept.tolist()]
            at = _Search(at.said[kept], at.sums[kept], done, at.scores[kept], at.full[kept])
        scores = reader.step(at.said[:, :, -1].flatten())


def _grown(
    at: _Search, scores: Tensor, asked: Asked, how: Decoding, rows: Tensor, t: int
) -> tuple[Tensor, Tensor]:
    """One more word for every beam, in place: (n, k) the beam that each new one continues, and (n,) whether
    the row goes on."""
    n, k = at.sums.shape
    odds = scores.log_softmax(1)
    said = at.said.flatten(0, 1).tolist() if needs_history(how) or asked.allow else None
    before = [asked.before[i] for i in rows.tolist() for _ in range(k)] if needs_history(how) else None
    left = (asked.room[rows] - t).repeat_interleave(k).tolist() if asked.allow else ()
    n_said = t + asked.ahead
    odds = changed(odds, how, said, before, n_said, asked.stop, asked.allow, left, asked.never)
    whole = (odds.view(n, k, -1) + at.sums[:, :, None]).flatten(1)
    wide = min(max(2, 1 + len(asked.stop)) * k, whole.shape[1])
    top, places = whole.topk(wide)
    beam, word = places // odds.shape[1], places % odds.shape[1]
    lines = torch.cat([at.said.gather(1, beam[:, :, None].expand(-1, -1, t)), word[:, :, None]], 2)
    stops = torch.isin(word, torch.tensor(asked.stop, device=word.device, dtype=word.dtype))
    stops |= t + 1 >= asked.room[rows].to(word.device)[:, None]
    going, order = (top + stops * NEVER).topk(k)
    _finish(at, lines, top / (n_said + 1) ** how.length_penalty, stops, how)
    at.said = lines.gather(1, order[:, :, None].expand(-1, -1, t + 1))
    at.sums = going
    reach = at.sums[:, :1] / (n_said + 1) ** how.length_penalty
    worst = torch.where(at.full, at.scores.amin(1, keepdim=True), NEVER)
    on = (reach > worst).any(1) & ~stops.all(1)
    if how.early:
        on &= ~at.full.all(1)
    return beam.gather(1, order), on


def _finish(at: _Search, lines: Tensor, scores: Tensor, stops: Tensor, how: Decoding) -> None:
    """Put candidates that stop, of the first k, among the finished ones where they are better."""
    k = how.beams
    new = stops.clone()
    new[:, k:] = False
    if how.early:
        new &= ~at.full.all(1, keepdim=True)
    merged = torch.cat([at.scores, torch.where(new, scores, NEVER)], 1)
    full = torch.cat([at.full, new], 1)
    best, order = merged.topk(k)
    if new.any():
        table: list[Any] = lines.tolist()
        for i, chosen in enumerate(order.tolist()):
            at.done[i] = [at.done[i][j] if j < k else tuple(table[i][j - k]) for j in chosen]
    at.scores, at.full = best, full.gather(1, order)


def _hypotheses(at: _Search, place: int, asked: Asked, how: Decoding) -> list[Said]:
    found = []
    for ids, score, there in zip(
        at.done[place], at.scores[place].tolist(), at.full[place].tolist(), strict=True
    ):
        if there:
            ended = bool(ids) and ids[-1] in asked.stop
            found.append(Said(ids[:-1] if ended else ids, ended, score))
    return found[: how.best]
