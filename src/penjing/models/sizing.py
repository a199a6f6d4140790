"""What a job will need before it runs: parameters, operations, memory, time.

Operations: 2 a weight and token forward, 2 for activation gradients, 2 for weight gradients (only where
weights train). Memory: what one layer keeps for its backward pass is counted by running it (`miniature`),
and where that cannot be, taken from Korthikanti et al. 2022 (arXiv 2205.05198): 34 bytes a token and width at
two bytes a number, plus 5 a head and pair of tokens. Time: what that layer took, or operations over the rate
of a layer of like width (`calibrate`), plus what an update costs however few tokens there are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from penjing.models.embedding import RowsInUse
from penjing.models.four_bit import weights_held
from penjing.models.frozen import frozen_depth
from penjing.models.layers import bare, layers_of, linears_of
from penjing.models.linear_loss import PIECE
from penjing.models.miniature import LayerCost
from penjing.models.word_head import words_of

MOMENTS = {"adamw": 8, "lion": 4, "muon": 4, "sgd": 4, "adafactor": 1}  # bytes a parameter that trains
MARGIN_MIB, MARGIN_S = 1.15, 1.35  # a forecast times this is not passed: bench/plan.py
# oneDNN keeps a kernel of each size of two-byte product it has met, 1,024 at most, and hardly two batches
# have as many tokens: MiB a step, tokens of a batch that make another size likely, and MiB in all.
KERNELS_MIB, SIZES, MOST_KERNELS_MIB = 12, 25, 220
OWN_MIB = 25  # that libraries take of a CPU's memory with the first step
HEAP = 1.3  # resident over alive, of activations on a CPU: glibc's heap has holes (bench/plan.py)
WINDOW = 50  # batches whose rows are sorted by length together (data/batches.py)


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
class Work:
    """What a run feeds a model."""

    steps: int
    tokens_a_step: float
    longest: float  # tokens of a long row
    micro_tokens: int  # at most so many at once
    widest: float  # tokens of the largest micro-batch
    scored: float = 0.0  # tokens of the largest piece that is scored, without gradients
    asked: float = 0.0  # share of the tokens of which a head over the vocabulary is asked for a word


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


def work_of(
    lengths: np.ndarray, *, n_rows: int, batch: int, steps: int, micro_tokens: int, grouped: bool = True
) -> Work:
    """The work of a run over `n_rows` rows; `lengths` are the tokens of those, or of some of them."""
    size, ordered = min(batch, n_rows), np.sort(lengths)
    mean = float(lengths.mean()) * size
    if grouped:  # the batch of a window's longest rows
        batches = min(WINDOW, math.ceil(n_rows / size))
        top = ordered[-max(1, round(len(ordered) / batches)) :]
        widest = float(top.mean()) * size
    else:
        top = ordered[-max(1, len(ordered) // 20) :]
        widest = mean + 3.0 * float(lengths.std()) * math.sqrt(size)
    return Work(
        steps=steps,
        tokens_a_step=mean,
        longest=float(top.mean()),
        micro_tokens=micro_tokens,
        widest=min(widest, max(micro_tokens, float(ordered[-1]))),
        scored=min(micro_tokens, float(lengths.mean()) * n_rows),
    )


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
    turns = n_layers(trunk) / len(layers_of(trunk))
    weights = turns * (sum(p.numel() for p in linear) + weights_held(trunk))
    trained = turns * sum(p.numel() for p in linear if p.requires_grad)
    upper = _upper(trunk)
    forward = upper + (1.0 - upper) / (passes or 1.0)
    attention = 4.0 * n_layers(trunk) * _width(trunk) * longest * (forward + 2.0 * upper)
    return 2.0 * weights * (forward + upper) + 2.0 * trained + attention


def forecast(
    model: Any,
    work: Work,
    *,
    pace: Pace,
    precision: str,
    layer: LayerCost | None = None,
    word_s: float | None = None,
    optimizer: str = "adamw",
    passes: float | None = None,
    cpu: bool = True,
) -> Forecast:
    """Forecast a training run of a Model whose trainable parameters are set.

    `pace` is the machine's; `layer` what the topmost layer cost there, and `word_s` a token that is asked
    for its word, where that was tried; `passes` as in `flops_a_token`; `cpu`: its memory has holes, and holds
    kernels.
    """
    total, trainable = count(model)
    flops = flops_a_token(model, work.longest, passes=passes)
    held = sum(p.numel() for p in model.parameters() if p.requires_grad)
    a_step = held * pace.update_s + _layers_s(model, work, flops, pace, layer, passes)
    if word_s is None:
        word_s = word_flops(*table_of(model.head)) / pace.at(_width(model.trunk)).flops_a_s
    a_step += work.tokens_a_step * work.asked * word_s
    memory = _memory(model, work, precision, layer, optimizer, cpu)
    return Forecast(
        total, trainable, flops, work.tokens_a_step * work.steps, a_step * work.steps, memory / 2**20
    )


def reading(
    trunk: nn.Module,
    work: Work,
    *,
    pace: Pace,
    precision: str,
    layer: LayerCost | None = None,
    cpu: bool = True,
) -> tuple[float, float]:
    """Seconds of a step's rows, and MiB, of a trunk that only reads them: a third of a step that trains all
    of it, and no gradients. `pace`, `layer`, `cpu`: as in `forecast`."""
    width, number = _width(trunk), 4 if precision == "fp32" else 2
    trunk.requires_grad_(True)
    model = SimpleNamespace(trunk=trunk)
    forward_s = _layers_s(model, work, flops_a_token(model, work.longest), pace, layer, None) / 3
    weights = number * (sum(p.numel() for p in trunk.parameters()) + weights_held(trunk))
    passing = (HEAP if cpu else 1.0) * number * (2 * _widest_linear(trunk) + 4 * width) * work.widest
    return forward_s, (weights + passing) / 2**20


def _layers_s(
    model: Any, work: Work, flops: float, pace: Pace, layer: LayerCost | None, passes: float | None
) -> float:
    """Seconds of a step's forward and backward passes."""
    pieces = math.ceil(work.tokens_a_step / work.micro_tokens)
    depth, upper = n_layers(model.trunk), _upper(model.trunk)
    if layer is None:
        shape = pace.at(_width(model.trunk))
        return depth * shape.overhead_s * pieces + work.tokens_a_step * flops / shape.flops_a_s
    whole = layer.overhead_s * pieces + layer.token_s * work.tokens_a_step
    return depth * whole * (upper + (1.0 - upper) / (3.0 * (passes or 1.0)))


