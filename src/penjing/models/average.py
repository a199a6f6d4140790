"""A running average of the weights that train, in fp32, and a way to let the model be it for a while.

Word rows that are not in use have no weights of their own here, only the one scalar that weight decay left of
them; it is averaged like a weight, so the average is that of training the whole table. Buffers are not
averaged: no base of ours trains any.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from penjing.models.embedding import tables_in_use


class Average:
    """mean <- keep * mean + (1 - keep) * weights, beginning with the weights of the first `add`."""

    def __init__(self) -> None:
        self.n = 0  # how many times weights were added
        self._weights: dict[str, Tensor] = {}
        self._decays: dict[str, float] = {}

    @torch.no_grad()
    def add(self, model: nn.Module, keep: float) -> None:
        """Take the model's weights in; `keep` (0..1) is what the mean so far still counts."""
        for name, parameter in _trained(model):
            mean = self._weights.get(name)
            if mean is None:
                self._weights[name] = parameter.detach().float().clone()
            else:
                self._weights[name] = mean.to(parameter.device).lerp_(parameter.float(), 1 - keep)
        for name, table in tables_in_use(model).items():
            before = self._decays.get(name, table.decay)
            self._decays[name] = table.decay + keep * (before - table.decay)
        self.n += 1

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model's weights are the mean; outside, bit for bit its own. Nothing before an `add`."""
        if not self.n:
            yield
            return
        own = {name: parameter.detach().clone() for name, parameter in _trained(model)}
        decays = {name: table.decay for name, table in tables_in_use(model).items()}
        try:
            _put(model, self._weights, self._decays)
            yield
        finally:
            _put(model, own, decays)

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n, "weights": dict(self._weights), "decays": dict(self._decays)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n = state.get("n", 0)
        self._weights = dict(state.get("weights", {}))
        self._decays = dict(state.get("decays", {}))


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


@torch.no_grad()
def _put(model: nn.Module, weights: dict[str, Tensor], decays: dict[str, float]) -> None:
    for name, parameter in _trained(model):
        parameter.copy_(weights[name])
    for name, table in tables_in_use(model).items():
        table.decay = decays[name]
    model.train(model.training)  # drops what was kept of the other weights for evaluation
