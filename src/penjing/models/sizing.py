"""What a job will need before it runs: parameters, operations, memory, time.

Formulas: 2 operations a weight and token forward, 2 for activation gradients, 2 for weight gradients (only
where weights train); activations as in Korthikanti et al. 2022 (arXiv 2205.05198), 34 bytes a token and
width at two bytes a number, plus 5 a head and pair of tokens. Time is operations over the rate that a layer
of like width reached here (`calibrate`), plus what a layer and an update cost however few tokens there are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from penjing.models.embedding import RowsInUse
from penjing.models.four_bit import weights_held
from penjing.models.frozen import frozen_depth
from penjing.models.layers import layers_of, linears_of


@dataclass(frozen=True)
class Shape:
    """What a layer of this width cost in training."""

    width: int
    overhead_s: float  # of a layer and micro-batch, however few its tokens
    flops_a_s: float  # reached beyond that, forward and backward


@dataclass(frozen=True)
class Pace:
    """How fast a machine trains: layers of some widths, ascending, and the update of one parameter."""

    shapes: tuple[Shape, ...]
    update_s: float  # of a parameter that trains, clipping and optimizer

    def at(self, width: int) -> Shape:
        """Between the widths measured, in a straight line of logarithms; beyond them, as at the nearest."""
        low, high = self.shapes[0], self.shapes[-1]
        for one, next_one in pairwise(self.shapes):
            if one.width <= width <= next_one.width:
                low, high = one, next_one
        if low.width == high.width or not low.width <= width <= high.width:
            nearest = min(self.shapes, key=lambda shape: abs(math.log(shape.width / width)))
            return Shape(width, nearest.overhead_s, nearest.flops_a_s)
        share = math.log(width / low.width) / math.log(high.width / low.width)
        between = lambda a, b: a ** (1 - share) * b**share  # noqa: E731
        return Shape(width, between(low.overhead_s, high.overhead_s), between(low.flops_a_s, high.flops_a_s))


@dataclass(frozen=True)
class Forecast:
    """What a job should take. Memory is beyond what the process has at the start of training."""

    parameters: int
    trainable: int
    flops_a_token: float  # forward and backward
    tokens: float  # over the whole run
    seconds: float
    mib: float

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def count(model: nn.Module) -> tuple[int, int]:
    """Parameters and those of them that train. A word table of which only the rows in use are computed counts
    whole: the result is that of training it whole."""
    unused = sum(
        (m.num_embeddings - len(m.weight)) * m.weight.shape[1]
        for m in model.modules()
        if isinstance(m, RowsInUse)
    )
    total = sum(p.numel() for p in model.parameters()) + weights_held(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return total + unused, trainable + unused


def flops_a_token(model: Any, longest: float, *, passes: float | None = None) -> float:
    """Operations a token of one training step, forward and backward; `longest`: tokens of a long row.

    `passes` over the rows are given where the states of frozen layers are kept: those layers run once.
    """
    trunk: nn.Module = model.trunk
    linear = [p for n in linears_of(trunk) for p in trunk.get_submodule(n).parameters()]
    weights = sum(p.numel() for p in linear) + weights_held(trunk)
    trained = sum(p.numel() for p in linear if p.requires_grad)
    upper = _upper(trunk)
    forward = upper + (1.0 - upper) / (passes or 1.0)
    attention = 4.0 * len(layers_of(trunk)) * _width(trunk) * longest * (forward + 2.0 * upper)
    return 2.0 * weights * (forward + upper) + 2.0 * trained + attention


def forecast(
    model: Any,
    *,
    tokens_a_step: float,
    longest: float,
    steps: int,
    micro_tokens: int,
    pace: Pace,
    precision: str,
    passes: float | None = None,
) -> Forecast:
    """Forecast a training run of a Model whose trainable parameters are set.

    `tokens_a_step` and `longest` (tokens of a long row) describe the data; `pace` the machine; `passes` is as
    in `flops_a_token`.
    """
    trunk: nn.Module = model.trunk
    total, trainable = count(model)
    held = sum(p.numel() for p in model.parameters() if p.requires_grad)
    flops, n_layers = flops_a_token(model, longest, passes=passes), len(layers_of(trunk))
    shape = pace.at(_width(trunk))
    a_step = n_layers * shape.overhead_s * math.ceil(tokens_a_step / micro_tokens)
    a_step += tokens_a_step * flops / shape.flops_a_s + held * pace.update_s
    memory = _activations(model, min(micro_tokens, tokens_a_step), longest, precision) + held * 12
    if precision != "fp32":  # working copies
        memory += 2 * sum(p.numel() for p in model.parameters())
    return Forecast(total, trainable, flops, tokens_a_step * steps, a_step * steps, memory / 2**20)


def _activations(model: Any, tokens: float, longest: float, precision: str) -> float:
    """Bytes kept for the backward pass of a micro-batch of so many tokens."""
    trunk: nn.Module = model.trunk
    width, number = _width(trunk), 4 if precision == "fp32" else 2
    upper = _upper(trunk)
    if not upper:
        return 34 * width * tokens
    heads = int(getattr(trunk.config, "num_attention_heads", 1))
    return upper * len(layers_of(trunk)) * tokens * (34 * width + 5 * heads * longest) * number / 2


def _upper(trunk: nn.Module) -> float:
    """Share of the layers that gradients flow through; they end above what is frozen."""
    beside = hasattr(getattr(trunk, "added", None), "without_trunk")  # what trains lies outside the trunk
    return 0.0 if beside else 1.0 - frozen_depth(trunk) / len(layers_of(trunk))


def _width(trunk: Any) -> int:
    return int(trunk.config.hidden_size)
