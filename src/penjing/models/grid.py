"""Grids: which values a weight may have when it is held in few bits, and which of them is nearest.

A value is (code - zero) * scale with codes of 0 to 2^bits - 1. Every row of a weight has its own scale, or
every `group` neighbours in a row. Symmetric: zero is the middle code, and the lowest code is not used, so
that a weight and its negative are held alike. Asymmetric: lowest and highest weight of the group (0 lies
between them) have the first and the last code. Scales of whole rows are fp32; those of groups are bf16,
rounded up so that no weight is cut, for they are many: 16 bits over a group of 64 are a quarter of a bit a
weight.

Legend: O rows (outputs), I inputs, G groups of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.errors import SpecError

SMALLEST = 1e-12  # a scale of 0 could not be divided by


@dataclass(frozen=True)
class Grid:
    """How a weight is held: bits a code, weights of a row that share a scale (None: all), symmetric or
    not.
    """

    bits: int = 4
    group: int | None = 128
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise SpecError(f"`bits` must lie in 2..8; it is {self.bits}. Common are 8, 4 and 3.")
        if self.group is not None and self.group < 8:
            raise SpecError(
                f"`group` must be at least 8, or null for one scale a row; it is {self.group}. Common are "
                f"128, 64 and 32."
            )

    @property
    def top(self) -> int:
        """The highest code."""
        return int(2**self.bits - 1)

    @property
    def middle(self) -> int:
        """The code of 0 where symmetric."""
        return int(2 ** (self.bits - 1))

    def n_groups(self, n_in: int) -> int:
        """Scales a row of so many weights has; the last group may be shorter."""
        return 1 if self.group is None else -(-n_in // self.group)

    def __str__(self) -> str:
        shared = "a scale a row" if self.group is None else f"a scale for {self.group} weights"
        return f"{self.bits} bits, {shared}, {'' if self.symmetric else 'a'}symmetric"


@dataclass(frozen=True)
class Marks:
    """Where a weight's grids lie: `scale` and `zero` (O, G), fp32; zero is a whole number."""

    scale: Tensor
    zero: Tensor

    def at(self, columns: Tensor | slice, grid: Grid) -> tuple[Tensor, Tensor]:
        """Scale and zero of these columns, (O, columns)."""
        if grid.group is None:
            return self.scale, self.zero
        places = (
            torch.arange(self.scale.shape[1] * grid.group, device=self.scale.device)[columns] // grid.group
        )
        return self.scale[:, places], self.zero[:, places]


def grouped(weight_OI: Tensor, grid: Grid) -> Tensor:
    """(O, G, group) the weights by group; a short last group is filled up with zeros."""
    size = grid.group or weight_OI.shape[1]
    short = -weight_OI.shape[1] % size
    full = F.pad(weight_OI, (0, short)) if short else weight_OI
    return full.reshape(len(full), -1, size)


def fitted(weight_OI: Tensor, grid: Grid, shrink: float = 1.0) -> Marks:
    """Grids that span the weights, or this share of their span."""
    groups = grouped(weight_OI.detach().float(), grid)
    if grid.symmetric:
        scale = groups.abs().amax(2) * shrink / (grid.middle - 1)
        scale = _kept(scale, grid)
        return Marks(scale, torch.full_like(scale, grid.middle))
    low, high = groups.amin(2).clamp_max(0) * shrink, groups.amax(2).clamp_min(0) * shrink
    scale = _kept((high - low) / grid.top, grid)
    return Marks(scale, (-low / scale).round().clamp_(0, grid.top))


def codes_of(weight: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """The code of each weight's nearest value, as floats; scale and zero are of its shape, or spread to
    it.
    """
    lowest = 1 if grid.symmetric else 0
    return (weight / scale).round_().add_(zero).clamp_(lowest, grid.top)


def nearest(weight_OI: Tensor, marks: Marks, grid: Grid) -> Tensor:
    """(O, I) uint8 codes of the nearest values."""
    groups = grouped(weight_OI.detach().float(), grid)
    codes = codes_of(groups, marks.scale[..., None], marks.zero[..., None], grid)
    return codes.flatten(1)[:, : weight_OI.shape[1]].to(torch.uint8)


def values(codes_OI: Tensor, marks: Marks, grid: Grid) -> Tensor:
    """(O, I) fp32: what codes stand for."""
    groups = grouped(codes_OI, grid).float()
    groups.sub_(marks.zero[..., None]).mul_(marks.scale[..., None])
    return groups.flatten(1)[:, : codes_OI.shape[1]]


def _kept(scale: Tensor, grid: Grid) -> Tensor:
    """Scales as they are kept: of groups the next bf16 that is not smaller."""
    scale = scale.clamp_min(SMALLEST)
    if grid.group is None:
        return scale
    down = (scale.contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32)  # bf16 is fp32's upper half
    return torch.where(down < scale, (down.view(torch.int32) + 0x10000).view(torch.float32), down)
