"""How words are chosen from a language model's scores: settings, and the rules that change scores.

Legend: n sequences under way, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from penjing.errors import DataError, SpecError

# What was said, and how many tokens may still be said (a stop token counts) -> what may follow: ids, or (V,)
# whether each may; None: all.
Allow = Callable[[Sequence[int], int], Sequence[int] | Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an answer is found: the likeliest word at each step, by beams, or (`sample`) drawn.

    max_new, min_new: tokens said. beams: hypotheses kept; best: of them given. length_penalty: their scores
    are divided by tokens to this power. early: stop when `beams` hypotheses have ended; else when none under
    way can overtake the worst of them (transformers' `early_stopping`). temperature, top_k, top_p: of
    sampling; 0 and 1 leave all words. repetition_penalty: of words said or asked with before (Keskar et al.
    2019); 1 is none. no_repeat: n-grams of so many tokens come once; 0 is off. seed: of sampling; row i of
    a call has its own stream.
    """

    max_new: int = 128
    min_new: int = 0
    beams: int = 1
    best: int = 1
    length_penalty: float = 1.0
    early: bool = False
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_new", 1), ("min_new", 0), ("beams", 1), ("best", 1), ("top_k", 0)):
            _least(name, getattr(self, name), least)
        _least("no_repeat", self.no_repeat, 0)
        for name in ("temperature", "repetition_penalty"):
            if not getattr(self, name) > 0:
                raise SpecError(f"`{name}` must be above 0; it is {getattr(self, name)}. 1 changes nothing.")
        if not 0 < self.top_p <= 1:
            raise SpecError(f"`top_p` must be above 0 and at most 1; it is {self.top_p}. 1 leaves all words.")
        if self.min_new > self.max_new:
            raise SpecError(
                f"`min_new` must be at most `max_new`; they are {self.min_new} and {self.max_new}. Raise "
                "`max_new`."
            )
        if self.best > self.beams:
            raise SpecError(
                f"`best` must be at most `beams`; they are {self.best} and {self.beams}. Keep more beams."
            )
        if self.sample and self.beams > 1:
            raise SpecError(
                f"`sample` draws one answer a row, and `beams` is {self.beams}. Drop one of the two."
            )
        drawn = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        ignored = [name for name, off in drawn.items() if getattr(self, name) != off]
        if ignored and not self.sample:
            raise SpecError(
                f"`{ignored[0]}` is {getattr(self, ignored[0])} and belongs to sampling; without `sample: "
                "true` it would be ignored. Add that, or leave it out."
            )


def _least(name: str, value: int, least: int) -> None:
    if value < least:
        raise SpecError(f"`{name}` must be at least {least}; it is {value}.")


def changed(
    scores: Tensor,
    how: Decoding,
    said: Sequence[Sequence[int]] | None,
    asked: Sequence[Sequence[int]] | None,
    n_said: int,
    stop: Sequence[int],
    allow: Allow | None,
    left: Sequence[int] = (),
    never: Sequence[int] = (),
) -> Tensor:
    """Scores (n, V) after the rules, -inf where a word may not come: in place.

    said: tokens of each sequence so far, `n_said` each; asked: those of its prompt, which count as said where
    one model reads both. They are wanted where `needs_history` says so, or with `allow`, and so is `left`:
    how many tokens each may still say. What `allow` asks for goes before the other rules. `never`: ids that
    no rule lets pass.
    """
    if never:
        scores[:, list(never)] = -torch.inf
    plain = scores.clone() if allow is not None else scores
    if needs_history(how):
        assert said is not None
        assert asked is not None
        history = [[*before, *own] for before, own in zip(asked, said, strict=True)]
        if how.repetition_penalty != 1.0:
            _penalise(scores, history, how.repetition_penalty)
        if how.no_repeat:
            for row, tokens in zip(scores, history, strict=True):
                row[_closing(tokens, how.no_repeat)] = -torch.inf
    if n_said < how.min_new and stop:
        scores[:, list(stop)] = -torch.inf
    if allow is not None:
        assert said is not None
        for row, bare, own, room in zip(scores, plain, said, left, strict=True):
            allowed = allow(own, room)
            if allowed is not None:
                _limit(row, bare, allowed)
    return scores


