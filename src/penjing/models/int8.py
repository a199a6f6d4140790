"""Linears and word tables in whole numbers of 8 bits, with an execution of their own.

A weight's rows have a scale each: s_o = max|W_o| / 127, codes = round(W_o / s_o), symmetric, so that zero is
zero. An input's rows (tokens) have a scale each, found as they come: nothing need be calibrated, and what a
token becomes depends on that token alone. The product of codes is exact in int32, whatever the order of
adding, so an answer does not depend on who shares the batch, to the bit. torch's and ONNX Runtime's dynamic
int8 take one scale for all of an input and so mix the batch's rows.

On a CPU with VNNI the product is oneDNN's (`torch._int_mm`): 4 times fp32's speed at 512 tokens of 384. On
CUDA it is cuBLAS's. Elsewhere it is made of fp32 products of whole numbers, exact below 2^24: as slow as
fp32.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

MOST = 127
EXACT = 2**24 // (MOST * MOST)  # products of two codes whose sum is exact in fp32
LEAST = 1e-12  # of a scale: a row of zeros has one, too

Scales = Literal["channel", "tensor"]


def rounded(weight: Tensor, scales: Scales = "channel") -> tuple[Tensor, Tensor]:
    """Codes (n, m) int8 of a matrix, and their scales: (n,) fp32, all one number where `scales` is `tensor`.
    A code times its row's scale is off by at most half a scale.
    """
    most = weight.abs().amax(1)
    scale = (most if scales == "channel" else most.max().expand_as(most)).float() / MOST
    scale = scale.clamp_min(LEAST).contiguous()
    return (weight / scale[:, None]).round().clamp(-MOST, MOST).to(torch.int8), scale


def tokens_rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (T, D) int8 of tokens' states, and their scales (T, 1) fp32."""
    most = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_())  # quicker than of |x|
    scale = most.float().div_(MOST).clamp_min_(LEAST)
    return (x * scale.reciprocal()).round_().to(torch.int8), scale


_seen = threading.local()


def codes_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """`tokens_rounded` of states (…, D). Those of the tensor seen last are kept for as long as it lives:
    queries, keys and values are made of one.

    Nothing in transformers changes such a tensor in place between the layers that read it; where torch counts
    a tensor's versions (outside inference mode), that is looked at.
    """
    version = -1 if x.is_inference() else x._version
    last = getattr(_seen, "last", None)
    if last is None or last[0]() is not x or last[1] != version:
        last = weakref.ref(x, _forget), version, tokens_rounded(x.reshape(-1, x.shape[-1]))
        _seen.last = last
    codes: tuple[Tensor, Tensor] = last[2]
    return codes


def _forget(gone: Any) -> None:
    last = getattr(_seen, "last", None)
    if last is not None and last[0] is gone:
        _seen.last = None


