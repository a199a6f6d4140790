"""Which tokens a language model is asked for, and what stands in their place (masks, spans, sentinels).

Everything is drawn from the generator that is handed in, a step at a time, so a run sees other masks in every
epoch and the same ones when it is repeated.

Legend: rows lie end to end; `lengths` (n,) says where each ends.
"""

from __future__ import annotations

import math

import numpy as np

MASKED, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stay as they are (Devlin et al. 2018)
SPAN_P, SPAN_MOST = 0.2, 10  # geometric lengths of spans, in words (Joshi et al. 2020, SpanBERT)


def placed(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places, lengths) of the rows from `starts[i]` up to `stops[i]`, end to end."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(
        starts - (ends - lengths), lengths
    ), lengths


def framed(
    ids: np.ndarray, lengths: np.ndarray, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every row with `before` and `after` around it: ids, lengths, and True at the row's own tokens."""
    whole = lengths + len(before) + len(after)
    ends = np.cumsum(whole)
    inside = np.ones(int(ends[-1]) if len(ends) else 0, bool)
    out = np.empty(len(inside), np.int64)
    for i, token in enumerate(before):
        out[ends - whole + i], inside[ends - whole + i] = token, False
    for i, token in enumerate(reversed(after)):
        out[ends - 1 - i], inside[ends - 1 - i] = token, False
    out[inside] = ids
    return out, whole, inside


def chosen(
    lengths: np.ndarray, share: float, generator: np.random.Generator, heads: np.ndarray | None = None
) -> np.ndarray:
    """True at the tokens to ask for: of each row round(share * n), at least one, drawn evenly.

    With `heads` (1 where a word begins) whole words are drawn, in random order, as long as they fit.
    """
    if heads is not None:
        return _words(lengths, share, generator, heads)
    return drawn(lengths, _budget(lengths, share), generator)


def drawn(lengths: np.ndarray, counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """True at `counts[i]` tokens of row i, drawn evenly."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    ranked = np.lexsort((generator.random(len(owner)), owner))
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found = np.zeros(len(owner), bool)
    found[ranked] = rank < np.repeat(counts, lengths)
    return found


def spans(
    lengths: np.ndarray, share: float, generator: np.random.Generator, heads: np.ndarray | None = None
) -> np.ndarray:
    """True at spans of whole words until the share is reached, where the last one ends (SpanBERT, section
    3.1); without `heads` each token is a word.
    """
    found = np.zeros(int(lengths.sum()), bool)
    first = 0
    for n, budget in zip(lengths, _budget(lengths, share), strict=True):
        own = np.arange(n) if heads is None else np.flatnonzero(heads[first : first + n])
        begins = own if len(own) and own[0] == 0 else np.concatenate([[0], own]).astype(np.int64)
        ends = np.append(begins[1:], n)
        here = found[first : first + n]
        for _ in range(10 * int(budget)):
            left = budget - here.sum()
            if left <= 0:
                break
            at = int(generator.integers(len(begins)))
            begin, end = begins[at], ends[min(at + _words_of_span(generator), len(begins)) - 1]
            new = np.cumsum(~here[begin:end])
            if new[-1] > left:  # the word that fills the share is the last
                end = ends[np.searchsorted(ends, begin + np.searchsorted(new, left), side="right")]
            here[begin:end] = True
            if here.sum() > 2 * budget and here.all():  # one long word: something must be left to go by
                here[: n // 2] = False
        first += n
    return found


def _words_of_span(generator: np.random.Generator) -> int:
    """1 to 10, geometric (p = .2) but for what lies beyond: 3.8 in the mean, as in the paper."""
    within = 1 - (1 - SPAN_P) ** SPAN_MOST
    return max(1, math.ceil(math.log1p(-within * generator.random()) / math.log1p(-SPAN_P)))


def corrupted(
    ids: np.ndarray, asked: np.ndarray, generator: np.random.Generator, mask: int, ordinary: np.ndarray
) -> np.ndarray:
    """The ids with 80 % of those asked for masked, 10 % drawn from the `ordinary` ids, 10 % as they were."""
    out = ids.copy()
    places = np.flatnonzero(asked)
    fate = generator.random(len(places))
    out[places[fate < MASKED]] = mask
    swapped = places[(fate >= MASKED) & (fate < MASKED + RANDOM)]
    out[swapped] = generator.choice(ordinary, len(swapped))
    return out


def noise_spans(
    n: int, density: float, mean: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, noise) lengths of alternating segments of a row of n tokens, kept first (Raffel et al. 2019).

    round(density n) tokens are noise, at least 1 and at most n - 1, in round(noise / mean) spans, at least 1.
    """
    noise = min(max(round(n * density), 1), n - 1)
    count = min(max(round(noise / mean), 1), n - noise)
    return _segments(n - noise, count, generator), _segments(noise, count, generator)


def _segments(total: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """`total` cut at random into `count` lengths of at least one, every cut as likely."""
    marks = np.arange(total - 1) < count - 1
    generator.shuffle(marks)
    return np.diff(np.concatenate([[0], np.flatnonzero(marks) + 1, [total]]))


def _budget(lengths: np.ndarray, share: float) -> np.ndarray:
    return np.maximum(1, np.round(share * lengths).astype(np.int64))


def _words(
    lengths: np.ndarray, share: float, generator: np.random.Generator, heads: np.ndarray
) -> np.ndarray:
    firsts = np.cumsum(lengths) - lengths
    begins = heads.astype(bool).copy()
    begins[firsts[lengths > 0]] = True  # a piece may begin within a word
    word = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, len(heads)))
    owner = np.repeat(np.arange(len(lengths)), lengths)[starts]
    ranked = np.lexsort((generator.random(len(starts)), owner))
    taken = np.zeros(len(starts), bool)
    left, of = _budget(lengths, share), -1
    none = True
    for i in ranked:
        if owner[i] != of:
            of, none = owner[i], True
        if sizes[i] <= left[of] or none:
            taken[i], none = True, False
            left[of] -= sizes[i]
    return np.asarray(taken[word])
