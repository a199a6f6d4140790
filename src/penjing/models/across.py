"""Attention from packed answers to their packed sources.

Sequence i of the one row sees all of sequence i of the other. Neighbours that are of like length on both
sides share a group, and padding exists only inside it.

Legend: T tokens of sources, U tokens of answers, H heads, d width of a head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.models.layout import LIKE, Group, Return, by_group, group_of, spread


def attend_across(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    answers: tuple[int, ...],
    sources: tuple[int, ...],
    *,
    scale: float,
    dropout: float,
) -> Tensor:
    """(1, H, U, d) over (1, H, T, d) -> (1, U, H, d); the lengths are those of answers and sources."""
    parts = []
    pairs = pairs_of(answers, sources, str(query.device))
    own = by_group(query, [asking for asking, _ in pairs])
    theirs = [by_group(x, [asked for _, asked in pairs]) for x in (key, value)]
    for (asking, asked), q, k, v in zip(pairs, own, *theirs, strict=True):
        q, k, v = spread(q, asking), spread(k, asked), spread(v, asked)  # (n, H, L, d)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=asked.visible, dropout_p=dropout, scale=scale
        ).transpose(1, 2)
        flat = out.reshape(asking.n * asking.longest, -1)
        parts.append(flat if asking.back is None else Return.apply(flat, asking.back))
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.view(1, query.shape[2], query.shape[1], value.shape[3])


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # kept groups serve scoring and training alike
def pairs_of(
    answers: tuple[int, ...], sources: tuple[int, ...], device: str
) -> tuple[tuple[Group, Group], ...]:
    """Neighbours of like length on both sides: a group of answers and that of their sources, in turn."""
    pairs: list[tuple[Group, Group]] = []
    begin, at, from_at = 0, 0, 0
    while begin < len(answers):
        end = begin + 1
        while end < len(answers) and _alike(answers[begin : end + 1]) and _alike(sources[begin : end + 1]):
            end += 1
        pair = group_of(answers[begin:end], at, device), group_of(sources[begin:end], from_at, device)
        pairs.append(pair)
        begin, at, from_at = end, pair[0].last, pair[1].last
    return tuple(pairs)


def _alike(lengths: tuple[int, ...]) -> bool:
    return max(lengths) <= LIKE * min(lengths) + 2
