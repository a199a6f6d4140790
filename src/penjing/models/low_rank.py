"""A linear as the product of two thinner ones: W = up down, of rank r.

The best such product for the inputs that a layer meets, ||(W - up down) X||, is had from the singular values
of W S, where S S' is the sum of x x' of these inputs (SVD-LLM, Wang et al. 2024, arXiv 2403.07378, section
3).

Legend: O outputs, I inputs, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRank(nn.Module):
    """y = up (down x) + b with `up` (O, r) and `down` (r, I), fp32; a kind of `models.stored`."""

    kind = "low_rank"
    weight = None  # T5 asks its layers for it, and takes a tensor's type for the one to compute in
    up: Tensor
    down: Tensor
    bias: Tensor | None

    def __init__(self, up_Or: Tensor, down_rI: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.rank = up_Or.shape
        self.in_features = down_rI.shape[1]
        self.register_buffer("up", up_Or)
        self.register_buffer("down", down_rI)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @classmethod
    def empty(cls, n_in: int, n_out: int, *, bias: bool, rank: int) -> Self:
        """Such a layer without weights."""
        return cls(torch.zeros(n_out, rank), torch.zeros(rank, n_in), torch.zeros(n_out) if bias else None)

    def settings(self) -> dict[str, Any]:
        """What `empty` makes the same layer from."""
        return {"rank": self.rank}

    def dense(self) -> Tensor:
        """(O, I) fp32 that it stands for."""
        return self.up @ self.down

    def forward(self, x: Tensor) -> Tensor:
        """Two thin products, in x's type."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, rank={self.rank}"


@dataclass(frozen=True)
class Factored:
    """A weight's singular values over the inputs it meets, the greatest first, and what makes it of any
    rank.
    """

    left: Tensor  # (O, n) float64
    values: Tensor  # (n,)
    right: Tensor  # (n, I), what the whitening did undone

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """`up` (O, rank) and `down` (rank, I), fp32, the values shared evenly between them."""
        root = self.values[:rank].sqrt()
        up, down = self.left[:, :rank] * root, self.right[:rank] * root[:, None]
        return up.float().contiguous(), down.float().contiguous()

    def rank_of(self, energy: float) -> int:
        """The lowest rank that keeps this share of the outputs' squares."""
        squares = self.values.square().cumsum(0)
        if not squares[-1]:
            return 1
        return min(len(squares), 1 + int((squares < energy * squares[-1]).sum()))


def factored(weight_OI: Tensor, outer_II: Tensor, damping: float = 1e-6) -> Factored:
    """A weight by its singular values over its inputs; `outer` is the sum of x x', and `damping` the share of
    its diagonal's mean that is added, so that inputs not seen are kept as if they were small.
    """
    added = damping * outer_II.diagonal().mean()
    eye = torch.eye(len(outer_II), dtype=torch.float64, device=outer_II.device)
    white = torch.linalg.cholesky(outer_II + (added if added else 1.0) * eye)
    left, values, right = torch.linalg.svd(weight_OI.double() @ white, full_matrices=False)
    undone = torch.linalg.solve_triangular(white, right, upper=False, left=False)
    return Factored(left, values, undone)


def worth(n_in: int, n_out: int) -> int:
    """The highest rank at which two thin layers have fewer weights than one: r (I + O) < I O."""
    return (n_in * n_out - 1) // (n_in + n_out)
