"""Frozen linear layers held in 4 bits: NF4 with double quantisation (QLoRA, Dettmers et al. 2023, arXiv
2305.14314), in plain torch, so on every device.

Weights are cut in blocks of 64. A block holds its largest absolute value and, for each weight, which of 16
levels is nearest: quantiles of a normal distribution, made to span -1 to 1 with 0 among them (appendix E).
The blocks' largest values, less their mean, are themselves held as 8-bit floats in blocks of 256 (section 3).
That is 4.127 bits a weight. A product makes the weights anew in the type of its input and forgets them; so
does its backward pass.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.models.layers import bare, linears_of

BLOCK = 64  # weights that share a scale
OUTER = 256  # scales that share a scale
LARGEST = 448.0  # of an 8-bit float (e4m3)
OFFSET = 0.9677083  # the outermost quantile of the paper's code, (1/2)(31/32 + 29/30)


@functools.cache
def levels() -> tuple[float, ...]:
    """The 16 values of NF4, rising: 7 quantiles of the negative half, 0, and 8 of the positive half, which
    lie closer, over the largest.
    """

    def half(n: int) -> Tensor:
        quantiles: Tensor = torch.special.ndtri(torch.linspace(OFFSET, 0.5, n + 1, dtype=torch.float64)[:-1])
        return quantiles

    values = torch.cat([half(8), torch.zeros(1, dtype=torch.float64), -half(7)]).sort().values
    return tuple((values / values.abs().max()).tolist())


@functools.cache
def _pairs(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(256, 2) the two values that a byte stands for, high half first."""
    book = torch.tensor(levels(), device=device, dtype=dtype)
    high, low = torch.meshgrid(book, book, indexing="ij")
    return torch.stack([high, low], -1).view(256, 2)


def packed(weight: Tensor) -> dict[str, Tensor]:
    """A matrix as `codes` (two weights a byte), `scales` (8-bit floats, a byte a block) and `outer` (an fp32
    scale for every 256 of these, and last the mean), all as whole numbers, so that no cast of a model reaches
    them.
    """
    flat = weight.detach().float().flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    book = torch.tensor(levels(), device=flat.device)
    codes = torch.bucketize(blocks / scales.clamp_min(1e-30)[:, None], (book[1:] + book[:-1]) / 2)
    halves = codes.to(torch.uint8).view(-1, 2)
    mean = scales.mean()
    apart = F.pad(scales - mean, (0, -len(scales) % OUTER)).view(-1, OUTER)
    outer = apart.abs().amax(1).clamp_min(1e-30) / LARGEST
    small = (apart / outer[:, None]).to(torch.float8_e4m3fn).flatten()[: len(scales)]
    return {
        "codes": halves[:, 0] << 4 | halves[:, 1],
        "scales": small.view(torch.uint8),
        "outer": torch.cat([outer, mean[None]]).view(torch.int32),
    }


def unpacked(parts: dict[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The matrix that `packed` keeps, in this type."""
    outer = parts["outer"].view(torch.float32)
    small = parts["scales"].view(torch.float8_e4m3fn).float()
    scales = small * outer[:-1].repeat_interleave(OUTER)[: len(small)] + outer[-1]
    values = F.embedding(parts["codes"].int(), _pairs(parts["codes"].device, dtype))
    values = values.view(-1, BLOCK) * scales.to(dtype)[:, None]
    return values.flatten()[: shape[0] * shape[1]].view(shape)


class FourBit(nn.Module):
    """A frozen linear layer (GPT-2's Conv1D, whose weight is the other way round, too) with its weight in 4
    bits.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weight, bias = layer.weight, layer.bias
        self.bias = bias if isinstance(bias, nn.Parameter) else None
        assert isinstance(weight, Tensor), "a linear layer has a weight"
        self.turned = type(layer).__name__ == "Conv1D"
        self.shape: tuple[int, ...] = tuple(weight.shape)
        for name, tensor in packed(weight).items():
            self.register_buffer(name, tensor, persistent=False)
        layer.weight = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        self._shell = [layer]  # in a list, so that it is no part of the model

    @property
    def n_weights(self) -> int:
        """Weights held."""
        return self.shape[0] * self.shape[1]

    def weight(self, dtype: torch.dtype) -> Tensor:
        """(out, in) the weights in this type."""
        parts = {name: self.get_buffer(name) for name in ("codes", "scales", "outer")}
        found = unpacked(parts, self.shape, dtype)
        return found.t() if self.turned else found

    def plain(self) -> nn.Module:
        """The layer as it was, with the weight that this one computes with, in fp32."""
        found = self.weight(torch.float32)
        layer = self._shell[0]
        layer.weight = nn.Parameter((found.t() if self.turned else found).contiguous(), requires_grad=False)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in x's type."""
        out: Tensor = _Product.apply(x, self)
        return out if self.bias is None else out + self.bias.to(x.dtype)


class _Product(torch.autograd.Function):
    """x W' for a frozen W that is made when it is needed, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FourBit) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        return (grad @ ctx.layer.weight(grad.dtype) if ctx.needs_input_grad[0] else None), None


def hold(trunk: nn.Module) -> nn.Module:
    """Hold every linear layer inside the stack of layers in 4 bits, below LoRA's layers too."""
    inner: nn.Module = bare(trunk)
    for name in linears_of(inner):
        if "lora_" not in name:
            _exchange(inner, name, FourBit(inner.get_submodule(name)))
    return trunk


def let_go(trunk: nn.Module) -> nn.Module:
    """Give every layer held in 4 bits a plain weight again."""
    inner: nn.Module = bare(trunk)
    for name, held in list(inner.named_modules()):
        if isinstance(held, FourBit):
            _exchange(inner, name, held.plain())
    return trunk


def weights_held(module: nn.Module) -> int:
    """How many weights below a module are held in 4 bits."""
    return sum(part.n_weights for part in module.modules() if isinstance(part, FourBit))


def held_in(trunk: nn.Module) -> str | None:
    """`nf4` where layers of a trunk are held in 4 bits."""
    return "nf4" if any(isinstance(module, FourBit) for module in trunk.modules()) else None


def _exchange(inner: nn.Module, name: str, layer: nn.Module) -> None:
    above, _, last = name.rpartition(".")
    setattr(inner.get_submodule(above), last, layer)
