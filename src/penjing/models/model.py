"""A trunk with a head: what methods make trainable, tasks compute a loss with, and bundles save."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import Tensor, nn

from penjing.models.dropout import hasten
from penjing.models.lowrank import quicken
from penjing.models.packing import Way, run
from penjing.models.precision import WORKING, WorkingCopies
from penjing.records import Batch


class Model(nn.Module):
    """`model(batch)` -> the head's output. Parameters are fp32 and are the truth; `precision` only says how
    it is run.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, way: Way) -> None:
        super().__init__()
        self.trunk, self.head, self.way = trunk, head, way
        self._copies: WorkingCopies | None = None

    def prepare(self, precision: str) -> Model:
        """Call once, when it is settled what trains: sets the working type, quick dropout and quick LoRA."""
        if next(self.trunk.parameters()).device.type == "cpu":
            hasten(self.trunk)
        quicken(self.trunk)
        if precision in WORKING:
            self._copies = WorkingCopies(self.trunk, WORKING[precision])
        return self

    def train(self, mode: bool = True) -> Model:
        """As `nn.Module.train`; working copies kept for evaluation are dropped."""
        if self._copies is not None:
            self._copies.forget()
        return super().train(mode)

    def states(self, batch: Batch) -> Tensor:
        """Last hidden states of a packed batch, (T, D), in the working type."""
        with self._copies.active() if self._copies else contextlib.nullcontext():
            return run(self.trunk, self.way, batch.ids, batch.lengths.tolist(), batch.segments)

    def forward(self, batch: Batch) -> Any:
        return self.head(self.states(batch), batch.lengths)
