"""Causal language modelling: every token is said from those before it (Radford et al. 2018)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from penjing.data.masking import placed
from penjing.errors import NotSupported
from penjing.measures import language_scores
from penjing.models.decoding import Decoding
from penjing.models.generate import generate
from penjing.models.language import judged, language_task
from penjing.models.load import Base
from penjing.models.word_head import word_head
from penjing.records import NO_ROWS, Part, Tokens
from penjing.task import Feed, Task

# What `train` says where the spec says nothing.
TRAIN = {
    "batch": 16,
    "schedule": "cosine",
    "betas": [0.9, 0.95],
    "lr": 1e-3,
    "warmup": 0.05,
    "weight_decay": 0.1,
}

PROMPT, SAID, TEMPERATURE = 32, 64, 0.8  # of the continuations that a run shows


def causal(*, across: bool = False, ends: bool = True) -> Task:
    """Learn to say the next token.

    across: pieces run across the ends of documents and begin at another place each time, as when a text is
    one long row of characters; else a piece is of one document, and attention ends with it. ends: the
    tokenizer's first and last tokens stand around each document, so that generation knows when to stop.
    """

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if base.kind != "decoder":
            raise NotSupported(
                f"`causal` needs a base whose tokens see only those before them; `{base.name}` has an "
                f"encoder. Take a GPT- or Llama-like one, or `--objective masked` (`span` for a T5-like one)."
            )
        head, note = word_head(base, "causal", weights=weights)

        def show(model: Any, base: Base, part: Part, index: np.ndarray) -> list[dict[str, Any]]:
            tokens = part.tokens
            rows = [tokens.ids[tokens.starts[i] : tokens.starts[i + 1]].tolist() for i in index]
            return _continued(model, base, rows)

        unit: Any = "stream" if across else "document"
        vary = _shifted if across else _in_documents
        return replace(
            task,
            head=lambda *shape: head,
            vary=vary,
            infer=lambda model, each, part: judged(model, each, vary(part, np.arange(len(part)), None)),
            feed=Feed(unit, 0, ends=ends),
            show=show,
            notes=(note,) if note else (),
        )

    task = language_task("causal", bind, partial(language_scores, whole=True))
    return task


def _in_documents(part: Part, rows: np.ndarray, seed: int | None) -> Part:
    """Pieces as they lie. The last token of a piece is asked for the first of the next, where the document
    goes on; at its end it is asked for nothing."""
    tokens = part.tokens
    found = _asked(part, rows, tokens.starts[rows], tokens.starts[rows + 1])
    labels, last = found.tokens.labels, found.tokens.starts[1:] - 1
    assert labels is not None
    labels[last[part.targets[rows, 2] == 1]] = -100
    return found


def _shifted(part: Part, rows: np.ndarray, seed: int | None) -> Part:
    """Pieces of the same lengths that begin up to a piece later, and no token is asked for twice in one."""
    tokens = part.tokens
    starts, stops = tokens.starts[rows], tokens.starts[rows + 1]
    if seed is None:
        return _asked(part, rows, starts, stops)
    room = np.maximum(len(tokens.ids) - 1 - stops, 0)
    shift = np.minimum(np.random.default_rng(seed).integers(0, stops - starts), room)
    return _asked(part, rows, starts + shift, stops + shift)


def _asked(part: Part, rows: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Part:
    """The text from each start to its stop, each token asked for the next; the text's last for nothing."""
    stream, targets = part.tokens.ids, part.targets[rows]
    places, lengths = placed(starts, stops)
    labels = np.asarray(stream[np.minimum(places + 1, len(stream) - 1)], np.int64)
    labels[places == len(stream) - 1] = -100
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return Part(NO_ROWS, Tokens(np.asarray(stream[places], np.int64), ends, labels=labels), targets)


def _continued(model: Any, base: Base, rows: list[list[int]]) -> list[dict[str, Any]]:
    """The beginning of each piece, what the model goes on with (sampled), and how the piece goes on."""
    given = [row[: max(1, min(PROMPT, len(row) // 2))] for row in rows]
    how = Decoding(max_new=SAID, sample=True, temperature=TEMPERATURE)
    stop = [] if base.tokenizer.eos_token_id is None else [int(base.tokenizer.eos_token_id)]
    said = generate(model, given, how, stop=stop, limit=base.limit)
    decode = base.tokenizer.decode
    return [
        {
            "given": decode(own),
            "found": decode([*best[0].ids]),
            "wanted": decode(row[len(own) : len(own) + SAID]),
        }
        for row, own, best in zip(rows, given, said, strict=True)
    ]