def _limit(row: Tensor, bare: Tensor, allowed: Sequence[int] | Tensor) -> None:
    """Leave the allowed words of scores (V,): their own scores before the rules, `bare`, where these leave
    none."""
    mask = torch.zeros(len(row), dtype=torch.bool)
    if isinstance(allowed, Tensor):
        mask[: len(allowed)] = allowed[: len(row)]
    else:
        mask[list(allowed)] = True
    mask = mask.to(row.device)
    if not bool((row[mask] > -torch.inf).any()):
        row.copy_(bare)
    row.masked_fill_(~mask, -torch.inf)


def needs_history(how: Decoding) -> bool:
    """Whether a rule looks at what was said."""
    return how.repetition_penalty != 1.0 or how.no_repeat > 0


def _penalise(scores: Tensor, history: list[list[int]], penalty: float) -> None:
    """Scores of words that came before: divided where positive, multiplied where negative."""
    for row, tokens in zip(scores, history, strict=True):
        own = torch.tensor(sorted(set(tokens)), device=scores.device)
        found = row[own]
        row[own] = torch.where(found < 0, found * penalty, found / penalty)


def _closing(tokens: list[int], n: int) -> list[int]:
    """Words that would close an n-gram that has been there."""
    last = tokens[len(tokens) - n + 1 :] if n > 1 else []
    if len(tokens) < n:
        return []
    grams = (tokens[i : i + n] for i in range(len(tokens) - n + 1))
    return sorted({gram[-1] for gram in grams if gram[:-1] == last})


def narrowed(scores: Tensor, how: Decoding) -> Tensor:
    """Scores (n, V) to draw from: temperature, then the `top_k` likeliest words, then the fewest that hold
    `top_p` of what is left (Holtzman et al. 2020)."""
    scores = scores / how.temperature
    if how.top_k:
        least = scores.topk(min(how.top_k, scores.shape[1]), dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if how.top_p < 1:
        ordered, places = scores.sort(dim=1)
        out = ordered.softmax(1).cumsum(1) <= 1 - how.top_p
        out[:, -1] = False
        scores = scores.masked_fill(out.scatter(1, places, out), -torch.inf)
    return scores


def drawn(scores: Tensor, chances: Tensor) -> Tensor:
    """(n,) words by the inverse of the distribution function; `chances` (n,) are even in 0..1."""
    sums = scores.double().softmax(1).cumsum(1)
    at = torch.searchsorted(sums, chances.to(sums)[:, None] * sums[:, -1:], right=True)[:, 0]
    last = (scores > -torch.inf).long().cumsum(1).argmax(1)  # of the words that may come
    return torch.minimum(at, last)


@dataclass
class _Branch:
    """Choices that begin alike. `least`: tokens of the shortest of them from here on."""

    ways: dict[int, _Branch] = field(default_factory=dict)
    least: int = 0


def one_of(choices: Iterable[Sequence[int]], stop: int) -> Allow:
    """A rule under which only one of these answers can be said, ended by `stop`: where room is short, one
    that fits in it.

    Raises (when asked):
        DataError: no choice fits.
    """
    top = _Branch(least=1 << 20)
    for choice in choices:
        node, whole = top, [*choice, stop]
        for place, token in enumerate(whole):
            node.least = min(node.least, len(whole) - place)
            node = node.ways.setdefault(token, _Branch(least=len(whole) - place - 1))

    def allow(said: Sequence[int], left: int) -> Sequence[int]:
        node = top
        for token in said:
            node = node.ways.get(token, _Branch())
        if not said and node.least > left:
            raise DataError(
                f"One of some choices was wanted; the shortest has {node.least} tokens, its stop token among "
                f"them, and {left} are left for it. Raise `max_new` (`longest`), or shorten what is asked."
            )
        return [token for token, way in node.ways.items() if way.least < left] or [stop]

    return allow
