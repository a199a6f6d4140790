"""Masked language modelling: 15 % of the tokens are hidden, the model says what they were.

Devlin et al. 2018 (arXiv 1810.04805), masks drawn anew each time as in Liu et al. 2019 (RoBERTa); whole
words; spans as in Joshi et al. 2020 (SpanBERT).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from penjing.data.batches import packed
from penjing.data.masking import chosen, corrupted, framed, placed, spans
from penjing.errors import NotSupported, SpecError
from penjing.measures import language_scores
from penjing.models.language import judged, language_task
from penjing.models.load import Base
from penjing.models.queries import frame
from penjing.models.word_head import word_head
from penjing.records import NO_ROWS, Part, Tokens
from penjing.task import Feed, Task

# What `train` says where the spec says nothing.
TRAIN = {"batch": 16, "schedule": "cosine", "betas": [0.9, 0.98], "lr": 5e-4, "warmup": 0.06}
STILL = 20_011  # seed of the masks that validation sees, the same at every step


def masked(
    *,
    share: float = 0.15,
    units: Literal["tokens", "words", "spans"] = "tokens",
    across: bool = False,
) -> Task:
    """Hide some tokens and learn to say them. Special ones, such as that of words not known, are left alone.

    share: of the tokens that are asked for. units: what is drawn: tokens, whole words (Chinese ones by
    a segmenter), or spans of words. across: pieces run across the ends of documents, in place of ending with
    them.
    """
    if not 0 < share < 1:
        raise SpecError(f"`masked.share` must be above 0 and below 1; it is {share}. 0.15 is usual.")

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        mask = base.tokenizer.mask_token_id
        if mask is None:
            raise NotSupported(
                f"`masked` needs a tokenizer with a mask token; that of `{base.name}` has none. Take a "
                "BERT-like base, or `--objective causal` (a decoder), `--objective span` (T5-like)."
            )
        head, note = word_head(base, "mask", weights=weights)
        before, after = frame(base.tokenizer)
        special = np.array(sorted(base.tokenizer.all_special_ids), np.int64)
        ordinary = np.setdiff1d(np.arange(len(base.tokenizer)), special)
        draw = spans if units == "spans" else chosen

        def vary(part: Part, rows: np.ndarray, seed: int) -> Part:
            generator = np.random.default_rng(seed)
            tokens = part.tokens
            places, lengths = placed(tokens.starts[rows], tokens.starts[rows + 1])
            heads = None if tokens.heads is None or units == "tokens" else tokens.heads[places]
            ids = np.asarray(tokens.ids[places], np.int64)
            asked = draw(lengths, share, generator, heads)
            asked &= ~np.isin(ids, special)  # nothing is learned from saying that a word is not known
            shown, whole, inside = framed(
                corrupted(ids, asked, generator, mask, ordinary), lengths, before, after
            )
            labels = np.full(len(shown), -100, np.int64)
            labels[inside] = np.where(asked, ids, -100)
            starts = np.concatenate([[0], np.cumsum(whole)])
            return Part(NO_ROWS, Tokens(shown, starts, labels=labels), part.targets[rows])

        def show(model: Any, base: Base, part: Part, index: np.ndarray) -> list[dict[str, Any]]:
            return [
                _guessed(model, base.tokenizer, vary(part, index[i : i + 1], STILL))
                for i in range(len(index))
            ]

        unit: Any = "stream" if across else "document"
        feed = Feed(unit, len(before) + len(after), heads=units != "tokens")
        return replace(
            task,
            head=lambda *shape: head,
            vary=vary,
            infer=lambda model, each, part: judged(model, each, vary(part, np.arange(len(part)), STILL)),
            feed=feed,
            show=show,
            notes=(note,) if note else (),
        )

    task = language_task("masked", bind, language_scores)
    return task


def _guessed(model: Any, tokenizer: Any, part: Part) -> dict[str, Any]:
    """A piece with its masks, the model's words in their places, and the words that stood there."""
    batch = packed(part, np.arange(1)).to(next(model.head.parameters()).device)
    assert batch.labels is not None
    asked = (batch.labels != -100).nonzero()[:, 0]
    with torch.inference_mode():
        guesses = model.head(model.states(batch)[asked]).argmax(-1).cpu()
    filled = batch.ids.cpu().clone()
    filled[asked.cpu()] = guesses
    pairs = zip(guesses.tolist(), batch.labels[asked].tolist(), strict=True)
    said = [(tokenizer.decode([one]).strip(), tokenizer.decode([wanted]).strip()) for one, wanted in pairs]
    return {
        "given": tokenizer.decode(batch.ids.tolist()),
        "found": ", ".join(one for one, _ in said),
        "wanted": ", ".join(wanted for _, wanted in said),
    }
