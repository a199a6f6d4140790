"""Packed execution: sequences lie end to end in one row, and padding exists only inside attention.

transformers hands every attention call to a registered function together with the caller's extra keyword
arguments, so one function and one mask function make a base run packed. Whether a base really does is found
out by a self-check against its padded run (`how_to_run`), never by a list of names; a base that does not is
padded, and nothing else changes.

Legend: S sequences, T tokens, H heads, L longest of a group, d width of a head, D width of the base.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.attention import DroppedAttention, places, standing

NAME = "penjing_packed"
NATIVE = "sdpa"
LIKE = 1.25  # sequences of one attention group differ in length at most by this factor


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
        return max(self.lengths)


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


def layout_of(lengths: Sequence[int], device: torch.device | str = "cpu") -> Layout:
    """The layout of sequences of these lengths; neighbours of like length share an attention group."""
    return _layout(tuple(int(n) for n in lengths), str(device))


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # kept layouts serve scoring and training alike
def _layout(lengths: tuple[int, ...], device: str) -> Layout:
    positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
    groups: list[Group] = []
    begin, at = 0, 0
    while begin < len(lengths):
        end, low, high = begin + 1, lengths[begin], lengths[begin]
        while end < len(lengths):
            low, high = min(low, lengths[end]), max(high, lengths[end])
            if high > LIKE * low + 2:
                break
            end += 1
        groups.append(_group(lengths[begin:end], at, device))
        at, begin = groups[-1].last, end
    return Layout(lengths, positions, tuple(groups))


def _group(lengths: tuple[int, ...], first: int, device: str) -> Group:
    last = first + sum(lengths)
    if len(set(lengths)) == 1:
        return Group(first, last, lengths, None, None, None)
    into, back, _ = (index.to(device) for index in places(lengths, 1))
    return Group(first, last, lengths, into, back, standing(lengths)[:, None, None, :].to(device))


class _Regroup(torch.autograd.Function):
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


class _Return(torch.autograd.Function):
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


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention over packed sequences, called by transformers: (1, H, T, d) -> (1, T, H, d).

    `sliding_window` w keeps keys j with |i - j| < w (transformers' meaning, causal or not).
    """
    if layout is None:
        raise RuntimeError(
            "packed attention was reached without a layout; bases are run through models.packing.run"
        )
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts = [
        _attend_group(g, query, key, value, scale, dropout, causal, sliding_window) for g in layout.groups
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)  # (T, H, d)
    return out[None], None


def _attend_group(
    group: Group,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    dropout: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """One group's part of `attend`: its (tokens, H, d)."""
    pattern = _pattern(group.longest, causal, window, q.device)
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    heads, width = q.shape[1], q.shape[3]
    rows = [x[0].transpose(0, 1)[group.first : group.last].reshape(-1, heads * width) for x in (q, k, v)]
    if dropout and q.device.type == "cpu":
        hidden = _hidden(group, pattern)
        out = DroppedAttention.apply(*rows, group.lengths, heads, scale, dropout, hidden)
        return out.view(-1, heads, width)  # type: ignore[no-any-return]
    q, k, v = (_spread(x, group, heads) for x in rows)  # (n, H, L, d)
    visible = group.visible
    plain = causal and visible is None and (window is None or group.longest <= window)
    if pattern is not None and not plain:
        visible = pattern if visible is None else visible & pattern
        if window is not None:  # an empty place must see something, or softmax gives NaN
            visible = visible | torch.eye(group.longest, dtype=torch.bool, device=q.device)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=None if plain else visible, dropout_p=dropout, is_causal=plain, scale=scale
    )
    flat = out.transpose(1, 2).reshape(-1, heads * width)
    if group.back is not None:
        flat = _Return.apply(flat, group.back)
    return flat.view(-1, heads, width)


