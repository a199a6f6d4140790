"""Layers that serve several models in one forward pass: each token meets the adapter and the random numbers
of the model it belongs to (batched LoRA: Punica 2310.18547, S-LoRA 2311.03285; trained: mLoRA 2312.02515).

Legend: N members present in the pass, T tokens of all, L tokens of the member that has most, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.errors import NotSupported
from penjing.models.adapters import Stack, plain_weight
from penjing.models.dropout import Stream, drop, drops
from penjing.models.layout import layout_of
from penjing.records import Batch


@dataclass(frozen=True)
class Seats:
    """Where the tokens of each member's batch stand in the pass.

    All sequences are sorted by length, so that attention can group like lengths across members. A member's
    own order is that of its batch.
    """

    members: tuple[int, ...]  # rows of the stack, (N,)
    counts: tuple[int, ...]  # tokens of each
    lengths: tuple[tuple[int, ...], ...]  # of each member's sequences, in its own order
    order: tuple[int, ...]  # (S,) which sequence, counted member after member, stands at each place
    origin: Tensor  # (T,) for each place in the pass: which token, counted member after member
    place: Tensor  # (T,) the way back: where each token, counted member after member, stands
    into: Tensor  # (N * L,) place in the pass that fills each seat; spare seats repeat the member's first
    seat: Tensor  # (T,) the seat of each place in the pass
    everyone: bool  # members are all rows of the stack, in their order

    @property
    def longest(self) -> int:
        """Tokens of the member that has most."""
        return max(self.counts)


def seats_of(batches: Sequence[Batch], members: Sequence[int], n_rows: int) -> Seats:
    """Seats for one pass over the batches of these members of a stack of `n_rows`."""
    lengths = [tuple(b.lengths.tolist()) for b in batches]
    each = np.concatenate([np.asarray(n, dtype=np.int64) for n in lengths])
    order = np.argsort(-each, kind="stable")
    ends = each[order].cumsum()
    begins = (each.cumsum() - each)[order]
    origin = np.arange(ends[-1]) + np.repeat(begins - (ends - each[order]), each[order])
    place = np.empty_like(origin)
    place[origin] = np.arange(len(origin))
    counts = np.array([sum(n) for n in lengths])
    starts, longest = counts.cumsum() - counts, counts.max()
    inside = np.arange(longest)[None, :] < counts[:, None]  # (N, L)
    into = np.repeat(starts[:, None], longest, 1)
    into[inside] = np.arange(len(origin))
    seat = np.flatnonzero(inside.ravel())[origin]
    device = batches[0].ids.device
    indices = [torch.from_numpy(x).to(device) for x in (origin, place, place[into.ravel()], seat)]
    return Seats(
        members=tuple(members),
        counts=tuple(int(n) for n in counts),
        lengths=tuple(lengths),
        order=tuple(int(i) for i in order),
        origin=indices[0],
        place=indices[1],
        into=indices[2],
        seat=indices[3],
        everyone=tuple(members) == tuple(range(n_rows)),
    )


@dataclass(frozen=True)
class Pass:
    """What grouped layers need to know while a pass runs; `streams` only where dropout is on."""

    seats: Seats
    stack: Stack
    streams: Sequence[Stream] | None = None

    def factor(self, width: int, rates: Sequence[float], dtype: torch.dtype) -> Tensor | None:
        """(T, width) what dropout multiplies with, member after member; None when nothing is dropped."""
        if self.streams is None or not any(drops(p) for p in rates):
            return None
        parts = [
            stream.factor((count, width), p, dtype)
            if drops(p)
            else torch.ones(count, width, dtype=dtype, device=stream.device)
            for stream, count, p in zip(self.streams, self.seats.counts, rates, strict=True)
        ]
        return torch.cat(parts)

    def attention_factors(self, heads: int, p: float, dtype: torch.dtype) -> list[Tensor]:
        """`factors` of `packing.attend` for groups of one length: drawn member by member over its own groups,
        then set together.
        """
        assert self.streams is not None
        blocks: list[Tensor] = []  # of each sequence, member after member: (H, L, L)
        for stream, lengths in zip(self.streams, self.seats.lengths, strict=True):
            for own in layout_of(lengths).groups:
                shape = (own.n * heads, own.longest, own.longest)
                blocks.extend(stream.factor(shape, p, dtype).view(own.n, heads, *shape[1:]))
        every = [n for own in self.seats.lengths for n in own]
        found, at = [], 0
        for group in layout_of([every[i] for i in self.seats.order], exact=True).groups:
            n, members = group.longest, self.seats.order[at : at + group.n]
            found.append(torch.cat([blocks[i][:, :n, :n] for i in members]))
            at += group.n
        return found


Now = Callable[[], Pass]


class GroupedDropout(nn.Module):
    """Dropout whose factors come from the stream of the member that a token belongs to."""

    def __init__(self, p: float, now: Now) -> None:
        super().__init__()
        self.p, self._now = p, now

    def forward(self, x: Tensor) -> Tensor:
        """(T, D), or the same with leading ones."""
        here = self._now()
        if not self.training or here.streams is None or not drops(self.p):
            return x
        width = _width(x, here)
        factor = here.factor(width, [self.p] * len(here.seats.counts), x.dtype)
        assert factor is not None
        return drop(x, factor.index_select(0, here.seats.origin).view(x.shape))


class GroupedLinear(nn.Module):
    """A frozen linear layer, plus for each token the low-rank product of the member it belongs to."""

    def __init__(self, base_layer: nn.Module, name: str, now: Now) -> None:
        super().__init__()
        self.base_layer, self.name, self._now = base_layer, name, now

    def forward(self, x: Tensor) -> Tensor:
        """(T, d_in), or the same with leading ones -> (..., d_out)."""
        here, base = self._now(), self.base_layer
        if self.name not in here.stack.down:  # nobody adapts it now
            return base(x)  # type: ignore[no-any-return]
        rows = x.reshape(-1, _width(x, here))
        out = _LowRank.apply(rows, here.stack.anchor, base, here, self.name, self.training)
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def _width(x: Tensor, here: Pass) -> int:
    """The last dimension of a layer's input, of which there must be one row a token."""
    n_tokens = len(here.seats.origin)
    if x.numel() != n_tokens * x.shape[-1]:
        raise NotSupported(
            f"A layer shared by several trials wants one row a token ({n_tokens}); this base gives it "
            f"{tuple(x.shape)}. Run the trials one after another."
        )
    return x.shape[-1]


