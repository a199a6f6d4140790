"""What enters the linear layers of a model, seen while it reads a rehearsal's texts; shared by the
compressors that look at inputs before they decide.

Layers are gone through from below: what is seen of one is what those below it, already compressed, give it.

Legend: T tokens, I inputs of a linear layer, O its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from penjing.compressor import Held, Rehearsal
from penjing.data.batches import cut, lengths_of, packed
from penjing.errors import DataError, NotSupported
from penjing.models.importance import tokens_of
from penjing.models.layers import linears_of, stacks_of
from penjing.models.model import Model
from penjing.models.modes import evaluating
from penjing.models.stored import kind_of
from penjing.records import Batch

SAMPLE = 1024  # tokens kept of what enters a layer
See = Callable[[str, Tensor], None]


class _EnoughError(Exception):
    """All layers that are looked at have run."""


def batches_of(rehearsal: Rehearsal, *, rows: int | None = None) -> list[Batch]:
    """The rehearsal's sequences in packed batches, longest first; `rows`: at most so many, evenly spread.

    Raises:
        DataError: there are none.
    """
    part = rehearsal.part
    if not len(part):
        raise DataError(
            "Texts to look at while compressing were wanted; the rehearsal has none. Give rows of the kind "
            "that the model will answer."
        )
    n = len(part)
    taken = np.arange(n) if rows is None or n <= rows else np.linspace(0, n - 1, rows).astype(np.int64)
    return [packed(part, piece) for piece in cut(taken, lengths_of(part), tokens=rehearsal.tokens)]


def plain_linears(held: Held) -> list[str]:
    """Full names of the linear layers in the trunk's stacks (GPT-2's Conv1D too) that no step has changed
    yet.

    Raises:
        NotSupported: there are none.
    """
    trunk = held.model.trunk
    names = linears_of(trunk)
    if not names:
        kinds = sorted({kind for m in trunk.modules() if (kind := kind_of(m)) is not None})
        found = f"its layers are held as {', '.join(kinds)} already" if kinds else "it has none in its layers"
        raise NotSupported(
            f"Linear layers to compress were wanted in {type(trunk).__name__}; {found}. Change a layer's "
            "weights once, with the last step of a chain."
        )
    return names


def by_layer(trunk: nn.Module, names: Sequence[str]) -> list[list[str]]:
    """These linear layers, those of one layer of the stack together, the lowest layer first."""
    place = {id(m): number for number, layer in enumerate(_layers(trunk)) for m in layer.modules()}
    found: dict[int, list[str]] = {}
    for name in names:
        found.setdefault(place[id(trunk.get_submodule(name))], []).append(name)
    return [found[number] for number in sorted(found)]


def watch(model: Model, batches: Sequence[Batch], names: Sequence[str], see: See) -> None:
    """Let the model read every batch, and `see(name, x)` each x (T, I) that enters one of these layers.

    Layers above those of the stack that hold them are not run.
    """
    trunk = model.trunk
    handles = [trunk.get_submodule(name).register_forward_pre_hook(_seeing(name, see)) for name in names]
    above = _above(trunk, names)
    if above is not None:
        handles.append(above.register_forward_pre_hook(_stop))
    device = next(model.parameters()).device
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                try:
                    model.states(batch.to(device))
                except _EnoughError:
                    continue
    finally:
        for handle in handles:
            handle.remove()


class Record(Protocol):
    """What is kept of the inputs of a layer, told of each batch."""

    def add(self, x_TI: Tensor) -> None: ...


@dataclass
class Moments:
    """Sums over the tokens that enter some layers."""

    outer: Tensor  # (I, I) float64, sum of x x'
    size: Tensor  # (I,) float64, sum of |x|
    n: int = 0  # tokens

    @classmethod
    def empty(cls, n_in: int, device: torch.device) -> Self:
        size = torch.zeros(n_in, dtype=torch.float64, device=device)
        return cls(torch.diag(size), size)

    def add(self, x_TI: Tensor) -> None:
        self.outer += (x_TI.t() @ x_TI).double()
        self.size += x_TI.abs().sum(0).double()
        self.n += len(x_TI)


@dataclass
class Ranges:
    """Between which values the tokens lie that enter some layers, and some of these tokens."""

    low: Tensor  # (I,) fp32
    high: Tensor  # (I,)
    sample: list[Tensor]  # of (n, I)

    @classmethod
    def empty(cls, n_in: int, device: torch.device) -> Self:
        return cls(
            torch.full((n_in,), torch.inf, device=device), torch.full((n_in,), -torch.inf, device=device), []
        )

    def add(self, x_TI: Tensor) -> None:
        self.low = torch.minimum(self.low, x_TI.amin(0))
        self.high = torch.maximum(self.high, x_TI.amax(0))
        if sum(map(len, self.sample)) < SAMPLE:
            self.sample.append(x_TI[:: max(1, len(x_TI) // 64)].clone())

    @property
    def largest(self) -> Tensor:
        """(I,) the greatest |x|."""
        return torch.maximum(self.high, -self.low)


R = TypeVar("R", bound=Record)


def gathered(
    model: Model, batches: Sequence[Batch], names: Sequence[str], empty: Callable[[int, torch.device], R]
) -> dict[str, R]:
    """A record of what enters each of these layers, without the padding of padded encoders and decoders
    (that of a padded one of both is among it); layers that read one tensor share one.

    Raises:
        NotSupported: no text gets to one of them.
    """
    found: dict[str, R] = {}
    last: tuple[Tensor | None, str] = None, ""

    def see(batch: Batch, name: str, x: Tensor) -> None:
        nonlocal last
        before, first = last
        if x is before:  # queries, keys and values read one tensor
            found[name] = found[first]
            return
        last = x, name
        whole = model.way.packed or batch.answer is not None or x.ndim < 3
        flat = tokens_of(x.detach(), batch, packed=whole).float()
        if name not in found:
            found[name] = empty(flat.shape[1], flat.device)
        found[name].add(flat)

    for batch in batches:
        watch(model, [batch], names, partial(see, batch))
    if lost := [name for name in names if name not in found]:
        raise NotSupported(
            f"What enters {len(names)} linear layers was to be seen; no text of the rehearsal gets to "
            f"`{lost[0]}` ({len(lost)} are so). Take `round`, which looks at no text, or other rows."
        )
    return found


def sharing(names: Sequence[str], seen: Mapping[str, Record]) -> list[list[str]]:
    """The names, those that share their inputs' record together."""
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(id(seen[name]), []).append(name)
    return list(groups.values())


def bias_of(trunk: nn.Module, name: str) -> Tensor | None:
    """(O,) the bias of a plain linear layer, where it has one."""
    bias = getattr(trunk.get_submodule(name), "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


def error_of(change_OI: Tensor, outer_II: Tensor) -> float:
    """||D X||^2 of a change D of a weight, by the sum of x x' of its inputs."""
    change = change_OI.to(outer_II.dtype)
    return float(((change @ outer_II) * change).sum())


def _seeing(name: str, see: See) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        see(name, given[0])

    return look


def _stop(module: nn.Module, given: Any) -> None:
    raise _EnoughError


def _layers(trunk: nn.Module) -> Iterator[nn.Module]:
    for stack in stacks_of(trunk):
        yield from stack


def _above(trunk: nn.Module, names: Sequence[str]) -> nn.Module | None:
    """The layer that follows those which hold these linear layers; None after the last."""
    layers, inside = list(_layers(trunk)), {id(trunk.get_submodule(name)) for name in names}
    last = max(i for i, layer in enumerate(layers) if inside & {id(m) for m in layer.modules()})
    return layers[last + 1] if last + 1 < len(layers) else None
