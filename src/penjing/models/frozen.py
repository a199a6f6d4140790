"""The lowest layers that a method leaves alone: found, kept still, and run apart from the layers above.

What they make of a row is a function of that row alone, to the bit, so it can be computed once and kept
(engine/trunk.py) and a run is the same with and without a cache. Three things make it so: dropout is off in
them; attention takes only rows of one length together; and a row always stands in a block of the same number
of tokens, because matrix kernels add in another order for other sizes (seen in fp32 below 16 rows and in bf16
below 500, rows of one product being independent of each other at any one size).

Legend: S sequences, T tokens, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.models.layers import bare, depths_of, layers_of, path_of
from penjing.models.modes import FAILURES, evaluating
from penjing.models.packing import Way, forward, why

BLOCK = 256  # tokens of a block of short rows
FILLER = 32  # tokens of a sequence that only fills a block up
SAME = 1e-3  # largest relative difference between a trunk run whole and run in two parts


@dataclass(frozen=True, eq=False)
class Frozen:
    """The `depth` lowest layers of a trunk and what lies below them. `whole`: nothing of the trunk trains."""

    trunk: nn.Module
    way: Way
    layers: nn.ModuleList
    depth: int
    whole: bool
    entrance: nn.Module | None = None  # hands the first layer its input; needs not run where states are given
    reason: str = ""  # why the layers cannot be run apart; empty when they can

    def states(self, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None) -> Tensor:
        """What the frozen part makes of packed rows: ids (T,) -> (T, D), without graph.

        These are the last hidden states where the whole trunk is frozen.
        """
        found: Tensor | None = None
        size = np.asarray(lengths)
        ends = np.cumsum(size)
        with torch.no_grad():
            for rows, room in blocks(size):
                places = np.concatenate([np.arange(ends[r] - size[r], ends[r]) for r in rows])
                here = torch.from_numpy(places).to(ids.device)
                rest = _filler(room - len(places), int(size[rows].min()))
                fill = here[:1].expand(sum(rest))
                block = torch.cat([here, fill])
                types = None if segments is None else segments[block]
                out = self._block(ids[block], [*size[rows].tolist(), *rest], types)[: len(places)]
                if found is None:
                    found = out.new_empty(len(ids), out.shape[1])
                found.index_copy_(0, here, out)
        assert found is not None, "a batch holds no row"
        return found

    def _block(self, ids: Tensor, lengths: list[int], segments: Tensor | None) -> Tensor:
        if self.whole:
            return forward(self.trunk, self.way, ids, lengths, segments, exact=True)
        return self._below(ids, lengths, segments, exact=True)

    def _below(
        self, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None, *, exact: bool
    ) -> Tensor:
        """States after `depth` layers; those above hand on what they get."""
        found: list[Tensor] = []
        last = self.layers[self.depth - 1]
        own = last.forward

        def noted(*args: Any, **kwargs: Any) -> Any:
            out = own(*args, **kwargs)
            found.append(out)
            return out

        with _instead([(last, noted), *((layer, _hand_on) for layer in self.layers[self.depth :])]):
            forward(self.trunk, self.way, ids, lengths, segments, exact=exact)
        return found[-1][0]  # a layer that is gone through often, as ALBERT's, counts when it is done

    def above(
        self, states: Tensor, ids: Tensor, lengths: Sequence[int], segments: Tensor | None = None
    ) -> Tensor:
        """Last hidden states (T, D) from the frozen part's states (T, D): only the layers above are run."""

        def given(*args: Any, **kwargs: Any) -> Tensor:
            return states[None]

        stills = [*self.layers[: self.depth], *([self.entrance] if self.entrance is not None else [])]
        with _instead([(module, given) for module in stills]):
            return forward(self.trunk, self.way, ids, lengths, segments)

    def contents(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight and buffer that the states depend on, by its name in the bare trunk."""
        inner: nn.Module = bare(self.trunk)
        upper = () if self.whole else tuple(self.layers[self.depth :])
        theirs = {id(t) for layer in upper for t in (*layer.parameters(), *layer.buffers())}
        for name, parameter in inner.named_parameters():
            if id(parameter) not in theirs and not parameter.requires_grad:
                yield name, parameter.detach()
        yield from ((name, buffer) for name, buffer in inner.named_buffers() if id(buffer) not in theirs)


def find(trunk: nn.Module, way: Way) -> Frozen | None:
    """The frozen part of a trunk whose `requires_grad` is set; None where something trains at its bottom.

    That it can be run apart is tried on a small batch, outputs and gradients: a network beside the trunk,
    say, reads layers that would no longer be run.
    """
    depth = frozen_depth(trunk)
    if not depth:
        return None
    whole = not any(p.requires_grad for p in trunk.parameters())
    layers = layers_of(bare(trunk))
    plain = Frozen(trunk, way, layers, depth, whole)
    if next(trunk.parameters()).device.type == "meta":
        return plain
    if not way.packed:
        reason = way.reason if way.sight else f"the base runs padded ({way.reason})"
        return Frozen(trunk, way, layers, depth, whole, reason=reason)
    return plain if whole else _tried(plain)


def frozen_depth(trunk: nn.Module) -> int:
    """How many of the lowest layers, with all below them, hold nothing that trains.

    0 where something below the layers trains, something around the base (`trunk.added`), or something of a
    wrapper's, as peft's prompts are.
    """
    inner = bare(trunk)
    inside = {id(p) for p in inner.parameters()}
    outside = any(p.requires_grad and id(p) not in inside for p in trunk.parameters())
    if outside or getattr(inner, "added", None) is not None:
        return 0
    depths = depths_of(inner)
    lowest = min((depths[n] for n, p in inner.named_parameters() if p.requires_grad), default=None)
    n_layers = len(layers_of(inner))
    return n_layers if lowest is None else min(n_layers, max(0, lowest - 1))


def still(trunk: nn.Module, depth: int) -> list[nn.Module]:
    """What runs without dropout where the `depth` lowest layers are frozen: they, and whatever beside the
    stack of layers holds nothing that trains.
    """
    module: nn.Module = bare(trunk)
    found: list[nn.Module] = []
    for step in path_of(module).split("."):
        for name, child in module.named_children():
            if name != step and not any(p.requires_grad for p in child.parameters()):
                found.append(child)
        module = module.get_submodule(step)
    assert isinstance(module, nn.ModuleList)
    return [*found, *module[:depth]]


def blocks(lengths: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Rows that are computed together, shortest first, and how many tokens their block is filled up to.

    A row's block is at least four times as long as the row and depends on its length alone.
    """
    room = np.maximum(BLOCK, 4 << np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64))
    order = np.lexsort((np.arange(len(lengths)), lengths))
    made: list[tuple[np.ndarray, int]] = []
    begin, used = 0, 0
    for at, row in enumerate(order):
        if used + lengths[row] > room[order[begin]] or room[row] != room[order[begin]]:
            made.append((order[begin:at], int(room[order[begin]])))
            begin, used = at, 0
        used += int(lengths[row])
    if len(order):
        made.append((order[begin:], int(room[order[begin]])))
    return made


