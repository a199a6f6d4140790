"""Packed rows with a few of their words changed: cheap text of the same kind, for whoever needs no labels.

Only words are touched: special tokens stay where they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch

from penjing.data.batches import count_targets
from penjing.records import Batch

WAYS = ("mask", "swap", "drop")


def noised(
    batch: Batch, how: str, share: float, *, special: Collection[int], mask: int | None, seed: list[int]
) -> Batch:
    """The batch with about this share of its words masked (with the token `mask`), exchanged with the next
    one, or dropped; drawn from `seed`. What stands for labels goes with its token.

    `drop` shortens sequences, so it is not for batches with `marks`, which are places in them.
    """
    generator = np.random.default_rng(seed)
    ids = batch.ids.cpu().numpy()
    word = ~np.isin(ids, list(special))
    hit = word & (generator.random(len(ids)) < share)
    if how == "mask":
        assert mask is not None
        return replace(batch, ids=torch.from_numpy(np.where(hit, mask, ids)), states=None, vectors=None)
    if how == "swap":
        return replace(
            batch, ids=torch.from_numpy(_swapped(ids, hit, word, batch)), states=None, vectors=None
        )
    return _without(batch, hit, word)


def _swapped(ids: np.ndarray, hit: np.ndarray, word: np.ndarray, batch: Batch) -> np.ndarray:
    """Each word that is hit changes places with its right neighbour, where that is a word of its sequence
    that is not itself exchanged."""
    owner = np.repeat(np.arange(len(batch.lengths)), batch.lengths.numpy())
    found = ids.copy()
    free = 0
    places = np.flatnonzero(hit[:-1] & word[1:] & (owner[:-1] == owner[1:]))
    for place in places.tolist():
        if place >= free:
            found[place], found[place + 1] = ids[place + 1], ids[place]
            free = place + 2
    return found


def _without(batch: Batch, hit: np.ndarray, word: np.ndarray) -> Batch:
    """The batch without these tokens, the first word of each sequence aside."""
    assert batch.marks is None, "marks are places in a sequence"
    owner = np.repeat(np.arange(len(batch.lengths)), batch.lengths.numpy())
    words = np.flatnonzero(word)
    first = words[np.unique(owner[words], return_index=True)[1]]
    hit = hit.copy()
    hit[first] = False
    kept = torch.from_numpy(~hit)
    lengths = torch.from_numpy(np.bincount(owner[~hit], minlength=len(batch.lengths)).astype(np.int64))
    labels = batch.labels
    if labels is not None and labels.ndim == 1 and len(labels) == len(hit):
        labels = labels[kept]
    return replace(
        batch,
        ids=batch.ids[kept],
        lengths=lengths,
        labels=labels,
        n_targets=count_targets(len(batch.rows), labels, batch.weights),
        segments=None if batch.segments is None else batch.segments[kept],
        states=None,
        vectors=None,
    )
