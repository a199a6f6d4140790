"""Packed execution: sequences lie end to end in one row, and padding exists only inside attention.

transformers hands every attention call to a registered function together with the caller's extra keyword
arguments, so one function and one mask function make a base run packed. Whether a base really does is found
out by a self-check against its padded run (`how_to_run`), never by a list of names; a base that does not is
padded, and nothing else changes.

Legend: S sequences, T tokens, H heads, L longest of a group, d width of a head, D width of the base.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.errors import NotSupported
from penjing.models import varlen
from penjing.models.across import attend_across
from penjing.models.attention import DroppedAttention
from penjing.models.layout import Group, Layout, Return, by_group, layout_of, returned, spread
from penjing.models.modes import FAILURES, evaluating
from penjing.models.sight import Sight

NAME = "penjing_packed"
NATIVE = "sdpa"
# What some families ask of attention beside: scores that are capped (Gemma 2), a sink in each sum (gpt-oss).
# With small weights hardly a number shows that it was not done.
MORE = ("softcap", "s_aux")
Factors = Callable[[int, float, torch.dtype], list[Tensor]]


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
    instead: Callable[..., Tensor] | None = None,
    factors: Factors | None = None,
    source: Layout | None = None,
    reached: list[str] | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention over packed sequences, called by transformers: (1, H, T, d) -> (1, T, H, d).

    `sliding_window` w keeps keys j with |i - j| < w (transformers' meaning, causal or not). `instead` gives
    the result (T, H, d) in another way, such as with keys that a method learned. `factors(heads, p, dtype)`
    draws what dropout multiplies with in one call: for each group (n * H, longest, longest), keys before
    queries. `source` is the layout of what a decoder answers to: attention that may look ahead goes there.
    `reached` is told of the call.
    """
    if layout is None:
        raise RuntimeError(
            "packed attention was reached without a layout; bases are run through models.packing.run"
        )
    for name in MORE:
        if more.get(name) is not None:
            raise RuntimeError(f"its attention asks for `{name}`, which packed attention does not have")
    if reached is not None:
        reached.append(type(module).__name__)
    told = module.__dict__.get("told")  # somebody who wants to see what attention is given
    if told is not None:
        told(query, key, value)
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if source is not None and not causal:
        sides = layout.lengths, source.lengths
        return attend_across(query, key, value, *sides, scale=scale, dropout=dropout), None
    if instead is not None:
        return instead(module, query, key, value, layout, scale, dropout, causal, sliding_window)[None], None
    if varlen.fits(query, dropout):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        window = sliding_window
        whole = varlen.attend_whole(q, k, v, layout.lengths, scale=scale, causal=causal, window=window)
        return whole[None], None
    heads, width = query.shape[1], query.shape[3]
    if key.shape[1] != heads:
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    groups = layout.groups if dropout or query.device.type != "cpu" else layout.aligned
    drawn: list[Tensor | None] = [None] * len(groups)
    if dropout and factors is not None:
        drawn = [*factors(heads, dropout, query.dtype)]
    asks, keys, values = (by_group(x, groups) for x in (query, key, value))
    parts = [
        _attend_group(g, own, scale, dropout, causal, sliding_window, factor).view(-1, heads, width)
        for g, *own, factor in zip(groups, asks, keys, values, drawn, strict=True)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)  # (T, H, d)
    return out[None], None


def _attend_group(
    group: Group,
    own: list[Tensor],
    scale: float,
    dropout: float,
    causal: bool,
    window: int | None,
    factor: Tensor | None,
) -> Tensor:
    """One group's part of `attend`: its own queries, keys and values (tokens, H, d) -> (tokens, H * d)."""
    q, k, v = own
    heads, width = q.shape[1:]
    if dropout and (q.device.type == "cpu" or factor is not None):
        rows = [x.reshape(-1, heads * width) for x in own]
        hidden = _hidden(group, pattern_of(group.longest, causal, window, q.device))
        dropped: Tensor = DroppedAttention.apply(*rows, group.lengths, heads, scale, dropout, hidden, factor)
        return dropped
    q, k, v = (spread(x, group) for x in own)  # (n, H, L, d)
    visible = group.visible
    # Empty places are the last: who looks back only sees none of them.
    plain = causal and (window is None or group.longest <= window)
    pattern = None if plain else pattern_of(group.longest, causal, window, q.device)
    if pattern is not None:
        visible = pattern if visible is None else visible & pattern
        if window is not None:  # an empty place must see something, or softmax gives NaN
            visible = visible | torch.eye(group.longest, dtype=torch.bool, device=q.device)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=None if plain else visible, dropout_p=dropout, is_causal=plain, scale=scale
    )
    flat = out.transpose(1, 2).reshape(-1, heads * width)
    if group.back is not None:
        flat = returned(flat, group.back)
    return flat


