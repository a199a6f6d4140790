"""Linear layers whose weights are held in 2 to 8 bits and made anew for each product (weight-only
quantization).

Products run in the type of their input, so an answer does not depend on its batch mates. On the CPU torch's
own kernels for packed weights (`_weight_int8pack_mm`, `_weight_int4pack_mm_for_cpu`) took 18 to 135 times as
long as making the weight and multiplying (fp32, 1536 x 384, one core, torch 2.13), so they are not used.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.bits import n_bytes, pack, unpack
from penjing.models.grid import Grid, Marks, fitted, nearest, values


class WeightOnly(nn.Module):
    """A linear layer, y = x W' + b, with W = values of codes on a grid; a kind of `models.stored`.

    `columns` (I,) bf16, where there: W is the values over these factors a column, which AWQ multiplied the
    weight with before rounding.
    """

    kind = "weight_only"
    weight = None  # T5 asks its layers for it, and takes a tensor's type for the one to compute in
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    columns: Tensor | None
    bias: Tensor | None
    in_features: int
    out_features: int

    def __init__(self, n_in: int, n_out: int, grid: Grid, *, bias: bool, columns: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features, self.grid = n_in, n_out, grid
        groups = grid.n_groups(n_in)
        self.register_buffer("codes", torch.zeros(n_out, n_bytes(n_in, grid.bits), dtype=torch.uint8))
        kept = torch.float32 if grid.group is None else torch.bfloat16
        self.register_buffer("scales", torch.ones(n_out, groups, dtype=kept))
        zeros = None if grid.symmetric else torch.zeros(n_out, n_bytes(groups, grid.bits), dtype=torch.uint8)
        self.register_buffer("zeros", zeros)
        self.register_buffer("columns", torch.ones(n_in, dtype=torch.bfloat16) if columns else None)
        self.register_buffer("bias", torch.zeros(n_out) if bias else None)

    @classmethod
    def empty(cls, n_in: int, n_out: int, *, bias: bool, columns: bool = False, **grid: Any) -> Self:
        """Such a layer without weights; `grid` holds bits, group and symmetric."""
        return cls(n_in, n_out, Grid(**grid), bias=bias, columns=columns)

    @classmethod
    def of(
        cls, codes_OI: Tensor, marks: Marks, grid: Grid, *, bias: Tensor | None, columns: Tensor | None = None
    ) -> Self:
        """The layer with these codes."""
        n_out, n_in = codes_OI.shape
        made = cls(n_in, n_out, grid, bias=bias is not None, columns=columns is not None)
        made.to(codes_OI.device)
        made.get_buffer("codes").copy_(pack(codes_OI, grid.bits))
        made.get_buffer("scales").copy_(marks.scale)
        if not grid.symmetric:
            made.get_buffer("zeros").copy_(pack(marks.zero, grid.bits))
        for name, given in (("bias", bias), ("columns", columns)):
            if given is not None:
                made.get_buffer(name).copy_(given.detach())
        return made

    def settings(self) -> dict[str, Any]:
        """What `empty` makes the same layer from."""
        grid = {"bits": self.grid.bits, "group": self.grid.group, "symmetric": self.grid.symmetric}
        return {**grid, "columns": True} if self.columns is not None else grid

    def dense(self) -> Tensor:
        """(O, I) fp32, the weight that it computes with."""
        scale = self.scales.float()
        if self.zeros is None:
            zero = torch.full_like(scale, self.grid.middle)
        else:
            zero = unpack(self.zeros, self.grid.bits, scale.shape[1]).float()
        found = values(unpack(self.codes, self.grid.bits, self.in_features), Marks(scale, zero), self.grid)
        return found if self.columns is None else found / self.columns

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in x's type."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.dense().to(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.grid}"


def rounded(weight_OI: Tensor, bias: Tensor | None, grid: Grid) -> WeightOnly:
    """The layer with each weight at its nearest value (round to nearest)."""
    marks = fitted(weight_OI, grid)
    return WeightOnly.of(nearest(weight_OI, marks, grid), marks, grid, bias=bias)
