"""Many adapters in one batch: rows that belong to different LoRA models over one base, answered together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from penjing.data.batches import cut, pack
from penjing.models.model import Model
from penjing.models.shared import SharedTrunk
from penjing.records import Batch, Tokens


class Mixed:
    """Models over one base that differ in LoRA adapters and heads; the base is held once from here on.

    Raises:
        NotSupported: a model does more than plain LoRA, is over another base, or its base runs padded.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._shared = SharedTrunk(models[0])
        self._adapters = {id(model): self._shared.join(model, trains=False) for model in models}
        self.seat(models)

    def join(self, model: Model) -> None:
        """Let a model's base lie where that of the others does; `seat` it to have it answer.

        Raises:
            NotSupported: as above; then nothing has changed.
        """
        self._adapters[id(model)] = self._shared.join(model, trains=False)

    def seat(self, models: Sequence[Model]) -> None:
        """Those that answer from now on, of those that have joined; the others are forgotten."""
        self.models = list(models)
        self._adapters = {id(model): self._adapters[id(model)] for model in models}
        self._stack = self._shared.stack([*self._adapters.values()], trains=False)
        self._stack.load()

    def states(self, owners: Sequence[int], batches: Sequence[Batch]) -> list[Tensor]:
        """Last hidden states of each batch, (T, D), by model `owners[i]` (its place among `models`), all in
        one pass; several batches may have one owner. Their tensors lie on the models' device."""
        members = sorted(set(owners))
        own = [[i for i, owner in enumerate(owners) if owner == member] for member in members]
        whole = [joined([batches[i] for i in places]) for places in own]
        found = self._shared.states(self._stack, members, whole)
        each: dict[int, Tensor] = {}
        for places, states in zip(own, found, strict=True):
            each |= dict(zip(places, states.split([len(batches[i].ids) for i in places]), strict=True))
        return [each[i] for i in range(len(batches))]

    def outputs(self, rows: Tokens, owners: np.ndarray, *, tokens: int = 8192) -> list[Tensor]:
        """What model `owners[i]` (its place in the list of models) gives for row i: fp32, on the CPU.

        Rows are sorted by length over the whole queue, whosever they are; at most `tokens` are computed at
        once.
        """
        found: dict[int, Tensor] = {}
        with torch.inference_mode():
            for piece in cut(np.arange(len(rows)), rows.lengths, tokens=tokens):
                members = np.unique(owners[piece]).tolist()
                parts = [piece[owners[piece] == member] for member in members]
                batches = [pack(rows, part).to(self._shared.device) for part in parts]
                states = self.states(members, batches)
                for member, part, batch, own in zip(members, parts, batches, states, strict=True):
                    answers = self.models[member].head.eval()(own, batch.lengths).float().cpu()
                    found |= dict(zip(part.tolist(), answers, strict=True))
        return [found[row] for row in range(len(rows))]


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches end to end as far as a trunk reads them: ids, or images, lengths and segments."""
    if len(batches) == 1:
        return batches[0]
    segments = None
    if any(b.segments is not None for b in batches):
        each = [torch.zeros_like(b.ids) if b.segments is None else b.segments for b in batches]
        segments = torch.cat(each)
    images = [b.images for b in batches if b.images is not None]
    return Batch(
        ids=torch.cat([b.ids for b in batches]),
        lengths=torch.cat([b.lengths for b in batches]),
        labels=None,
        n_targets=1.0,
        rows=tuple(range(sum(len(b.rows) for b in batches))),
        segments=segments,
        images=torch.cat(images) if images else None,
    )
