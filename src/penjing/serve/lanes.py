"""Lanes: bundles that can share one pass of a trunk. LoRA bundles over one base share a lane, whatever their
tasks and heads; any other bundle has one of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from threading import RLock

from torch import Tensor

from penjing.engine.mixed import Mixed, joined
from penjing.errors import NotSupported
from penjing.models.model import Model
from penjing.records import Batch
from penjing.serve.opened import Opened


class Lane:
    """Models that one pass can serve; `mixed` where they are several adapters on one trunk."""

    def __init__(self, mixed: Mixed | None = None) -> None:
        self.mixed = mixed
        self.seats: dict[Opened, int] = {}

    def states(self, asks: Sequence[tuple[Opened, Batch]]) -> list[Tensor]:
        """Last hidden states of each batch by its bundle's trunk: one pass where the bundles share one."""
        whose = {opened for opened, _ in asks}
        if len(whose) > 1 and self.mixed is not None and whose <= self.seats.keys():
            return self.mixed.states([self.seats[o] for o, _ in asks], [batch for _, batch in asks])
        found: dict[int, Tensor] = {}
        for opened in whose:  # one, but for bundles that were put away while their last requests waited
            own = [i for i, (other, _) in enumerate(asks) if other is opened]
            model = opened.bundle.model
            assert isinstance(model, Model)
            states = model.states(joined([asks[i][1] for i in own]))
            found |= dict(zip(own, states.split([len(asks[i][1].ids) for i in own]), strict=True))
        return [found[i] for i in range(len(asks))]


class Lanes:
    """Which lane each open bundle is in. `lock` is held while a pass runs and while a lane changes."""

    def __init__(self) -> None:
        self.lock = RLock()
        self._of: dict[Opened, Lane] = {}
        self._shared: dict[tuple[str, str, str], Lane] = {}

    def of(self, opened: Opened) -> Lane:
        """The lane of a bundle; one that was put away gets one of its own."""
        return self._of.get(opened) or Lane()

    def enter(self, opened: Opened) -> None:
        """Seat a bundle beside those over the same base, where it is one that can share."""
        model, machine = opened.bundle.model, opened.bundle.machine
        self._of[opened] = Lane()
        if not isinstance(model, Model):
            return
        key = (opened.bundle.base.sha256, machine.precision, str(machine.device))
        with self.lock:
            lane = self._shared.get(key)
            try:
                if lane is None:
                    lane = self._shared[key] = Lane(Mixed([model]))
                else:
                    assert lane.mixed is not None
                    lane.mixed.join(model)
            except NotSupported:  # more than plain LoRA: it answers alone
                return
            self._of[opened] = lane
            self._seat(lane, [*lane.seats, opened])

    def leave(self, opened: Opened) -> None:
        """Forget a bundle; requests that it took are still answered, alone."""
        with self.lock:
            lane = self._of.pop(opened, None)
            if lane is None or lane.mixed is None:
                return
            rest = [other for other in lane.seats if other is not opened]
            if rest:
                self._seat(lane, rest)
            else:
                self._shared = {key: own for key, own in self._shared.items() if own is not lane}

    def _seat(self, lane: Lane, members: Sequence[Opened]) -> None:
        assert lane.mixed is not None
        models = [opened.bundle.model for opened in members]
        lane.mixed.seat([model for model in models if isinstance(model, Model)])
        lane.seats = {opened: i for i, opened in enumerate(members)}


def with_states(batch: Batch, states: Tensor) -> Batch:
    """The batch with what its trunk makes of it, so that the model runs its head only."""
    return dataclasses.replace(batch, states=states)
