"""A trunk with a head: what methods make trainable, tasks compute a loss with, and bundles save."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from penjing.models import encdec, semi_structured
from penjing.models.activations import fuse
from penjing.models.dropout import hasten
from penjing.models.frozen import Frozen, find, still
from penjing.models.heads import pool
from penjing.models.lowrank import quicken
from penjing.models.packing import Way
from penjing.models.precision import WORKING, WorkingCopies
from penjing.models.straight import run
from penjing.records import Batch


class Model(nn.Module):
    """`model(batch)` -> the head's output. Parameters are fp32 and are the truth; `precision` only says how
    it is run.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, way: Way) -> None:
        super().__init__()
        self.trunk, self.head, self.way = trunk, head, way
        self.precision = "fp32"
        self.frozen: Frozen | None = None  # the lowest layers, where the method leaves them alone
        self._still: list[nn.Module] = []
        self._copies: WorkingCopies | None = None
        self._modes: tuple[bool, ...] = ()  # the mode last set everywhere, and what it left the parts in

    def prepare(self, precision: str, *, sharded: bool = False) -> Model:
        """Call once, when it is settled what trains: sets the working type, quick dropout and quick LoRA, and
        finds the layers that nothing trains, which run without dropout from now on.

        `sharded`: weights will lie in shares over several processes. Then whoever shards them sets the type
        that layers run in, and frozen layers are run with all others: every process makes the same passes.
        """
        if next(self.trunk.parameters()).device.type == "cpu":
            hasten(self.trunk)
            fuse(self.trunk)
        quicken(self.trunk)
        if any(p.requires_grad for p in self.parameters()) and not encdec.is_whole(self.trunk):
            self.frozen = find(self.trunk, self.way)
        if self.frozen is not None:
            self._still = still(self.trunk, self.frozen.depth)
        self.precision = precision
        if sharded:
            self.frozen = None
        elif precision in WORKING:
            self._copies = WorkingCopies(self.trunk, WORKING[precision])
            if not any(p.requires_grad for p in self.trunk.parameters()):
                semi_structured.quicken(self.trunk)
        self._modes = ()
        return self

    @property
    def pools(self) -> str | None:
        """How the head sums up a sequence before all else, where the whole trunk is frozen; else None."""
        return getattr(self.head, "pooling", None) if self.frozen is not None and self.frozen.whole else None

    def train(self, mode: bool = True) -> Model:
        """As `nn.Module.train`, without dropout in what is frozen; copies kept for evaluation are dropped.

        The loop calls it at every step, so modules are gone through only when something changed the mode.
        """
        if self._copies is not None:
            self._copies.forget()
        if self._modes != (mode, *self._training()):
            super().train(mode)
            for module in self._still:
                module.eval()
            self._modes = (mode, *self._training())
        return self

    def _training(self) -> tuple[bool, ...]:
        return self.training, self.trunk.training, self.head.training

    def states(self, batch: Batch) -> Tensor:
        """Last hidden states of a packed batch, (T, D), in the working type; of an encoder-decoder those of
        its answers, (U, D).
        """
        frozen = self.frozen
        lengths = batch.lengths.tolist()
        read = batch.ids if batch.images is None else batch.images
        with self.working():
            if batch.answer is not None:
                return encdec.states(self.trunk, self.way, batch.ids, lengths, batch.answer)
            if frozen is None and batch.states is not None:  # somebody ran the trunk for several models
                return batch.states
            if frozen is None or frozen.reason:
                return run(self.trunk, self.way, read, lengths, batch.segments)
            low = batch.states
            if low is None:
                low = frozen.states(batch.ids, lengths, batch.segments)
            return low if frozen.whole else frozen.above(low, batch.ids, lengths, batch.segments)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Inside, the trunk's weights are of the working type, for who runs it otherwise than by `states`."""
        with self._copies.active() if self._copies else contextlib.nullcontext():
            yield

    def kept(self, batch: Batch) -> Tensor:
        """What can be kept of a batch's rows in place of running the frozen part again: its states (T, D), or
        one vector a sequence (S, D) where the head begins with pooling them.
        """
        assert self.frozen is not None, "no layer is frozen"
        states = self.frozen.states(batch.ids, batch.lengths.tolist(), batch.segments)
        return pool(states, batch.lengths, self.pools) if self.pools else states

    def forward(self, batch: Batch) -> Any:
        if batch.vectors is not None:  # a pooled row is a sequence of one token
            return self.head(batch.vectors, torch.ones_like(batch.lengths))
        return self.head(self.states(batch), batch.lengths)