@lru_cache(maxsize=8)  # every layer of a step asks for the same
@torch.inference_mode(False)  # kept patterns serve scoring and training alike
def pattern_of(longest: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
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
    """How a base is run: packed, with positions beginning at `offset`, or padded (and why); or on images,
    which have one size and need neither.
    """

    packed: bool
    offset: int = 0
    reason: str = ""
    sight: Sight | None = None


def run(
    trunk: nn.Module, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
) -> Tensor:
    """Last hidden states of packed sequences: ids (T,), or images (S, C, H, W), lengths (S,) -> (T, D).

    A module that a method has put around the trunk (`trunk.added`: virtual tokens, a prefix, a side network)
    does it in its own way, by `forward`.
    """
    added: Any = getattr(trunk, "added", None)
    if added is not None:
        return added.run(trunk, way, ids, lengths, segments)  # type: ignore[no-any-return]
    return forward(trunk, way, ids, lengths, segments)


@contextlib.contextmanager
def alone(trunk: Any) -> Iterator[None]:
    """Inside, the trunk is run without the module that a method has put around it."""
    added = getattr(trunk, "added", None)
    if added is not None:
        trunk.added = None
    try:
        yield
    finally:
        if added is not None:
            trunk.added = added


def forward(
    trunk: nn.Module,
    way: Way,
    ids: Tensor,
    lengths: Sequence[int],
    segments: Tensor | None = None,
    *,
    shift: int = 0,
    instead: Callable[..., Tensor] | None = None,
    factors: Factors | None = None,
    exact: bool = False,
) -> Tensor:
    """`run` by the trunk alone. `ids` are ids (T,), what stands for them at the input, (T, E), or images.

    `shift`: where positions begin; `instead` and `factors` go to `attend`; `exact` is as in `layout_of`; all
    for packed bases only.
    """
    given = {"instead": instead, "factors": factors}
    more = {name: value for name, value in given.items() if value is not None}
    out, flat = _called(trunk, way, ids, lengths, segments, shift, more, exact=exact)
    return flat(out.last_hidden_state)


def layer_states(
    trunk: nn.Module, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
) -> list[Tensor]:
    """States below the first layer and above each one, by the trunk alone: (T, D) each."""
    out, flat = _called(trunk, way, ids, lengths, segments, 0, {"output_hidden_states": True})
    return [flat(states) for states in (*out.hidden_states[:-1], out.last_hidden_state)]


def _called(
    trunk: nn.Module,
    way: Way,
    ids: Tensor,
    lengths: Sequence[int],
    segments: Tensor | None,
    shift: int,
    extra: dict[str, Any],
    *,
    exact: bool = False,
) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """What transformers gives, and the function that lays its states end to end: (T, D)."""
    if way.sight is not None:
        out = trunk(pixel_values=way.sight.normal(ids), **extra)
        return out, lambda states: states.reshape(-1, states.shape[-1])
    kind: Any = type(_inner(trunk))
    name = "inputs_embeds" if ids.is_floating_point() else "input_ids"
    accepted = _accepted(kind)
    if "use_cache" in accepted:
        extra["use_cache"] = False
    if way.packed:
        layout = layout_of(lengths, ids.device, exact=exact)
        if segments is not None and "token_type_ids" in accepted:
            extra["token_type_ids"] = segments[None]
        positions = layout.positions[None] + (way.offset + shift)
        out = trunk(**{name: ids[None]}, position_ids=positions, layout=layout, **extra)
        return out, lambda states: states.squeeze(0)
    longest = max(int(n) for n in lengths)
    size = torch.as_tensor(lengths, device=ids.device)
    mask = torch.arange(longest, device=ids.device)[None, :] < size[:, None]  # (S, L)
    padded = ids.new_full((*mask.shape, *ids.shape[1:]), pad_of(trunk))
    padded[mask] = ids
    if segments is not None and "token_type_ids" in accepted:
        types = segments.new_zeros(mask.shape)
        types[mask] = segments
        extra["token_type_ids"] = types
    out = trunk(**{name: padded}, attention_mask=mask.long(), **extra)
    back = mask.flatten().nonzero().flatten()
    return out, lambda states: Return.apply(states.reshape(-1, states.shape[-1]), back)


def why(error: BaseException) -> str:
    """A trial's failure in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def how_to_run(trunk: nn.Module, *, tolerance: float = 1e-4) -> Way:
    """Try a tiny batch packed and padded, and say which way this base can be run. Leaves it set for that way.

    The trial covers unequal lengths and, where the base attends within a window, a sequence longer than the
    window.

    Raises:
        NotSupported: it does not even run padded.
    """
    config: Any = trunk.config
    longest = int(getattr(config, "max_position_embeddings", 0) or 512)
    longest = longest if longest > 0 else 512  # XLNet says -1 for any number
    window = getattr(config, "sliding_window", None) or getattr(config, "local_attention", None)
    long = min(int(window) + 9, longest - 2) if window and window < 600 else 9
    lengths = [min(n, longest - 2) for n in (5, 3, 7, max(long, 4))]
    generator = torch.Generator().manual_seed(0)
    low = min(10, config.vocab_size - 1)
    special = {getattr(config, f"{k}_token_id", None) for k in ("pad", "bos", "eos", "cls", "sep", "mask")}
    allowed = torch.tensor([i for i in range(low, min(config.vocab_size, 5000)) if i not in special] or [low])
    ids = allowed[torch.randint(len(allowed), (sum(lengths),), generator=generator)].to(_device(trunk))
    native(trunk)
    with evaluating(trunk), torch.no_grad():
        try:
            wanted = run(trunk, Way(False), ids, lengths)
        except FAILURES as error:
            raise unrun(trunk, error) from error
        try:
            trunk.set_attn_implementation(NAME)  # type: ignore[operator]
            kind: Any = type(trunk)
            if "position_ids" not in _accepted(kind):
                raise TypeError("it takes no position_ids")
            pad = getattr(config, "pad_token_id", None)
            reason = ""
            for offset in dict.fromkeys([0, int(pad if pad is not None else -1) + 1]):
                reached: list[str] = []
                out, flat = _called(trunk, Way(True, offset), ids, lengths, None, 0, {"reached": reached})
                found = flat(out.last_hidden_state)
                reason = not_ours(found, wanted, tolerance, len(reached), int(config.num_hidden_layers))
                if not reason:
                    return Way(True, offset)
        except FAILURES as error:
            reason = why(error)
    native(trunk)
    return Way(False, 0, reason)


def unrun(trunk: nn.Module, error: BaseException) -> NotSupported:
    """What to say of a base that does not even run padded."""
    return NotSupported(
        f"A base that answers token ids was wanted; {type(trunk).__name__} from "
        f"{getattr(trunk.config, 'name_or_path', '') or 'its config'} ended on four short sequences: "
        f"{why(error)}. Its config.json may not be that of its weights, or the family wants more "
        "than ids: take another base."
    )


def not_ours(found: Tensor, wanted: Tensor, tolerance: float, calls: int, least: int) -> str:
    """Why a trial's packed states are not to be trusted; empty where they are.

    Equal states are not enough: GPT-Neo's come of transformers' own mask over the whole pack, which the
    square of all tokens pays for, and layers that mix tokens without attention (Lfm2) may hardly show it.
    """
    gap = float((found - wanted).abs().max() / wanted.abs().max())
    if not gap < tolerance:
        return f"packed and padded outputs differ by {gap:.1e}"
    if calls < least:
        return f"packed attention was asked {calls} times, where {least} were due: its own is another"
    return ""


def native(trunk: Any) -> None:
    """Set transformers' own attention."""
    trunk.set_attn_implementation(NATIVE if getattr(trunk, "_supports_sdpa", False) else "eager")


def _inner(trunk: nn.Module) -> nn.Module:
    """The transformers model below a peft wrapper."""
    base = getattr(trunk, "base_model", None)
    return getattr(base, "model", trunk) if hasattr(trunk, "peft_config") else trunk


@lru_cache(maxsize=64)
def _accepted(kind: Any) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def pad_of(trunk: nn.Module) -> int:
    """What fills empty places, which nothing sees: 0 where a config has no padding, or -1 (early LLaMA)."""
    pad = getattr(trunk.config, "pad_token_id", None)
    return int(pad) if isinstance(pad, int) and pad >= 0 else 0


def _device(trunk: nn.Module) -> torch.device:
    return next(trunk.parameters()).device
