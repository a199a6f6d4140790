"""Encoders of BERT's build run straight: each layer as a few plain calls.

transformers goes through six modules a layer and a dozen arguments each; on one core that was a tenth of the
time of one row in fp32, and a sixth in int8. Here a layer's linears, norms and activation are called as the
modules they are, so that adapters, other kinds of layers and their hooks work as ever. Int8 queries, keys
and values are one product, of a copy of their codes. Int8 layers go over blocks of tokens: what is read and
written between their quick products counts (128 rows, two threads: 211 ms in place of 238). In fp32 blocks
were slower. Each core has sequences of its own (`cores`).

Which trunks fit is found by where their modules stand, then tried on a small batch against transformers' own
way; a trunk that does not fit, or whose outer modules somebody watches or exchanges, is run by `packing`.

Legend: T tokens, D width, H heads, d width of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models import cores, packing
from penjing.models.abreast import Abreast
from penjing.models.calibrated_int8 import feed_forward, plus
from penjing.models.int8 import watched
from penjing.models.layers import bare, layers_of, path_of
from penjing.models.layout import Layout, layout_of
from penjing.models.modes import FAILURES
from penjing.models.packing import Way

BLOCK = 640  # tokens that an int8 layer goes over at once, or one sequence; fewer make threads wait too often
SAME = 1e-5  # largest relative difference between this way and transformers' own
TRIED = (5, 18, 3, 7)  # lengths of the trial's sequences
# Where attention stands in a layer; then queries, keys, values, output, norm; up, activation, down, norm.
BUILDS = (
    (
        "attention.self",
        *("attention.self.query", "attention.self.key", "attention.self.value"),
        *("attention.output.dense", "attention.output.LayerNorm"),
        *("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense", "output.LayerNorm"),
    ),
    (
        "attention",
        *("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm"),
        *("ffn.lin1", "ffn.activation", "ffn.lin2", "output_layer_norm"),
    ),
)
KEPT = "_penjing_straight"  # in a trunk: the model that was read, and what was found
Place = tuple[dict[str, Any], str]  # where a module stands: its parent's modules, its name among them


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: its attention's module, and where those stand that it is made of."""

    attention: Any
    places: tuple[Place, ...]
    abreast: Abreast

    @property
    def whole_numbers(self) -> bool:
        """Whether its widest linear holds codes of 8 bits."""
        home, name = self.places[5]
        return getattr(getattr(home[name], "weight", None), "dtype", None) is torch.int8

    def over(self, x: Tensor, layout: Layout, *, fused: bool) -> Tensor:
        """States (T, D) of whole sequences -> (T, D). `fused`: static int8 layers of the feed-forward hand on
        codes.
        """
        query, key, value, out, norm, up, activation, down, last = (home[name] for home, name in self.places)
        made = self.abreast.of((query, key, value), x)
        size = x.shape[0], -1, self.attention.attention_head_size
        q, k, v = (own.view(size).transpose(0, 1)[None] for own in made)
        scaling = getattr(self.attention, "scaling", None)
        found, _ = packing.attend(self.attention, q, k, v, None, scaling=scaling, layout=layout)
        x = norm(plus(out, found.reshape(x.shape[0], -1), x))
        return last(feed_forward(up, activation, down, x, fused=fused))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Straight:
    """A trunk that can be run so. `outer`: the modules that are passed over, and where each stands."""

    model: Any
    stack: nn.ModuleList
    layers: tuple[Layer, ...]
    outer: tuple[tuple[Place, nn.Module], ...]
    typed: bool  # whether embeddings take types of tokens

    def stands(self) -> bool:
        """Whether all that is passed over still stands there, unwatched and in evaluation mode."""
        return len(self.stack) == len(self.layers) and all(
            home.get(name) is module and not (watched(module) or module.training)
            for (home, name), module in self.outer
        )

    def states(self, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None) -> Tensor:
        """Last hidden states of packed sequences: ids (T,) -> (T, D); a run of them on each core."""
        if self._kept_in_order():
            return self._states(way, ids, lengths, segments)
        runs = cores.cut(lengths)
        sizes = [sum(run) for run in runs]
        types = [None] * len(runs) if segments is None else segments.split(sizes)
        parts = [*zip(ids.split(sizes), runs, types, strict=True)]
        found = cores.each(lambda part: self._states(way, *part), parts, len(ids))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _states(
        self,
        way: Way,
        ids: Tensor,
        lengths: Sequence[int],
        segments: Tensor | None,
        *,
        fused: bool = True,
    ) -> Tensor:
        layout = layout_of(lengths, ids.device)
        positions = layout.positions[None] + way.offset
        types = {} if segments is None or not self.typed else {"token_type_ids": segments[None]}
        x: Tensor = self.model.embeddings(input_ids=ids[None], position_ids=positions, **types)
        wider = getattr(self.model, "embeddings_project", None)
        x = (x if wider is None else wider(x)).squeeze(0)
        cut = blocks(tuple(lengths)) if any(layer.whole_numbers for layer in self.layers) else (lengths,)
        own = [layout_of(block, ids.device) for block in cut]
        parts: Sequence[Tensor] = x.split([len(one.positions) for one in own])
        for layer in self.layers:
            parts = [layer.over(part, one, fused=fused) for part, one in zip(parts, own, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat([*parts])

    def _kept_in_order(self) -> bool:
        """Whether somebody looks on inside, who wants all tokens at once or keeps something between calls."""
        return any(
            module._forward_hooks or module._forward_pre_hooks or "told" in module.__dict__
            for module in self.model.modules()
        )


def run(
    trunk: nn.Module, way: Way, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
) -> Tensor:
    """`packing.run`, straight where the trunk can be run so: on a CPU, packed, without a graph."""
    plain = way.packed and ids.device.type == "cpu" and not ids.is_floating_point()
    answers = not (torch.is_grad_enabled() or trunk.training or getattr(trunk, "added", None) is not None)
    found = straight(trunk, way) if plain and answers else None
    if found is not None and found.stands():
        return found.states(way, ids, lengths, segments)
    return packing.run(trunk, way, ids, lengths, segments)


def straight(trunk: nn.Module, way: Way) -> Straight | None:
    """How to run a trunk straight; None where it is of another build, or gives other states.

    What was found is kept with the trunk. A twin that took it over is another model, and read anew.
    """
    model = bare(trunk)
    kept: tuple[nn.Module, Straight | None] | None = trunk.__dict__.get(KEPT)
    if kept is not None and kept[0] is model:
        return kept[1]
    found = _read(model)
    if found is not None and (not found.stands() or _watched(model)):
        return None  # for now: looked at again
    found = found if found is not None and _same(found, trunk, way) else None
    trunk.__dict__[KEPT] = model, found
    return found


@lru_cache(maxsize=256)
def blocks(lengths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Lengths of sequences in runs of at most `BLOCK` tokens, or of one sequence."""
    found: list[list[int]] = []
    for n in lengths:
        if found and sum(found[-1]) + n <= BLOCK:
            found[-1].append(n)
        else:
            found.append([n])
    return tuple(tuple(one) for one in found)


def _read(model: nn.Module) -> Straight | None:
    """By where its modules stand; None where they stand otherwise."""
    try:
        stack = layers_of(model)
    except NotSupported:
        return None
    build = next((names for names in BUILDS if all(_has(layer, names) for layer in stack)), None)
    embeddings: Any = getattr(model, "embeddings", None)
    if build is None or not isinstance(embeddings, nn.Module):
        return None
    top = path_of(model).partition(".")[0]
    if {name for name, _ in model.named_children()} - {"embeddings", "embeddings_project", "pooler"} != {top}:
        return None  # something else stands between layers and states
    attention, *names = build
    layers = tuple(
        Layer(layer.get_submodule(attention), tuple(_place(layer, name) for name in names), Abreast())
        for layer in stack
    )
    called = [home[name] for layer in layers for home, name in layer.places]
    inner = {id(module) for one in called for module in one.modules()}
    outer = tuple(
        (_place(model, name), module)
        for name, module in model.named_modules()
        if name.startswith(top) and id(module) not in inner
    )
    typed = "token_type_ids" in inspect.signature(type(embeddings).forward).parameters
    return Straight(model, stack, layers, outer, typed)


def _watched(model: nn.Module) -> bool:
    """Whether somebody looks on, who must not see the trial. A hook that is the method of an object is part
    of the model's own way, as of adapters and of bf16.
    """
    hooks = (
        hook for m in model.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    )
    return any(getattr(hook, "__self__", None) is None for hook in hooks)


def _has(layer: nn.Module, names: Sequence[str]) -> bool:
    try:
        return all(isinstance(layer.get_submodule(name), nn.Module) for name in names)
    except AttributeError:
        return False


def _place(above: nn.Module, name: str) -> Place:
    parent, _, own = name.rpartition(".")
    return above.get_submodule(parent)._modules, own


def _same(found: Straight, trunk: nn.Module, way: Way) -> bool:
    """Try a small batch in both ways; what static int8 layers make otherwise, when fused, is left out."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(found.model.config.vocab_size, (sum(TRIED),), generator=generator)
    try:
        ours = found._states(way, ids, TRIED, None, fused=False)
        wanted = packing.run(trunk, way, ids, TRIED)
    except FAILURES:
        return False
    return ours.shape == wanted.shape and bool((ours - wanted).abs().max() <= SAME * wanted.abs().max())
