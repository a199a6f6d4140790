"""GPTQ: weights rounded one column after another, each error made up for by the columns still to come.

Frantar et al. 2022, arXiv 2210.17323. With H = 2 X X' of a layer's inputs and U the upper Cholesky factor of
its inverse, column q's error (w - Q(w)) / U_qq is taken off the later columns in the proportion of U_q.

Legend: O outputs, I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import Moments, bias_of
from penjing.compressors.holding import Solved, hold
from penjing.errors import SpecError
from penjing.models.grid import Grid, Marks, codes_of, fitted
from penjing.models.slim import weight_of
from penjing.models.weight_only import WeightOnly


def gptq(
    *,
    bits: int = 4,
    group: int | None = 128,
    symmetric: bool = False,
    damping: float = 0.01,
    act_order: bool = True,
    embeddings: bool = True,
    keep: float | list[str] = 0.0,
    rows: int = 256,
) -> Compressor:
    """Hold the weights of linears in 2 to 8 bits, each error made up for by later columns (GPTQ).

    Args:
        bits: of each weight, 2 to 8.
        group: so many weights of a row share a scale; null, all of a row do.
        symmetric: a grid spans as far above 0 as below; else from the lowest to the highest weight.
        damping: the share of the mean of H's diagonal that is added to it.
        act_order: columns with the largest inputs are rounded first.
        embeddings: hold the word table in int8, too, unless the head says words with it.
        keep: the share of linears, those that hurt the answers most, or names such as `["*.output.dense"]`,
        that
            are held in 8 bits instead.
        rows: of the train rows, so many are looked at.
    """
    grid = Grid(bits, group, symmetric)
    if not damping > 0:
        raise SpecError(f"`gptq.damping` must be above 0; it is {damping}. The paper takes 0.01.")

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        trunk = held.model.trunk

        def solve(names: Sequence[str], seen: dict[str, Moments]) -> dict[str, Solved]:
            made = {}
            for name in names:
                weight, marks = weight_of(trunk, name), fitted(weight_of(trunk, name), grid)
                codes = solved(weight, seen[name].outer, marks, grid, damping=damping, act_order=act_order)
                layer = WeightOnly.of(codes, marks, grid, bias=bias_of(trunk, name))
                made[name] = Solved(layer, layer.dense())
            return made

        return hold(held, rehearsal, grid, keep, solve, embeddings=embeddings)

    return Compressor("gptq", shrink, wants="texts", rows=rows)


def solved(
    weight_OI: Tensor,
    outer_II: Tensor,
    marks: Marks,
    grid: Grid,
    *,
    damping: float = 0.01,
    act_order: bool = True,
    block: int = 128,
) -> Tensor:
    """(O, I) uint8 codes whose values W' make ||(W - W') X|| small, by `outer`, the sum of x x' of the
    inputs.

    Grids stay where `marks` has them, whatever the order of columns. Later columns are told of the errors of
    a whole block at once: the result is that of telling them one by one.
    """
    n_in = weight_OI.shape[1]
    order = (
        torch.argsort(outer_II.diagonal(), descending=True, stable=True) if act_order else torch.arange(n_in)
    )
    order = order.to(weight_OI.device)
    rows = weight_OI.double().t()[order].contiguous()  # (I, O): a column at a time lies together
    upper = inverse_factor(outer_II[order][:, order], damping)
    scale, zero = (t.double().expand(-1, n_in).t().contiguous() for t in marks.at(order, grid))
    codes = torch.empty_like(rows)
    for first in range(0, n_in, block):
        last = min(first + block, n_in)
        errors = torch.empty_like(rows[first:last])
        for i in range(first, last):
            codes[i] = codes_of(rows[i], scale[i], zero[i], grid)
            errors[i - first] = (rows[i] - (codes[i] - zero[i]) * scale[i]) / upper[i, i]
            rows[i + 1 : last].addr_(upper[i, i + 1 : last], errors[i - first], alpha=-1)
        rows[last:] -= upper[first:last, last:].t() @ errors
    found = torch.empty_like(codes)
    found[order] = codes
    return found.t().to(torch.uint8)


def inverse_factor(outer_II: Tensor, damping: float) -> Tensor:
    """U, upper triangular, with U' U the inverse of the damped H; an input that was never other than 0 gets
    none of another's error.
    """
    diagonal = outer_II.diagonal()
    added = damping * diagonal.mean() if diagonal.any() else torch.ones((), dtype=outer_II.dtype)
    damped = outer_II + torch.diag(added.expand(len(outer_II)).to(outer_II.device))
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
