"""Many adapters in one batch: rows that belong to different LoRA models over one base, answered together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from penjing.data.batches import cut, pack
from penjing.models.model import Model
from penjing.models.shared import SharedTrunk
from penjing.records import Tokens


class Mixed:
    """Models over one base that differ in LoRA adapters and heads; the base is held once from here on.

    Raises:
        NotSupported: a model does more than plain LoRA, is over another base, or its base runs padded.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.heads = [model.head.eval() for model in models]
        self._shared = SharedTrunk(models[0])
        self._stack = self._shared.stack([self._shared.join(model) for model in models], trains=False)
        self._stack.load()

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
                states = self._shared.states(self._stack, members, batches)
                for member, part, batch, own in zip(members, parts, batches, states, strict=True):
                    answers = self.heads[member](own, batch.lengths).float().cpu()
                    found |= dict(zip(part.tolist(), answers, strict=True))
        return [found[row] for row in range(len(rows))]