class Int8Linear(nn.Module):
    """A linear with its weight in int8: `weight` (n_in, n_out) codes, `scale` (n_out,), `bias` or None."""

    kind = "int8"
    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features, self.out_features = codes.shape
        self.register_buffer("weight", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, scales: Scales = "channel") -> Int8Linear:
        """From an fp32 (n_out, n_in) weight."""
        codes, scale = rounded(weight.detach(), scales)
        own = None if bias is None else bias.detach().float().clone()
        return cls(codes.t().contiguous(), scale, own)

    @classmethod
    def empty(cls, n_in: int, n_out: int, *, bias: bool) -> Int8Linear:
        """Without weights, to load a state into."""
        codes = torch.zeros(n_in, n_out, dtype=torch.int8)
        return cls(codes, torch.ones(n_out), torch.zeros(n_out) if bias else None)

    def settings(self) -> dict[str, Any]:
        """Nothing but sizes decides what it is."""
        return {}

    def dense(self) -> Tensor:
        """(n_out, n_in) fp32 that it stands for."""
        codes, scale = self.get_buffer("weight"), self.get_buffer("scale")
        return codes.t().float() * scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in x's type: tokens and weights as whole numbers, all else in fp32."""
        out = product(*codes_of(x), self.weight, self.scale, self.bias)
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def beside(self, other: Any) -> bool:
        """Whether it can be one product with a layer that reads the same states."""
        return type(other) is Int8Linear and (other.bias is None) == (self.bias is None)

    @staticmethod
    def joined(layers: Sequence[Int8Linear]) -> Callable[[Tensor], Tensor]:
        """What makes the outputs (T, O) of all, side by side, of states (T, I), to the bit as alone."""
        weight, scale, bias = abreast(layers)
        return lambda x: product(*tokens_rounded(x), weight, scale, bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Int8Table(nn.Module):
    """A table of vectors in int8: `weight` (n, D) codes, `scale` (n, 1) of each row."""

    kind = "int8_table"
    looks_up_rows = True
    bias = None

    def __init__(self, codes: Tensor, scale: Tensor, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = self.out_features, self.in_features = codes.shape
        self.padding_idx = padding_idx
        self.register_buffer("weight", codes)
        self.register_buffer("scale", scale)

    @classmethod
    def of(cls, table: nn.Embedding) -> Int8Table:
        """From an fp32 table."""
        codes, scale = rounded(table.weight.detach())
        return cls(codes, scale[:, None].contiguous(), table.padding_idx)

    @classmethod
    def empty(cls, n_in: int, n_out: int, *, bias: bool, padding_idx: int | None = None) -> Int8Table:
        """Without weights, to load a state into; n_out rows of n_in."""
        assert not bias, "a table has no bias"
        return cls(torch.zeros(n_out, n_in, dtype=torch.int8), torch.ones(n_out, 1), padding_idx)

    def settings(self) -> dict[str, Any]:
        """The row of padding."""
        return {"padding_idx": self.padding_idx}

    def dense(self) -> Tensor:
        """(n, D) fp32 that it stands for."""
        return self.get_buffer("weight").float() * self.get_buffer("scale")

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of whole numbers of any shape: (..., D) fp32."""
        flat = ids.reshape(-1)
        rows = self.get_buffer("weight").index_select(0, flat).float()
        return rows.mul_(self.get_buffer("scale").index_select(0, flat)).view(*ids.shape, -1)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


def product(codes: Tensor, of_tokens: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """(T, O) fp32 of tokens' codes (T, D) and scales (T, 1), and a weight's (D, O) and (O,), plus a bias."""
    found = whole_product(codes, weight).float().mul_(scale)
    return found.mul_(of_tokens) if bias is None else torch.addcmul(bias, found, of_tokens)


def abreast(layers: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes (I, O), scales (O,) and bias of layers that all or none have one, as those of a single layer."""
    bias = [one.bias for one in layers if one.bias is not None]
    weight, scale = torch.cat([one.weight for one in layers], 1), torch.cat([one.scale for one in layers])
    return weight, scale, torch.cat(bias) if bias else None


def watched(module: nn.Module) -> bool:
    """Whether somebody looks on, or has put another forward in its place."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def whole_product(codes: Tensor, weight: Tensor) -> Tensor:
    """(T, O) of codes (T, D) and (D, O), both int8: the exact sums of products, int32 or as exact in fp32."""
    if codes.device.type == "cpu":
        return torch._int_mm(codes, weight) if has_vnni() else _by_floats(codes, weight)
    if codes.device.type == "cuda" and not (weight.shape[0] % 8 or weight.shape[1] % 8):
        n = len(codes)  # cuBLAS wants more than 16 rows, and eights
        padded = torch.cat([codes, codes.new_zeros(max(-n % 8, 24 - n), codes.shape[1])])
        return torch._int_mm(padded, weight)[:n]
    return _by_floats(codes, weight)


def _by_floats(codes: Tensor, weight: Tensor) -> Tensor:
    """Whole numbers multiply and add exactly in fp32 as long as no sum reaches 2^24."""
    sums = [
        codes[:, i : i + EXACT].float() @ weight[i : i + EXACT].float() for i in range(0, len(weight), EXACT)
    ]
    return sums[0] if len(sums) == 1 else torch.stack([s.int() for s in sums]).sum(0, dtype=torch.int32)


@functools.cache
def has_vnni() -> bool:
    """Whether this processor multiplies whole numbers of 8 bits faster than floats."""
    ask = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(torch.backends.mkldnn.is_available() and ask and ask())
