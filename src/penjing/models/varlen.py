"""Packed attention by torch's variable-length kernel (flash attention), on CUDA in bf16 and fp16.

It knows no dropout. Whether it does here what it should is tried once a device and type, against attention
written out; where it does not, or is not there, `packing` attends in groups.

Legend: T tokens, H heads of queries, K heads of keys, d width of a head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

TRIED = (5, 9, 3)  # lengths of the trial's sequences
WINDOW = 4


def fits(query: Tensor, dropout: float) -> bool:
    """True when the kernel can take queries (…, d) like these, and was found to work."""
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and not dropout
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and _works(query.device, query.dtype)
    )


def attend_whole(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: tuple[int, ...],
    *,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """q (T, H, d), k and v (T, K, d) -> (T, H, d), each sequence for itself.

    `window` w keeps keys j with |i - j| < w, as in `packing.attend`.
    """
    from torch.nn.attention.varlen import varlen_attn

    kernel: Any = varlen_attn
    ends, longest = _ends(lengths, str(q.device)), max(lengths)
    side = -1 if window is None else window - 1
    return kernel(  # type: ignore[no-any-return]
        q,
        k,
        v,
        ends,
        ends,
        longest,
        longest,
        scale=scale,
        window_size=(side, 0 if causal else side),
        enable_gqa=q.shape[1] != k.shape[1],
    )


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _ends(lengths: tuple[int, ...], device: str) -> Tensor:
    """(S + 1,) int32: 0 and the end of each sequence."""
    return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)


@lru_cache(maxsize=16)
def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Try outputs and gradients, causal or not, windowed or not, with fewer heads of keys."""
    cases = [(causal, window) for causal in (False, True) for window in (None, WINDOW)]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return all(_gap(device, dtype, causal, window) < 0.02 for causal, window in cases)
    except (ImportError, TypeError, ValueError, RuntimeError, NotImplementedError):
        return False


def _gap(device: torch.device, dtype: torch.dtype, causal: bool, window: int | None) -> float:
    """Largest relative difference of outputs and gradients to attention written out in fp32."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(sum(TRIED), heads, 16, generator=generator).to(dtype) for heads in (4, 2, 2, 4)]
    found: list[list[Tensor]] = []
    for whole in (True, False):
        q, k, v, seed = (x.to(device).requires_grad_() for x in made)
        way = attend_whole if whole else _written_out
        out = way(q, k, v, TRIED, scale=0.25, causal=causal, window=window)
        gradients = torch.autograd.grad(out, (q, k, v), seed.to(out.dtype))
        found.append([x.detach().float() for x in (out, *gradients)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


def _written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: tuple[int, ...],
    *,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """softmax(scale q k') v over all tokens in fp32, other sequences and unseen keys left out."""
    q, k, v = (x.float() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    own = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(q.device)
    place = torch.arange(len(own), device=q.device)
    gap = place[:, None] - place[None, :]  # query minus key
    seen = own[:, None] == own[None, :]
    seen = seen & (gap >= 0) if causal else seen
    seen = seen & (gap.abs() < window) if window is not None else seen
    scores = torch.einsum("ihd,jhd->hij", q, k) * scale
    return torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)
