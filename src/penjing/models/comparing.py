"""Layers of a student beside those of its teacher: which are compared, and how far apart they are.

Legend: T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported, SpecError
from penjing.models import distilling
from penjing.models.layers import is_causal
from penjing.models.watching import Watched
from penjing.records import Batch, Outset


@dataclass(frozen=True, eq=False)
class Compared:
    """Both trunks, watched. `layers`: of the student, of the teacher; `tops`: the last of each."""

    ours: Watched
    theirs: Watched
    layers: dict[int, int]
    tops: tuple[int, int]
    causal: bool

    def forget(self) -> None:
        """Let go of the pass that was compared."""
        self.ours.forget()
        self.theirs.forget()


def compare(teacher: Any, outset: Outset, wanted: str | list[int] | None, *, related: bool) -> Compared:
    """Watch the layers that are compared: those whose states are (`wanted`, see `teachers_layers`), and with
    `related` attention in the last ones. Maps that make unequal widths equal are put into the model.

    Raises:
        SpecError, NotSupported: layers that cannot be compared.
    """
    model, ours, theirs = outset.model, outset.base, teacher.base
    tops = (ours.n_layers, theirs.n_layers)
    if isinstance(wanted, list):
        _refuse_map(wanted, *tops)
    layers = {} if wanted is None else distilling.teachers_layers(*tops, wanted)
    _refuse(outset, theirs, min([*layers, *([tops[0]] if related else [])]))
    if layers and ours.width != theirs.width:
        maps = {str(n): nn.Linear(ours.width, theirs.width, bias=False) for n in layers}
        model.add_module("maps", nn.ModuleDict(maps).to(next(model.parameters()).device))
    mine, other = ([top] if related else [] for top in tops)
    return Compared(
        Watched(model.trunk, ours.way, states=[*layers], attention=mine),
        Watched(teacher.model.trunk, theirs.way, states=[*layers.values()], attention=other, always=True),
        layers,
        tops,
        is_causal(model.trunk),
    )


def _refuse_map(named: Sequence[int], n_ours: int, n_theirs: int) -> None:
    if len(named) != n_ours or not any(named) or not all(0 <= n <= n_theirs for n in named):
        raise SpecError(
            f"`distill.layers` names a layer of the teacher (1 to {n_theirs}; 0: none) for each of the "
            f"student's {n_ours}; it is {named}. Mend it, or say `even`."
        )


def _refuse(outset: Outset, theirs: Any, lowest: int) -> None:
    ours, model = outset.base, outset.model
    if theirs.kind != ours.kind or ours.kind == "encoder-decoder":
        raise NotSupported(
            f"Layers of two encoders, or of two decoders, were to be compared; the teacher is of kind "
            f"{theirs.kind}, the student {ours.kind}. Set `distill.hidden` and `distill.relations` to 0."
        )
    if getattr(model.trunk, "added", None) is not None:
        raise SpecError(
            "`distill.hidden` and `distill.relations` compare states token by token; the method puts tokens "
            "or a network of its own beside them. Take `method: full` or `lora`, or learn from outputs alone."
        )
    still = 0 if model.frozen is None else model.frozen.depth
    if lowest <= still:
        raise SpecError(
            f"`distill` is to move layer {lowest} of the student; the method leaves the lowest {still} as "
            "they are. Take `method: full`, or name 0 for those in `distill.layers`."
        )


def of_states(compared: Compared, model: Any, batch: Batch, how: str) -> Tensor:
    """Distance of hidden states, the mean over the layers that are compared."""
    each = []
    for mine, other in compared.layers.items():
        states = compared.ours.states(mine, batch.lengths)
        if hasattr(model, "maps"):
            states = model.maps[str(mine)](states)
        apart = distilling.states_apart(states, compared.theirs.states(other, batch.lengths), how)
        each.append(distilling.mean_of_tokens(apart, batch))
    return torch.stack(each).mean()


def of_relations(compared: Compared, batch: Batch, pairs: Sequence[str], heads: int | None) -> Tensor:
    """Distance of relations in the last layers, the sum over pairs such as `qk`."""
    (mine, other), lengths = compared.tops, batch.lengths.tolist()
    ours, theirs = compared.ours.attention(mine), compared.theirs.attention(other)
    width = ours["q"].shape[1]
    n = heads or distilling.common_heads(compared.ours.heads(mine), compared.theirs.heads(other), width)
    if width % n or theirs["q"].shape[1] % n:
        raise SpecError(
            f"`distill.heads` cuts widths {width} and {theirs['q'].shape[1]} into equal parts; it is {n}. "
            "Take a number that divides both, or leave it out."
        )
    each = [
        distilling.relations_apart(
            (ours[x], ours[y]), (theirs[x], theirs[y]), lengths, n, causal=compared.causal
        )
        for x, y in map(tuple, pairs)
    ]
    return distilling.mean_of_tokens(torch.stack(each).sum(0), batch)