def _memory(
    model: Any, work: Work, precision: str, layer: LayerCost | None, optimizer: str, cpu: bool
) -> float:
    """Bytes at the highest point of a run, beyond weights."""
    number, heap = 4 if precision == "fp32" else 2, HEAP if cpu else 1.0
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    held, widest_linear = sum(trained), _widest_linear(model.trunk)
    state = held * MOMENTS[optimizer] + (held * 2 if number == 2 else 0)  # moments and working copies
    passing = float(number) * (
        2 * widest_linear + 4 * _width(model.trunk)
    )  # a token, on its way through a layer
    activations = activation_bytes(model, work.widest, work.longest, precision, layer)
    backward = heap * (activations + (passing * work.widest if activations else 0.0))
    backward += _words_bytes(table_of(model.head), work, number)
    grads = 4.0 * held
    tables = sum(
        4 * m.num_embeddings * m.weight.shape[1] for m in model.modules() if isinstance(m, RowsInUse)
    )
    scoring = heap * passing * work.scored + tables
    met = min(work.steps, work.widest / SIZES)
    kernels = min(KERNELS_MIB * met, MOST_KERNELS_MIB) * 2**20 if cpu and number == 2 else 0.0
    own = OWN_MIB * 2**20 if cpu else 0.0
    return float(own + state + kernels + max(backward + 0.6 * grads, grads, scoring))


def activation_bytes(
    model: Any, tokens: float, longest: float, precision: str, layer: LayerCost | None = None
) -> float:
    """Bytes kept for the backward pass of a micro-batch of so many tokens."""
    trunk: nn.Module = model.trunk
    width, number = _width(trunk), 4 if precision == "fp32" else 2
    depth, upper = n_layers(trunk), _upper(trunk)
    if not upper:
        return 34.0 * width * tokens if hasattr(trunk, "added") else 0.0
    if layer is not None:
        each = layer.bytes_of(tokens, longest)
    else:
        heads = int(getattr(bare(trunk).config, "num_attention_heads", 1))
        each = tokens * (34 * width + 5 * heads * longest) * number / 2
    if any(getattr(module, "gradient_checkpointing", False) for module in trunk.modules()):
        return upper * depth * tokens * width * number + each  # each layer's input, and one layer whole
    return upper * depth * each


def table_of(head: nn.Module | None) -> tuple[int, int]:
    """Words and width of the table that a head says words by; zeros where it says none."""
    found = words_of(head) if head is not None else None
    return (0, 0) if found is None else (found.out.weight.shape[0], found.out.weight.shape[1])


def word_flops(words: int, width: int) -> float:
    """Operations of a token that is asked for its word, forward and backward."""
    return 6.0 * words * width


def _words_bytes(table: tuple[int, int], work: Work, number: int) -> float:
    """A piece of the logits (`linear_loss`), and what its product adds to the table's gradient."""
    words, width = table
    logits = min(float(PIECE), work.asked * work.widest * words)
    return logits * (4 if number == 4 else 6) + (4.0 * words * width if logits else 0.0)


def n_layers(trunk: nn.Module) -> int:
    """Layers that a token goes through; ALBERT's one is gone through often."""
    return max(len(layers_of(trunk)), int(getattr(bare(trunk).config, "num_hidden_layers", 0)))


def _upper(trunk: nn.Module) -> float:
    """Share of the layers that gradients flow through; they end above what is frozen."""
    beside = hasattr(getattr(trunk, "added", None), "without_trunk")  # what trains lies outside the trunk
    return 0.0 if beside else 1.0 - frozen_depth(trunk) / len(layers_of(trunk))


def _width(trunk: nn.Module) -> int:
    return int(bare(trunk).config.hidden_size)


def _widest_linear(trunk: nn.Module) -> int:
    """The most numbers that a linear layer of the stack makes of a token."""
    linear: list[Any] = [trunk.get_submodule(name) for name in linears_of(trunk)]
    wide = [getattr(module, "out_features", 0) or max(module.weight.shape) for module in linear]
    return max(wide, default=_width(trunk))
