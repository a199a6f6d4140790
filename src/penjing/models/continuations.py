"""How likely a language model finds texts that follow a context: what is read, and how tokens score.

A causal model reads context and continuation once. A masked one reads them once for each token of the
continuation, which is masked there (pseudo-likelihood, Salazar et al. 2020, arXiv 1910.14659).

Legend: T tokens, n sequences, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from penjing.errors import SpecError
from penjing.models.heads import pool
from penjing.models.own_head import PIECE, OwnHead
from penjing.models.queries import frame, words
from penjing.records import Batch, Tokens


def read_continuations(
    tokenizer: Any, items: Sequence[tuple[str, Sequence[str]]], kind: str, max_length: int
) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """Sequences of all continuations of all contexts, whose `labels` are the tokens to be told; the item (n,)
    and the place of the continuation (n,) each belongs to. A context that is too long loses its beginning.

    Raises:
        SpecError: a continuation alone is too long.
    """
    before, after = frame(tokenizer)
    ids: list[tuple[int, ...]] = []
    labels: list[np.ndarray] = []
    owners, places, cut = [], [], set()
    for row, (context, continuations) in enumerate(items):
        head = words(tokenizer, context)
        for place, text in enumerate(continuations):
            own = words(tokenizer, f" {text}")
            room = max_length - len(before) - len(after) - len(own)
            if room < 0 or not own:
                raise SpecError(
                    f"`data.max_length` is {max_length}; the choice {text[:40]!r} has {len(own)} tokens of "
                    f"its own. Use at least {len(before) + len(after) + len(own) + 8}."
                )
            if len(head) > room:
                cut.add(row)
            kept = head[len(head) - room :] if len(head) > room else head
            whole = (*before, *kept, *own, *after)
            start = len(before) + len(kept)
            for one, asked in _asked(whole, start, len(own), kind, tokenizer.mask_token_id):
                ids.append(one)
                labels.append(asked)
                owners.append(row)
                places.append(place)
    flat = np.fromiter((token for one in ids for token in one), np.int32)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    told = np.concatenate([*labels, np.zeros(0, np.int64)])
    return Tokens(flat, starts, len(cut), labels=told), np.array(owners, np.int64), np.array(places, np.int64)


def _asked(
    whole: tuple[int, ...], start: int, n: int, kind: str, mask: int | None
) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Sequences and what each asks for: at the place before a token of a causal model, at its mask of a
    masked one."""
    if kind == "causal":
        labels = np.full(len(whole), -100, np.int64)
        first = max(start, 1)  # without a token before it nothing tells the very first
        labels[first - 1 : start + n - 1] = whole[first : start + n]
        return [(whole, labels)]
    assert mask is not None
    found = []
    for at in range(start, start + n):
        labels = np.full(len(whole), -100, np.int64)
        labels[at] = whole[at]
        found.append(((*whole[:at], mask, *whole[at + 1 :]), labels))
    return found


class Continuations(nn.Module):
    """A language model's own head, asked at places of packed states (`token_scores`)."""

    def __init__(self, own: OwnHead) -> None:
        super().__init__()
        self.own = own

    def forward(self, states_TD: Tensor, lengths: Tensor) -> Tensor:
        """(n, V) what it says at the end of each sequence."""
        found: Tensor = self.own(pool(states_TD, lengths, "last"))
        return found


def token_scores(head: Continuations, states_TD: Tensor, batch: Batch) -> list[tuple[float, int]]:
    """Of each sequence the sum of log-probabilities of the tokens it asks for, and how many they are."""
    assert batch.labels is not None
    asked = (batch.labels != -100).nonzero().flatten()
    wanted, states = batch.labels[asked], states_TD.index_select(0, asked)
    own = []
    for piece, tokens in zip(states.split(PIECE), wanted.split(PIECE), strict=True):
        logits = head.own(piece)
        own.append((logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)).double().cpu())
    scores = np.concatenate([x.numpy() for x in own]) if own else np.zeros(0)
    ends = batch.lengths.cumsum(0).numpy()
    owner = np.searchsorted(ends, asked.cpu().numpy(), side="right")
    sums = np.bincount(owner, scores, minlength=len(ends))
    counts = np.bincount(owner, minlength=len(ends))
    return [(float(s), int(n)) for s, n in zip(sums, counts, strict=True)]
