"""AWQ: the weights that meet the largest inputs are made larger before rounding, so that they lose less.

Lin et al. 2023, arXiv 2306.00978. The factors of a layer's inputs are s = mean|x|^alpha, alpha from a grid by
the error of the layer's outputs; W s is rounded, and x is divided by s where a norm can do that for nothing
(see `folding`), else the weight made of the codes is. Last, each grid may span less than all its weights.

Legend: O outputs, I inputs of a linear layer, G groups of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import Moments, batches_of, bias_of, error_of, plain_linears, sharing
from penjing.compressors.folding import fold, norms_of
from penjing.compressors.holding import Solved, hold
from penjing.models.grid import Grid, Marks, codes_of, fitted, grouped, nearest, values
from penjing.models.slim import weight_of
from penjing.models.weight_only import WeightOnly

ALPHAS = 20  # points of the grid, 0 among them: nothing is scaled, which is round to nearest
SPANS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)


def awq(
    *,
    bits: int = 4,
    group: int | None = 128,
    symmetric: bool = False,
    clip: bool = True,
    embeddings: bool = True,
    keep: float | list[str] = 0.0,
    rows: int = 256,
) -> Compressor:
    """Hold the weights of linears in 2 to 8 bits, scaled by the inputs they meet (AWQ).

    Args:
        bits: of each weight, 2 to 8.
        group: so many weights of a row share a scale; null, all of a row do.
        symmetric: a grid spans as far above 0 as below; else from the lowest to the highest weight.
        clip: a grid may span less than its weights where outputs lose less by it than they gain.
        embeddings: hold the word table in int8, too, unless the head says words with it.
        keep: the share of linears, those that hurt the answers most, or names such as `["*.output.dense"]`,
        that
            are held in 8 bits instead.
        rows: of the train rows, so many are looked at.
    """
    grid = Grid(bits, group, symmetric)

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        model = held.model
        norms = norms_of(model, batches_of(rehearsal, rows=2)[0], plain_linears(held))

        def solve(names: Sequence[str], seen: dict[str, Moments]) -> dict[str, Solved]:
            made = {}
            for together in sharing(names, seen):
                inputs = seen[together[0]]
                scaled = factors([weight_of(model.trunk, name) for name in together], inputs, grid)
                norm = None if scaled is None else norms.get(frozenset(together))
                for name in together:
                    made[name] = _held(model.trunk, name, inputs.outer, grid, scaled, norm is not None, clip)
                if norm is not None and scaled is not None:
                    fold(model.trunk, norm, scaled)
            return made

        return hold(held, rehearsal, grid, keep, solve, embeddings=embeddings)

    return Compressor("awq", shrink, wants="texts", rows=rows)


def factors(weights_OI: Sequence[Tensor], inputs: Moments, grid: Grid) -> Tensor | None:
    """(I,) what weights that read the same inputs are multiplied by before rounding; None where no power of
    the mean |x| betters 1.
    """
    size = (inputs.size / max(inputs.n, 1)).float().clamp_min(1e-4)
    outer = inputs.outer.float()  # exact enough to choose by, at twice the speed
    plain = sum(error_of(_through(w, None, grid) - w, outer) for w in weights_OI)
    best, found = plain, None
    for alpha in torch.arange(1, ALPHAS) / ALPHAS:
        powers = size**alpha
        scaled = (powers / (powers.max() * powers.min()).sqrt()).bfloat16().float()  # as layers keep it
        error = sum(error_of(_through(w, scaled, grid) - w, outer) for w in weights_OI)
        if error < best:
            best, found = error, scaled
    return found


def clipped(weight_OI: Tensor, outer_II: Tensor, grid: Grid) -> Marks:
    """Grids of which each spans the share of its weights that makes its own part of the output's error
    smallest; `outer` is of the inputs that the weight meets.
    """
    groups = grouped(weight_OI.float(), grid)
    size = groups.shape[2]
    padded = F.pad(outer_II.float(), (0, -len(outer_II) % size) * 2)
    own = torch.stack([padded[i : i + size, i : i + size] for i in range(0, len(padded), size)])

    def lost(marks: Marks) -> Tensor:
        scale, zero = marks.scale[..., None], marks.zero[..., None]
        change = (codes_of(groups, scale, zero, grid) - zero) * scale - groups
        return torch.einsum("ogi,gij,ogj->og", change, own, change)

    best = fitted(weight_OI, grid)
    least = lost(best)
    for share in SPANS:
        marks = fitted(weight_OI, grid, share)
        found = lost(marks)
        better = found < least
        least = torch.where(better, found, least)
        scale = torch.where(better, marks.scale, best.scale)
        best = Marks(scale, torch.where(better, marks.zero, best.zero))
    return best


def _held(
    trunk: nn.Module, name: str, outer_II: Tensor, grid: Grid, scaled: Tensor | None, folded: bool, clip: bool
) -> Solved:
    weight, bias = weight_of(trunk, name), bias_of(trunk, name)
    if scaled is not None:
        weight = weight * scaled
        outer_II = outer_II / torch.outer(scaled, scaled)
    marks = clipped(weight, outer_II, grid) if clip else fitted(weight, grid)
    columns = None if folded else scaled
    layer = WeightOnly.of(nearest(weight, marks, grid), marks, grid, bias=bias, columns=columns)
    return Solved(layer, layer.dense() / scaled if folded and scaled is not None else layer.dense())


def _through(weight_OI: Tensor, scaled: Tensor | None, grid: Grid) -> Tensor:
    """The weight that the grid makes of one multiplied by factors, over these factors."""
    large = weight_OI if scaled is None else weight_OI * scaled
    marks = fitted(large, grid)
    found = values(nearest(large, marks, grid), marks, grid)
    return found if scaled is None else found / scaled
