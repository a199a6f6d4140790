"""What a preset to grow costs: parameters, operations a token, memory to train by method and precision."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from penjing import plugin
from penjing.models.grow import config_of, fresh
from penjing.models.layers import layers_of
from penjing.models.shapes import SHAPES
from penjing.models.sizing import Pace, Shape, Work, flops_a_token, forecast

METHODS = ("full", "lora")
PRECISIONS = ("fp32", "bf16")
TOKENS = 8192  # at once: the default of `train.micro_tokens`
NO_PACE = Pace((Shape(1, 0.0, 1.0),), 0.0)  # no time is told: that is the machine's


@dataclass(frozen=True)
class Card:
    """Figures of a preset with as many words as it was published with."""

    parameters: int
    words: int  # rows of the word table; 0: it sees
    a_word: int  # parameters
    longest: int  # tokens of the rows that the figures are for
    flops: dict[str, float]  # a token forward and backward, by part
    head_flops: float  # more for each token that a language model predicts
    mib: dict[str, dict[str, float]]  # to train the trunk: method, precision


def card_of(name: str, longest: int = 128) -> Card:
    """The card of a preset, computed from its shapes; no weight is made.

    longest: tokens of a row, at most as many as the preset has places for; an image has its own number.
    """
    config = config_of(name)
    with torch.device("meta"):
        model = fresh(config, 0)
    words = int(getattr(config, "vocab_size", 0) or 0) if SHAPES[name].words else 0
    places = getattr(config, "max_position_embeddings", None) or longest
    longest = min(longest, int(places)) if words else (config.image_size // config.patch_size) ** 2 + 1
    parts = {"": model}
    if config.is_encoder_decoder:
        parts = {"encoder": model.encoder, "decoder": model.decoder}
    flops = {part: flops_a_token(SimpleNamespace(trunk=trunk), longest) for part, trunk in parts.items()}
    width = int(config.hidden_size)
    if "decoder" in flops:  # it also looks at as many tokens of the encoder
        flops["decoder"] += 12.0 * len(layers_of(parts["decoder"])) * width * longest
    return Card(
        parameters=sum(p.numel() for p in model.parameters()),
        words=words,
        a_word=width if words else 0,
        longest=longest,
        flops=flops,
        head_flops=6.0 * words * width,
        mib={} if config.is_encoder_decoder else _memory(config, longest),
    )


def _memory(config: Any, longest: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name in METHODS:
        with torch.device("meta"):
            trunk = plugin.build("methods", plugin.Choice(name, {})).apply(fresh(config, 0))
        model: Any = SimpleNamespace(
            trunk=trunk, head=None, parameters=trunk.parameters, modules=trunk.modules
        )
        weights = sum(p.numel() for p in trunk.parameters()) * 4 / 2**20
        found[name] = {p: weights + _training_mib(model, longest, p) for p in PRECISIONS}
    return found


def _training_mib(model: Any, longest: int, precision: str) -> float:
    work = Work(steps=1, tokens_a_step=TOKENS, longest=longest, micro_tokens=TOKENS, widest=TOKENS)
    expected = forecast(model, work, pace=NO_PACE, precision=precision)
    return expected.mib