def _filler(n_tokens: int, shortest: int) -> list[int]:
    """Lengths of sequences that hold `n_tokens` together, none longer than a row of the block."""
    each = min(FILLER, shortest)
    return [*[each] * (n_tokens // each), *([n_tokens % each] if n_tokens % each else [])]


def _tried(plain: Frozen) -> Frozen:
    """`plain` with its entrance, or with the reason why it cannot be run apart."""
    trunk, way = plain.trunk, plain.way
    lengths = [3, 5, 5]
    ids = torch.arange(5, 5 + sum(lengths), device=next(trunk.parameters()).device)
    ids %= int(trunk.config.vocab_size)  # type: ignore[union-attr, arg-type]
    trains = [p for p in trunk.parameters() if p.requires_grad]
    try:
        with evaluating(trunk), torch.enable_grad():
            whole, entrance = _watched(plain, lambda: forward(trunk, way, ids, lengths))
            apart = Frozen(trunk, way, plain.layers, plain.depth, plain.whole, entrance)
            with torch.no_grad():
                states = apart._below(ids, lengths, exact=False)
            parted = apart.above(states, ids, lengths)
            weights = torch.linspace(-1, 1, whole.numel(), device=ids.device).view_as(whole)
            wanted, found = (
                torch.autograd.grad((out * weights).sum(), trains, allow_unused=True)
                for out in (whole, parted)
            )
        same = all(_like(a, b) for a, b in zip((whole, *wanted), (parted, *found), strict=True))
        reason = "" if same else "what trains reads layers below it"
    except FAILURES as error:
        apart, reason = plain, why(error)
    return apart if not reason else Frozen(trunk, way, plain.layers, plain.depth, plain.whole, None, reason)


def _watched(plain: Frozen, job: Callable[[], Tensor]) -> tuple[Tensor, nn.Module | None]:
    """The job's result, and the outermost module whose output is what the first layer gets."""
    inside = {id(m) for m in plain.layers.modules()}
    outputs: list[tuple[Any, nn.Module]] = []
    inputs: list[Any] = []
    hooks = [
        module.register_forward_hook(lambda m, args, out: outputs.append((out, m)))
        for module in plain.trunk.modules()
        if id(module) not in inside
    ]
    hooks.append(plain.layers[0].register_forward_pre_hook(lambda m, args: inputs.append(args)))
    try:
        result = job()
    finally:
        for hook in hooks:
            hook.remove()
    first = inputs[0][0] if inputs and inputs[0] else None
    hands = [module for out, module in outputs if out is first and first is not None]
    return result, hands[-1] if hands else None


def _like(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool((a - b).abs().max() <= SAME * a.abs().max())


def _hand_on(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
    return hidden_states


@contextlib.contextmanager
def _instead(forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Let modules do this in place of their forward."""
    own = [(module, module.__dict__.get("forward")) for module, _ in forwards]
    try:
        for module, forward in forwards:
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, before in own:
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before
