"""Linears whose weight has many zeros, held without them and restored to the bit.

Where the other weights stand is said by a bit a weight, or, where fewer than about one in 16 is left, by the
column of each and how many there are in each row (CSR): whichever takes fewer bytes. The plain weight is made
once, at the first product: this is a way to keep and send a model, not to run one faster.

Legend: O outputs, I inputs, n weights that are not 0.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.bits import n_bytes, pack, unpack

Places = Literal["bits", "columns"]
WIDEST = 2**15  # columns are 16-bit numbers


class Sparse(nn.Module):
    """A linear with `values` (n,) fp32, row after row, and `places`; a kind of `models.stored`.

    `places`: (O, I / 8) uint8, a bit a weight; or of `columns` (n,) int16, with `counts` (O,) int32.
    """

    kind = "sparse"
    weight = None  # T5 asks its layers for it, and takes a tensor's type for the one to compute in
    values: Tensor
    places: Tensor
    counts: Tensor | None
    bias: Tensor | None

    def __init__(self, n_in: int, n_out: int, *, bias: bool, n: int, by: Places) -> None:
        super().__init__()
        self.in_features, self.out_features, self.by = n_in, n_out, by
        self._made: Tensor | None = None
        places = torch.zeros(n, dtype=torch.int16)
        if by == "bits":
            places = torch.zeros(n_out, n_bytes(n_in, 1), dtype=torch.uint8)
        self.register_buffer("values", torch.zeros(n))
        self.register_buffer("places", places)
        self.register_buffer("counts", torch.zeros(n_out, dtype=torch.int32) if by == "columns" else None)
        self.register_buffer("bias", torch.zeros(n_out) if bias else None)

    @classmethod
    def empty(cls, n_in: int, n_out: int, *, bias: bool, n: int, by: Places) -> Self:
        """Such a layer without weights."""
        return cls(n_in, n_out, bias=bias, n=n, by=by)

    @classmethod
    def of(cls, weight_OI: Tensor, bias: Tensor | None) -> Self:
        """The layer of a plain weight."""
        there = weight_OI != 0
        n_out, n_in = weight_OI.shape
        n = int(there.sum())
        made = cls(n_in, n_out, bias=bias is not None, n=n, by=cheaper(n_in, n_out, n))
        made.to(weight_OI.device)
        made.values.copy_(weight_OI.detach()[there])
        if made.counts is None:
            made.places.copy_(pack(there, 1))
        else:
            made.places.copy_(there.nonzero()[:, 1])
            made.counts.copy_(there.sum(1))
        if made.bias is not None and bias is not None:
            made.bias.copy_(bias.detach())
        return made

    def settings(self) -> dict[str, Any]:
        """What `empty` makes the same layer from."""
        return {"n": len(self.values), "by": self.by}

    def dense(self) -> Tensor:
        """(O, I) fp32, to the bit what it was made of."""
        found = self.values.new_zeros(self.out_features, self.in_features)
        if self.counts is None:
            found[unpack(self.places, 1, self.in_features).bool()] = self.values
        else:
            rows = torch.repeat_interleave(self.counts.long())
            found[rows, self.places.long()] = self.values
        return found

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in x's type."""
        if self._made is None or self._made.dtype != x.dtype or self._made.device != x.device:
            with torch.inference_mode(False), torch.no_grad():  # who asks next may want gradients of x
                self._made = self.dense().to(x.dtype)
        return F.linear(x, self._made, None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {len(self.values)} weights"


def bytes_of(n_in: int, n_out: int, n: int, by: Places) -> int:
    """Bytes of values and places."""
    return 4 * n + (n_out * n_bytes(n_in, 1) if by == "bits" else 2 * n + 4 * n_out)


def cheaper(n_in: int, n_out: int, n: int) -> Places:
    """The way to say where weights stand that takes fewer bytes."""
    if n_in > WIDEST:
        return "bits"
    return "bits" if bytes_of(n_in, n_out, n, "bits") <= bytes_of(n_in, n_out, n, "columns") else "columns"