class _LowRank(torch.autograd.Function):
    """The frozen layer's W x + b and, seat by seat, scale up down x; gradients of up and down go into the
    stack. `anchor` needs a gradient so that there is a backward even where x needs none.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, base: Any, here: Pass, name: str, training: bool
    ) -> Tensor:
        seats, stack = here.seats, here.stack
        down, up, scale = (_present(s[name], seats) for s in (stack.down, stack.up, stack.scales))
        rates = [stack.dropouts[name][m] for m in seats.members]
        factor = here.factor(x.shape[1], rates, x.dtype) if training else None
        if factor is not None:
            factor = factor.index_select(0, seats.origin)  # in the order of the pass
        low = torch.bmm(_seated(x, factor, seats), down.transpose(1, 2)).mul_(scale)  # (N, L, r)
        wide = torch.bmm(low, up).view(-1, up.shape[2])
        ctx.save_for_backward(x, low, factor)
        ctx.here, ctx.name, ctx.weight = here, name, plain_weight(base)
        return F.linear(x, ctx.weight, base.bias).add_(wide.index_select(0, seats.seat))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, factor = ctx.saved_tensors
        seats, stack, name = ctx.here.seats, ctx.here.stack, ctx.name
        down, up, scale = (_present(s[name], seats) for s in (stack.down, stack.up, stack.scales))
        seated = grad.new_zeros(len(seats.into), grad.shape[1]).index_copy_(0, seats.seat, grad)
        seated = seated.view(len(seats.members), seats.longest, -1)  # zero where a seat is spare
        low_grad = torch.bmm(seated, up.transpose(1, 2)).mul_(scale)
        _add(stack.up_grads[name], torch.bmm(low.transpose(1, 2), seated), seats)
        own = _seated(x, factor, seats)
        _add(stack.down_grads[name], torch.bmm(low_grad.transpose(1, 2), own), seats)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = torch.bmm(low_grad, down).view(-1, down.shape[2]).index_select(0, seats.seat)
            if factor is not None:
                x_grad.mul_(factor)
            x_grad.addmm_(grad, ctx.weight)
        return x_grad, None, None, None, None, None


def _present(rows: Tensor, seats: Seats) -> Tensor:
    """The rows of a stack that sit in this pass."""
    return rows if seats.everyone else rows[list(seats.members)]


def _seated(x: Tensor, factor: Tensor | None, seats: Seats) -> Tensor:
    """(T, d) -> (N, L, d)."""
    rows = x if factor is None else x * factor
    return rows.index_select(0, seats.into).view(len(seats.members), seats.longest, -1)


def _add(rows: Tensor, found: Tensor, seats: Seats) -> None:
    if seats.everyone:
        rows.add_(found)
    else:
        rows.index_add_(0, torch.tensor(seats.members, device=rows.device), found.to(rows.dtype))
