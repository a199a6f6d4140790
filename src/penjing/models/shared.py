"""One trunk for several models that differ in their LoRA adapters only: one packed forward over all their
batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.adapters import Adapter, Stack, adapters_of, share_weights, twin, why_alone
from penjing.models.dropout import Dropout, Stream
from penjing.models.grouped import GroupedDropout, GroupedLinear, Pass, seats_of
from penjing.models.layers import bare
from penjing.models.model import Model
from penjing.models.packing import forward
from penjing.records import Batch


class SharedTrunk:
    """The frozen base of models made by LoRA, held once.

    `join` takes a model in and lets its base lie where this one's does; `stack` sets the adapters of chosen
    models side by side; `states` runs them all at once.
    """

    def __init__(self, first: Model) -> None:
        _check(first)
        self.way = first.way
        self.trunk: Any = twin(bare(first.trunk))
        del self.trunk.peft_config  # peft leaves it on the model that it wraps
        self._pass: Pass | None = None
        for name, adapter in adapters_of(first.trunk).items():
            layer = self.trunk.get_submodule(name).base_layer
            self._group(name, layer.requires_grad_(False))
            self.dtype, self.device = layer.weight.dtype, adapter.down.device
        for parent in list(self.trunk.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Dropout | Dropout):
                    setattr(parent, name, GroupedDropout(child.p, self._now))
        self.rates = _rates(first.trunk)

    def join(self, model: Model, *, trains: bool = True) -> dict[str, Adapter]:
        """Take a model in; returns its adapters by layer. Its base's weights now lie here. Models that do not
        train may have been tuned with any dropout.

        Raises:
            NotSupported: the model does more than plain LoRA, is over another base, or drops at other rates.
        """
        _check(model)
        other = share_weights(model.trunk, self.trunk)
        if other:
            raise NotSupported(
                f"Trials that train together share one frozen base; `{other}` of this one differs from that "
                "of the first. Give them the same base, device and precision, or run it by itself."
            )
        if trains and _rates(model.trunk) != self.rates:
            raise NotSupported(
                f"Trials that train together share the base's dropout rates; the first has "
                f"{_said(self.rates)}, this one {_said(_rates(model.trunk))}. Set the same `train.dropout`, "
                "or run it by itself."
            )
        adapters = adapters_of(model.trunk)
        for name in adapters:
            layer = self.trunk.get_submodule(name)
            if not isinstance(layer, GroupedLinear):
                self._group(name, layer)
        return adapters

    def stack(self, members: Sequence[dict[str, Adapter]], *, trains: bool = True) -> Stack:
        """The adapters of these members, with room for gradients where they are to train."""
        return Stack(members, self.dtype, trains=trains)

    def states(
        self,
        stack: Stack,
        members: Sequence[int],
        batches: Sequence[Batch],
        streams: Sequence[Stream] | None = None,
    ) -> list[Tensor]:
        """Last hidden states of each batch, (T, D) in its own order, by the adapters of its member of the
        stack.

        With `streams`, one a member, dropout is on, and attention groups sequences of one length alone:
        padded to a longer neighbour's, one is summed in another order on some processors.
        """
        seats = seats_of(batches, members, len(stack.members))
        self._pass = Pass(seats, stack, streams)
        self.trunk.train(streams is not None)
        ids = torch.cat([b.ids for b in batches]).index_select(0, seats.origin)
        segments = None
        if any(b.segments is not None for b in batches):
            each = [b.ids.new_zeros(b.n_tokens) if b.segments is None else b.segments for b in batches]
            segments = torch.cat(each).index_select(0, seats.origin)
        every = [n for own in seats.lengths for n in own]
        trains = streams is not None
        factors = self._pass.attention_factors if trains else None
        lengths = [every[i] for i in seats.order]
        out = forward(self.trunk, self.way, ids, lengths, segments, factors=factors, exact=trains)
        return list(out.index_select(0, seats.place).split(seats.counts))

    def _now(self) -> Pass:
        assert self._pass is not None
        return self._pass

    def _group(self, name: str, layer: nn.Module) -> None:
        above, _, last = name.rpartition(".")
        setattr(self.trunk.get_submodule(above), last, GroupedLinear(layer, name, self._now))


def _check(model: Model) -> None:
    why = why_alone(model.trunk)
    if not why and not model.way.packed:
        why = f"its base runs padded, not packed ({model.way.reason})"
    if not why and model.frozen is not None:
        why = "its lowest layers are frozen, so alone it runs without them, from the trunk cache"
    if why:
        raise NotSupported(
            f"Models that train or answer together differ in plain LoRA adapters and heads only; this one "
            f"does not fit: {why}. Run it by itself."
        )


def _rates(trunk: nn.Module) -> dict[str, float]:
    """Every dropout rate of the base: modules', and those kept as numbers."""
    found: dict[str, float] = {}
    for place, module in bare(trunk).named_modules():
        if "lora_" in place:
            continue
        if isinstance(module, nn.Dropout | Dropout):
            found[place] = module.p
        for name, value in vars(module).items():
            if isinstance(value, float) and "drop" in name:
                found[f"{place}.{name}"] = value
    return found


def _said(rates: dict[str, float]) -> str:
    return ", ".join(f"{p:g}" for p in sorted(set(rates.values()))) or "none"
