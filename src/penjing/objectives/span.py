"""Span corruption: spans of the text are hidden, each behind a sentinel, and said one after the other.

Raffel et al. 2019 (arXiv 1910.10683, section 3.1.4; `random_spans_noise_mask` of text-to-text-transfer-
transformer): the source is the text with a sentinel for each span, the answer the spans, each after its
sentinel.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from penjing.data.masking import framed, noise_spans, placed
from penjing.errors import NotSupported, SpecError
from penjing.measures import language_scores
from penjing.models.decoding import Decoding
from penjing.models.generate import generate
from penjing.models.language import judged, language_task
from penjing.models.load import Base
from penjing.models.queries import frame
from penjing.models.word_head import word_head
from penjing.records import NO_ROWS, Part, Tokens
from penjing.task import Feed, Task

# What `train` says where the spec says nothing.
TRAIN = {"batch": 16, "schedule": "cosine", "lr": 1e-3, "warmup": 0.05}
STILL = 20_012  # seed of the spans that validation sees, the same at every step
SENTINEL = re.compile(r"<extra_id_(\d+)>")


def span(*, share: float = 0.15, mean: float = 3.0) -> Task:
    """Hide spans of the text and learn to say them.

    share: of the tokens that are hidden. mean: tokens of a span.
    """
    if not 0 < share < 1:
        raise SpecError(f"`span.share` must be above 0 and below 1; it is {share}. 0.15 is usual.")
    if mean < 1:
        raise SpecError(f"`span.mean` must be at least 1 token; it is {mean}. 3 is usual.")

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if base.kind != "encoder-decoder":
            raise NotSupported(
                f"`span` needs an encoder-decoder; `{base.name}` is {_a(base.kind)}. Take a T5-like base, or "
                f"`--objective {'causal' if base.kind == 'decoder' else 'masked'}`."
            )
        sentinels = sentinels_of(base)
        head, note = word_head(base, "answer", weights=weights)
        ends = frame(base.tokenizer)

        def vary(part: Part, rows: np.ndarray, seed: int) -> Part:
            generator = np.random.default_rng(seed)
            tokens = part.tokens
            places, lengths = placed(tokens.starts[rows], tokens.starts[rows + 1])
            ids = np.asarray(tokens.ids[places], np.int64)
            hidden = hidden_of(lengths, share, mean, generator)
            if hidden.size and len(sentinels) < most_spans(hidden, lengths):
                raise _too_few(base, sentinels, most_spans(hidden, lengths))
            sides = [_framed(*side, ends) for side in taken_apart(ids, lengths, hidden, sentinels)]
            return Part(NO_ROWS, sides[0], part.targets[rows], answers=sides[1])

        def show(model: Any, base: Base, part: Part, index: np.ndarray) -> list[dict[str, Any]]:
            return _shown(model, base, vary(part, index, STILL))

        return replace(
            task,
            head=lambda *shape: head,
            vary=vary,
            infer=lambda model, each, part: judged(model, each, vary(part, np.arange(len(part)), STILL)),
            feed=Feed("document", room=partial(raw_length, share=share, mean=mean, ends=sum(map(len, ends)))),
            show=show,
            notes=(note,) if note else (),
        )

    task = replace(language_task("span", bind, language_scores), whole=True)
    return task


def sentinels_of(base: Base) -> np.ndarray:
    """Ids of the sentinels in the order in which they are used.

    Raises:
        NotSupported: the tokenizer has none.
    """
    found = {
        int(match[1]): i
        for token, i in base.tokenizer.get_vocab().items()
        if (match := SENTINEL.fullmatch(token))
    }
    if not found:
        raise NotSupported(
            f"`span` needs a tokenizer with sentinels (<extra_id_0>, <extra_id_1>, …); that of `{base.name}` "
            "has none. Train one that has: `penjing tokenizer train corpus.txt -o tok --family t5`."
        )
    return np.array([found[n] for n in sorted(found)], np.int64)


def lengths_of(raw: int, share: float, mean: float) -> tuple[int, int]:
    """Tokens of source and answer that a piece of `raw` tokens makes, without what the tokenizer puts
    around them."""
    hidden, spans = _hidden(raw, share, mean)
    return raw - hidden + spans, hidden + spans


def raw_length(longest: int, *, share: float, mean: float, ends: int) -> int:
    """Tokens of the longest piece whose source and answer are at most `longest` tokens, ends included."""
    raw = 2
    while max(lengths_of(raw + 1, share, mean)) + ends <= longest:
        raw += 1
    return raw


def _hidden(raw: int, share: float, mean: float) -> tuple[int, int]:
    """Hidden tokens and spans of a piece, as `data.masking.noise_spans` cuts it."""
    hidden = min(max(round(raw * share), 1), raw - 1)
    return hidden, min(max(round(hidden / mean), 1), raw - hidden)


def hidden_of(lengths: np.ndarray, share: float, mean: float, generator: np.random.Generator) -> np.ndarray:
    """True at the hidden tokens of rows that lie end to end. A row of one token hides nothing."""
    pieces = []
    for n in lengths.tolist():
        kept, noise = noise_spans(n, share, mean, generator) if n > 1 else (np.array([n]), np.array([0]))
        sizes = np.stack([kept, noise], 1).ravel()
        pieces.append(np.repeat(np.arange(len(sizes)) % 2 == 1, sizes))
    return np.concatenate(pieces) if pieces else np.zeros(0, bool)


def _first(hidden: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True at the first token of each hidden span, and the row of each token. No row begins with one."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    before = np.concatenate([[False], hidden[:-1]])
    before[np.concatenate([[True], row[1:] != row[:-1]])] = False
    return hidden & ~before, row


def most_spans(hidden: np.ndarray, lengths: np.ndarray) -> int:
    """Spans of the row that has most."""
    first, row = _first(hidden, lengths)
    return int(np.bincount(row[first], minlength=1).max())


def taken_apart(
    ids: np.ndarray, lengths: np.ndarray, hidden: np.ndarray, sentinels: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Sources and answers, each as ids end to end and lengths: in the source each hidden span is one
    sentinel, in the answer each sentinel is followed by its span."""
    first, row = _first(hidden, lengths)
    n_rows = len(lengths)
    spans = np.bincount(row[first], minlength=n_rows)
    place = np.arange(int(first.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
    marks = sentinels[place]
    source = ids.copy()
    source[first] = marks
    kept = ~hidden | first
    answer = np.insert(ids[hidden], np.flatnonzero(first[hidden]), marks)
    n_hidden = np.bincount(row[hidden], minlength=n_rows)
    return (source[kept], lengths - n_hidden + spans), (answer, n_hidden + spans)


def _framed(ids: np.ndarray, lengths: np.ndarray, ends: tuple[tuple[int, ...], tuple[int, ...]]) -> Tokens:
    whole, sizes, _ = framed(ids, lengths, *ends)
    return Tokens(whole, np.concatenate([[0], np.cumsum(sizes)]))


def _shown(model: Any, base: Base, part: Part) -> list[dict[str, Any]]:
    """Sources, what the model says of them (greedy), and what was hidden."""
    assert part.answers is not None
    decode, ends = base.tokenizer.decode, frame(base.tokenizer)[1]
    rows = [_row(part.tokens, i) for i in range(len(part))]
    wanted = [_row(part.answers, i) for i in range(len(part))]
    most = Decoding(max_new=max(len(row) for row in wanted))
    found = generate(model, rows, most, stop=ends[-1:], limit=base.limit)
    return [
        {"given": decode(row), "found": decode([*one[0].ids]), "wanted": decode(said)}
        for row, one, said in zip(rows, found, wanted, strict=True)
    ]


def _row(tokens: Tokens, i: int) -> list[int]:
    found: list[int] = tokens.ids[tokens.starts[i] : tokens.starts[i + 1]].tolist()
    return found


def _too_few(base: Base, sentinels: np.ndarray, wanted: int) -> SpecError:
    return SpecError(
        f"Pieces of this length hide up to {wanted} spans, each behind a sentinel of its own; the tokenizer "
        f"of `{base.name}` has {len(sentinels)}. Set `data.max_length` lower, or `span.mean` higher."
    )


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"
