"""How sequences lie end to end in one row, and how attention regroups neighbours of like length.

Legend: S sequences, T tokens, L longest of a group, D width of a row, H heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from penjing.models.attention import places, standing

LIKE = 1.25  # sequences of one attention group differ in length at most by this factor
LANES = 16  # floats that an AVX-512 processor computes with at once
PLACES = 256  # of an aligned group: what attention reads and writes stays in a core's cache


@dataclass(frozen=True)
class Group:
    """Neighbouring sequences of like length: tokens `first:last`, seen as (n, longest)."""

    first: int
    last: int
    lengths: tuple[int, ...]
    into: Tensor | None  # (n * longest,) which token fills each place; None when all are equally long
    back: Tensor | None  # (last - first,) which place each token has
    visible: Tensor | None  # (n, 1, 1, longest) True where a token stands

    @property
    def n(self) -> int:
        """Sequences."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths) if self.visible is None else self.visible.shape[-1]


@dataclass(frozen=True)
class Layout:
    """How the sequences of a batch lie, and how attention regroups them."""

    lengths: tuple[int, ...]
    positions: Tensor  # (T,) place within its own sequence
    groups: tuple[Group, ...]

    @property
    def starts(self) -> list[int]:
        """First token of each sequence."""
        starts, at = [], 0
        for n in self.lengths:
            starts.append(at)
            at += n
        return starts

    @cached_property
    def aligned(self) -> tuple[Group, ...]:
        """The groups as torch's attention on a CPU goes over them fastest: empty places follow until
        `longest` divides by `LANES`, and a group that is copied has at most `PLACES` places, or one sequence.

        Keys that do not fill a lane are gone over one by one: rows of 15 took 2.4 µs a token (6.7 with a
        mask) where rows of 16 took .9, rows of 31 took 5.4 where rows of 32 took 1.0. Room that depends on
        the row's own length alone also gives a row the same bits whoever shares its batch.
        """
        device, found, at = str(self.positions.device), list[Group](), 0
        for group in self.groups:
            if group.visible is None and group.longest == _room(group.longest):
                at = group.last
                found.append(group)  # nothing is copied or hidden: in pieces it took up to a third longer
                continue
            most = max(1, PLACES // _room(group.longest))
            for i in range(0, group.n, most):
                own = group.lengths[i : i + most]
                found.append(group_of(own, at, device, room=_room(max(own))))
                at = found[-1].last
        return tuple(found)


def _room(longest: int) -> int:
    return -(-longest // LANES) * LANES


def layout_of(lengths: Sequence[int], device: torch.device | str = "cpu", *, exact: bool = False) -> Layout:
    """The layout of sequences of these lengths; neighbours of like length share an attention group.

    With `exact`, only neighbours of one length do.
    """
    return _layout(tuple(int(n) for n in lengths), str(device), exact)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # kept layouts serve scoring and training alike
def _layout(lengths: tuple[int, ...], device: str, exact: bool) -> Layout:
    positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
    groups: list[Group] = []
    begin, at = 0, 0
    while begin < len(lengths):
        end, low, high = begin + 1, lengths[begin], lengths[begin]
        while end < len(lengths):
            low, high = min(low, lengths[end]), max(high, lengths[end])
            if high > (low if exact else LIKE * low + 2):
                break
            end += 1
        groups.append(group_of(lengths[begin:end], at, device))
        at, begin = groups[-1].last, end
    return Layout(lengths, positions, tuple(groups))


@torch.inference_mode(False)
def group_of(lengths: tuple[int, ...], first: int, device: str, *, room: int | None = None) -> Group:
    """The group of neighbours of these lengths, of which the first begins at token `first`; `room`: places a
    sequence, those of the longest unless told.
    """
    last = first + sum(lengths)
    if set(lengths) == {room or lengths[0]}:
        return Group(first, last, lengths, None, None, None)
    into, back, _ = places(lengths, 1, device, room)
    return Group(first, last, lengths, into, back, standing(lengths, room)[:, None, None, :].to(device))


class Regroup(torch.autograd.Function):
    """Rows picked by an index whose inverse is known: both directions are plain gathers (a scatter is 1.7x
    slower).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, into: Tensor, back: Tensor) -> Tensor:  # (t, D) -> (n * L, D)
        ctx.save_for_backward(back)
        return x.index_select(0, into)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class Return(torch.autograd.Function):
    """The way back: (n * L, D) -> (t, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        ctx.places = x.shape[0]
        return x.index_select(0, back)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        full = grad.new_zeros(ctx.places, grad.shape[1])
        return full.index_copy_(0, ctx.saved_tensors[0], grad), None


def regrouped(x: Tensor, into: Tensor, back: Tensor) -> Tensor:
    """`Regroup`; without a graph a plain gather: what autograd adds takes as long as that of a short row."""
    if x.requires_grad and torch.is_grad_enabled():
        return Regroup.apply(x, into, back)  # type: ignore[no-any-return]
    return x.index_select(0, into)


def returned(x: Tensor, back: Tensor) -> Tensor:
    """`Return`, in the same way."""
    if x.requires_grad and torch.is_grad_enabled():
        return Return.apply(x, back)  # type: ignore[no-any-return]
    return x.index_select(0, back)


def by_group(x: Tensor, groups: Sequence[Group]) -> Sequence[Tensor]:
    """(1, H, T, d) -> each group's (tokens, H, d). Cut at once: slices would each bring gradients of all."""
    whole = x.squeeze(0).transpose(0, 1)
    return [whole] if len(groups) == 1 else whole.split([group.last - group.first for group in groups])


def spread(x: Tensor, group: Group) -> Tensor:
    """(tokens, H, d) -> this group's (n, H, L, d); a view where all its sequences have one length."""
    if group.into is not None and group.back is not None:
        x = regrouped(x.reshape(x.shape[0], -1), group.into, group.back).view(-1, *x.shape[1:])
    return x.view(group.n, group.longest, *x.shape[1:]).transpose(1, 2)
