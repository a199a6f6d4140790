"""Several heads on one trunk, each with its own task; a batch says which of them it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.records import Batch


class Heads(nn.Module):
    """Heads side by side. Which one answers, the task says, by `acting`."""

    def __init__(self, heads: Sequence[nn.Module], *, doubts: bool = False) -> None:
        super().__init__()
        self.each = nn.ModuleList(heads)
        # of each task's loss: log of its variance, learned with the weights (Kendall et al. 2018)
        self.doubts = nn.Parameter(torch.zeros(len(heads))) if doubts else None

    @property
    def dense(self) -> nn.Module | None:
        """The first dense layer that a head took over from the base, where one did."""
        found = (getattr(head, "dense", None) for head in self.each)
        return next((dense for dense in found if dense is not None), None)


class Acting:
    """A model as one of its heads sees it: the trunk's states and that head."""

    def __init__(self, model: Any, kind: int) -> None:
        self.model, self.all, self.head = model, model.head, model.head.each[kind]

    def states(self, batch: Batch) -> Tensor:
        """As the model's own."""
        found: Tensor = self.model.states(batch)
        return found

    def __call__(self, batch: Batch) -> Any:
        return self.head(self.states(batch), batch.lengths)