def _pattern(longest: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """(L, L) True where a query (first axis) sees a key, by causality and window alone; None: all see all."""
    windowed = window is not None and longest > window
    if not causal and not windowed:
        return None
    place = torch.arange(longest, device=device)
    gap = place[:, None] - place[None, :]  # query minus key
    pattern = gap >= 0 if causal else torch.ones_like(gap, dtype=torch.bool)
    return pattern & (gap.abs() < window) if windowed and window is not None else pattern


def _hidden(group: Group, pattern: Tensor | None) -> Tensor | None:
    """What a query does not see, keys first: broadcastable to (n, H, keys, queries)."""
    hidden = None if group.visible is None else ~group.visible.transpose(-1, -2)
    if pattern is not None:
        hidden = ~pattern.T if hidden is None else hidden | ~pattern.T
    return hidden


def _spread(rows: Tensor, group: Group, heads: int) -> Tensor:
    """(tokens, H * d) -> this group's (n, H, L, d)."""
    if group.into is not None:
        rows = _Regroup.apply(rows, group.into, group.back)
    return rows.view(group.n, group.longest, heads, -1).transpose(1, 2)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The layout says who sees whom; transformers need not build a mask."""


def register() -> None:
    """Make `penjing_packed` known to transformers."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _no_mask)


@dataclass(frozen=True)
class Way:
    """How a base is run: packed, with positions beginning at `offset`, or padded (and why)."""

    packed: bool
    offset: int = 0
    reason: str = ""


def run(
    trunk: nn.Module, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
) -> Tensor:
    """Last hidden states of packed sequences: ids (T,), lengths (S,) -> (T, D)."""
    extra: dict[str, Any] = {}
    kind: Any = type(_inner(trunk))
    accepted = _accepted(kind)
    if "use_cache" in accepted:
        extra["use_cache"] = False
    if way.packed:
        layout = layout_of(lengths, ids.device)
        if segments is not None and "token_type_ids" in accepted:
            extra["token_type_ids"] = segments[None]
        out = trunk(
            input_ids=ids[None], position_ids=layout.positions[None] + way.offset, layout=layout, **extra
        )
        return out.last_hidden_state[0]  # type: ignore[no-any-return]
    longest = max(int(n) for n in lengths)
    size = torch.as_tensor(lengths, device=ids.device)
    mask = torch.arange(longest, device=ids.device)[None, :] < size[:, None]  # (S, L)
    padded = ids.new_full(mask.shape, _pad_id(trunk))
    padded[mask] = ids
    if segments is not None and "token_type_ids" in accepted:
        types = segments.new_zeros(mask.shape)
        types[mask] = segments
        extra["token_type_ids"] = types
    out = trunk(input_ids=padded, attention_mask=mask.long(), **extra).last_hidden_state  # (S, L, D)
    back = mask.flatten().nonzero().flatten()
    return _Return.apply(out.reshape(-1, out.shape[-1]), back)  # type: ignore[no-any-return]


def how_to_run(trunk: nn.Module, *, tolerance: float = 1e-4) -> Way:
    """Try a tiny batch packed and padded, and say which way this base can be run. Leaves it set for that way.

    The trial covers unequal lengths and, where the base attends within a window, a sequence longer than the
    window.
    """
    config: Any = trunk.config
    longest = int(getattr(config, "max_position_embeddings", 0) or 512)
    window = getattr(config, "sliding_window", None) or getattr(config, "local_attention", None)
    long = min(int(window) + 9, longest - 2) if window and window < 600 else 9
    lengths = [min(n, longest - 2) for n in (5, 3, 7, max(long, 4))]
    generator = torch.Generator().manual_seed(0)
    low = min(10, config.vocab_size - 1)
    special = {getattr(config, f"{k}_token_id", None) for k in ("pad", "bos", "eos", "cls", "sep", "mask")}
    allowed = torch.tensor([i for i in range(low, min(config.vocab_size, 5000)) if i not in special] or [low])
    ids = allowed[torch.randint(len(allowed), (sum(lengths),), generator=generator)].to(_device(trunk))
    training = trunk.training
    trunk.eval()
    _native(trunk)
    try:
        with torch.no_grad():
            wanted = run(trunk, Way(False), ids, lengths)
            try:
                trunk.set_attn_implementation(NAME)  # type: ignore[operator]
                kind: Any = type(trunk)
                if "position_ids" not in _accepted(kind):
                    raise TypeError("it takes no position_ids")
                pad = getattr(config, "pad_token_id", None)
                gap = float("inf")
                for offset in dict.fromkeys([0, int(pad if pad is not None else -1) + 1]):
                    gap = float(
                        (run(trunk, Way(True, offset), ids, lengths) - wanted).abs().max()
                        / wanted.abs().max()
                    )
                    if gap < tolerance:
                        return Way(True, offset)
                reason = f"packed and padded outputs differ by {gap:.1e}"
            except (
                TypeError,
                ValueError,
                RuntimeError,
                IndexError,
                AttributeError,
                NotImplementedError,
            ) as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        trunk.train(training)
    _native(trunk)
    return Way(False, 0, reason)


def _native(trunk: Any) -> None:
    """Set transformers' own attention."""
    trunk.set_attn_implementation(NATIVE if getattr(trunk, "_supports_sdpa", False) else "eager")


def _inner(trunk: nn.Module) -> nn.Module:
    """The transformers model below a peft wrapper."""
    base = getattr(trunk, "base_model", None)
    return getattr(base, "model", trunk) if hasattr(trunk, "peft_config") else trunk


@lru_cache(maxsize=64)
def _accepted(kind: Any) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def _pad_id(trunk: nn.Module) -> int:
    pad = getattr(trunk.config, "pad_token_id", None)
    return int(pad) if isinstance(pad, int) and pad >= 0 else 0


def _device(trunk: nn.Module) -> torch.device:
    return next(trunk.parameters()).device
