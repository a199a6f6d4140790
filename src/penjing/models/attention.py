"""Attention with dropout for training on a CPU, over one group of packed sequences.

torch's fused CPU kernel knows no dropout and falls back to a slow one. Here each direction is a handful of
matrix products over (n * H, L, d) blocks that are gathered from the packed tokens in one pass and returned in
one pass, and softmax runs over the first axis of the transposed scores, which vectorises for short sequences
(8 times as fast as over the last one, backward, at length 16).

Legend: t tokens of the group, n its sequences, L its longest, H heads, d width of a head; B = n * H blocks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from penjing.models.dropout import dropout_factor


def standing(lengths: tuple[int, ...], room: int | None = None) -> Tensor:
    """(n, L) True where a sequence has a token; L is `room`, or what the longest needs."""
    return torch.arange(room or max(lengths))[None, :] < torch.tensor(lengths)[:, None]


@lru_cache(maxsize=512)
@torch.inference_mode(False)
def places(
    lengths: tuple[int, ...], heads: int, device: str = "cpu", room: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where rows of width d go: tokens' (t * H) rows to blocks' (B * L) rows, back again, and the blocks'
    empty rows, which repeat their sequence's first token: what is not finite stays in its sequence.
    """
    here = standing(lengths, room)
    n, longest = here.shape
    size = torch.tensor(lengths)
    token = (size.cumsum(0) - size)[:, None].repeat(1, longest)
    token[here] = torch.arange(sum(lengths))
    head = torch.arange(heads)
    into = (token[:, None, :] * heads + head[None, :, None]).flatten()
    block_row = torch.arange(n * heads * longest).view(n, heads, longest).transpose(1, 2)  # (n, L, H)
    back = block_row[here].flatten()
    empty = block_row[~here].flatten()
    return into.to(device), back.to(device), empty.to(device)


class DroppedAttention(torch.autograd.Function):
    """softmax(scale q k') with dropout p, times v: (t, H * d) rows in and out.

    `factor` (B, keys, queries) is what dropout multiplies with, where the caller has drawn it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: tuple[int, ...],
        heads: int,
        scale: float,
        p: float,
        hidden: Tensor | None,
        factor: Tensor | None = None,
    ) -> Tensor:
        into, back, _ = places(lengths, heads, str(q.device))
        n, longest = len(lengths), max(lengths)
        q_B, k_B, v_B = (_blocks(x, into, n * heads, longest, heads) for x in (q, k, v))
        q_B.mul_(scale)
        weights = torch.bmm(k_B, q_B.transpose(1, 2))  # (B, keys, queries)
        if hidden is not None:
            # added, not filled in: a quarter of the time, and softmax gives the same. Half of the least
            # number there is: in fp16 the whole of it would have no finite sum
            least = weights.new_zeros(hidden.shape).masked_fill_(hidden, torch.finfo(weights.dtype).min / 2)
            weights.view(n, heads, longest, longest).add_(least)
        weights = weights.softmax(1)
        if factor is None:
            factor = dropout_factor(weights.shape, p, weights.dtype)
        out = torch.bmm((weights * factor).transpose(1, 2), v_B)
        ctx.save_for_backward(q_B, k_B, v_B, weights, factor)
        ctx.lengths, ctx.heads, ctx.scale = lengths, heads, scale
        return _rows(out, back, heads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q_B, k_B, v_B, weights, factor = ctx.saved_tensors
        heads = ctx.heads
        into, back, empty = places(ctx.lengths, heads, str(grad.device))
        n, longest = len(ctx.lengths), max(ctx.lengths)
        grad_B = _blocks(grad, into, n * heads, longest, heads)
        if len(empty):
            grad_B.view(-1, grad_B.shape[-1]).index_fill_(0, empty, 0)
        v_grad = torch.bmm(weights * factor, grad_B)
        dropped = torch.bmm(v_B, grad_B.transpose(1, 2)).mul_(factor)  # (B, keys, queries)
        scores = torch._softmax_backward_data(dropped, weights, 1, weights.dtype)
        q_grad = torch.bmm(scores.transpose(1, 2), k_B).mul_(ctx.scale)
        k_grad = torch.bmm(scores, q_B)
        return (*(_rows(x, back, heads) for x in (q_grad, k_grad, v_grad)), *[None] * 6)


def _blocks(x: Tensor, into: Tensor, n_blocks: int, longest: int, heads: int) -> Tensor:
    """(t, H * d) -> (B, L, d), a copy."""
    width = x.shape[1] // heads
    return x.reshape(-1, width).index_select(0, into).view(n_blocks, longest, width)


def _rows(x: Tensor, back: Tensor, heads: int) -> Tensor:
    """(B, L, d) -> (t, H * d), a copy."""
    width = x.shape[2]
    return x.reshape(-1, width).index_select(0, back).view(-1, heads * width)
