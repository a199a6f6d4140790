"""Weights held in few bits, a layer of the stack at a time: what round to nearest, GPTQ and AWQ share.

Legend: O outputs, I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from penjing.compressor import Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import (
    Moments,
    batches_of,
    bias_of,
    by_layer,
    error_of,
    gathered,
    plain_linears,
)
from penjing.compressors.sensitive import kept, told
from penjing.compressors.tables import hold_tables
from penjing.models.grid import Grid
from penjing.models.slim import weight_of
from penjing.models.weight_only import WeightOnly, rounded

HIGHER = Grid(8, None, True)  # of layers that are kept


@dataclass(frozen=True)
class Solved:
    """A layer to put in a linear's place, and the (O, I) weight it amounts to for the inputs that were
    seen.
    """

    layer: WeightOnly
    stands_for: Tensor


Solve = Callable[[Sequence[str], dict[str, Moments]], Mapping[str, Solved]]


@dataclass
class _Sums:
    """Squared errors of all layers' outputs, and squares of these outputs."""

    ours: float = 0.0
    nearest: float = 0.0
    outputs: float = 0.0
    n_better: int = 0


def hold(
    held: Held,
    rehearsal: Rehearsal,
    grid: Grid,
    keep: float | Sequence[str],
    solve: Solve | None,
    *,
    embeddings: bool,
) -> Shrunk:
    """The model with its linear layers held on a grid, those of `keep` in 8 bits; the word table, too.

    `solve(names, moments)` gives the layers that stand for some of one layer of the stack; the moments are
    those of the inputs that the layers below give, held already. Without it every weight goes to its nearest
    value, and no text is looked at unless `keep` is a share.
    """
    trunk, names = held.model.trunk, plain_linears(held)
    tables = hold_tables(held) if embeddings else 0

    def nearest(name: str, own: Grid = grid) -> WeightOnly:
        return rounded(weight_of(trunk, name), bias_of(trunk, name), own)

    spared, hurts = kept(keep, held, rehearsal, names, nearest)
    batches = batches_of(rehearsal) if solve else []
    sums = _Sums()
    for together in by_layer(trunk, names):
        own = [name for name in together if name not in spared]
        made = {name: nearest(name, HIGHER) for name in together if name in spared}
        if solve and own:
            seen = gathered(held.model, batches, own, Moments.empty)
            solved = solve(own, seen)
            for name in own:
                _count(
                    sums, weight_of(trunk, name), solved[name].stands_for, nearest(name).dense(), seen[name]
                )
            made |= {name: solved[name].layer for name in own}
        else:
            made |= {name: nearest(name) for name in own}
        for name, layer in made.items():
            trunk.set_submodule(name, layer)
    return Shrunk(held, {**_facts(trunk, names, grid, sums), "tables": tables, **told(hurts, spared)})


def _count(sums: _Sums, weight: Tensor, ours: Tensor, nearest: Tensor, seen: Moments) -> None:
    own, other = error_of(ours - weight, seen.outer), error_of(nearest - weight, seen.outer)
    sums.ours, sums.nearest = sums.ours + own, sums.nearest + other
    sums.n_better += own < other
    sums.outputs += error_of(weight, seen.outer)


def _facts(trunk: Any, names: Sequence[str], grid: Grid, sums: _Sums) -> dict[str, Any]:
    layers = [trunk.get_submodule(name) for name in names]
    n_weights = sum(layer.in_features * layer.out_features for layer in layers)
    n_bytes = sum(
        b.numel() * b.element_size() for layer in layers for b in layer.buffers() if b is not layer.bias
    )
    facts: dict[str, Any] = {
        "grid": str(grid),
        "layers": len(names),
        "bits_a_weight": 8 * n_bytes / n_weights,
    }
    if sums.outputs:
        facts["error"] = sums.ours / sums.outputs
        facts["error_of_rounding"] = sums.nearest / sums.outputs
        facts["layers_better"] = sums.n_better
    return facts
