"""What one layer costs in training, found by training one: its bytes kept for the backward pass, its seconds.

Formulas know neither what a method spares (a frozen linear layer keeps no input) nor how a family is built.
So the topmost layer of the very trunk, as its method left it, is set on a small word table and run, with
random weights where the trunk has shapes only: tens of milliseconds for a small base.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.models.heads import ClassHead
from penjing.models.layers import bare, layers_of, path_of
from penjing.models.linear_loss import PIECE, linear_loss
from penjing.models.load import quiet
from penjing.models.model import Model
from penjing.models.packing import NAME, Way
from penjing.models.word_head import words_of
from penjing.records import Batch

WORDS = 64  # of the small word table
SHAPES = ((4, 16), (16, 16), (4, 64))  # rows and tokens of each: fewer tokens, more, and longer rows
MOST_PARAMETERS = 1 << 28  # of a layer that is tried; beyond it, formulas must do
MOST_ASKED, MOST_WORDS = 512, 1 << 14  # tokens and words that a head over the vocabulary is tried with
TRIES = 3


@dataclass(frozen=True)
class LayerCost:
    """Of one layer that gradients flow through, in training."""

    token_bytes: float  # kept for the backward pass, a token
    pair_bytes: float  # more of them, a token and token of its row
    overhead_s: float  # of a micro-batch, however few its tokens
    token_s: float  # forward and backward, a token

    def bytes_of(self, tokens: float, longest: float) -> float:
        """Kept for the backward pass of `tokens` tokens in rows of `longest`."""
        return tokens * (self.token_bytes + self.pair_bytes * longest)


class Kept:
    """Counts bytes that autograd keeps for backward passes, a storage once, without those of parameters."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self._seen: dict[int, Tensor] = {}  # held, so that no address comes twice
        self.open = True

    @property
    def bytes(self) -> int:
        """So far."""
        return sum(t.untyped_storage().nbytes() for t in self._seen.values())

    @contextmanager
    def counting(self) -> Iterator[Kept]:
        """Inside, whatever a forward pass keeps is counted, while `open`."""

        def keep(tensor: Tensor) -> Tensor:
            place = tensor.untyped_storage().data_ptr()
            if self.open and place not in self._own:
                self._seen.setdefault(place, tensor.detach())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield self


def layer_cost(model: Model, device: torch.device) -> LayerCost | None:
    """What the topmost layer costs on this device; None where the base cannot be taken apart or is too large.

    `model` is prepared, with or without weights, and is left as it is.
    """
    layers = layers_of(model.trunk)
    if sum(p.numel() for p in layers[-1].parameters()) > MOST_PARAMETERS:
        return None
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            small = _miniature(model, device)
            few, many, long = (_batch(n, length, device) for n, length in SHAPES)
            kept, tokens, rows = zip(*(_kept(small, batch) for batch in (few, many, long)), strict=True)
            seconds = [_seconds(small, batch, device) for batch in (few, many)]
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        AssertionError,
        ZeroDivisionError,
    ):
        return None  # a base or method that needs its other layers
    flat = (kept[1] - kept[0]) / (tokens[1] - tokens[0])  # in short rows; working copies cancel out
    short, longer = tokens[1] / rows[1], tokens[2] / rows[2]
    constant = kept[1] - flat * tokens[1]
    pair = max(0.0, ((kept[2] - constant) / tokens[2] - flat) / (longer - short))
    token_s = max((seconds[1] - seconds[0]) / (tokens[1] - tokens[0]), 0.1 * seconds[1] / tokens[1])
    overhead = max(seconds[0] - tokens[0] * token_s, 0.01 * seconds[0])
    return LayerCost(max(0.0, flat - pair * short), pair, overhead, token_s)


def word_cost(model: Model, device: torch.device) -> float:
    """Seconds of a token that is asked for its word, forward and backward; 0 where the head says none.

    A table of many words is tried by some of them: the products are by the word.
    """
    head = words_of(model.head)
    if head is None:
        return 0.0
    n_words, width = head.out.weight.shape
    n = min(MOST_ASKED, max(16, PIECE // n_words))  # a piece of a run, or less
    tried, trains = min(n_words, MOST_WORDS), head.out.weight.requires_grad
    number = torch.float32 if model.precision == "fp32" else torch.bfloat16
    with torch.random.fork_rng(), torch.enable_grad():
        table = nn.Parameter(torch.randn(tried, width, device=device) * 0.02, requires_grad=trains)
        states = torch.randn(n, width, device=device, dtype=number, requires_grad=True)
        labels = torch.randint(0, tried, (n,), device=device)

        def step() -> None:
            table.grad = None
            linear_loss(states, table, None, labels).backward()

        return float(_best_s(step, device) / n * n_words / tried)


def _miniature(model: Model, device: torch.device) -> Model:
    """The trunk with its topmost layer only, a word table of WORDS rows, and the head, but for one that says
    words: that is tried by itself (`word_cost`)."""
    trunk: Any = model.trunk
    words = trunk.get_input_embeddings()
    table = nn.Embedding(WORDS, words.weight.shape[1])  # it trains, so gradients pass through the layer
    left_out = {id(layer): nn.Identity() for layer in layers_of(trunk)[:-1]}
    small = copy.deepcopy(trunk, {id(words): table, **left_out})
    del small.get_submodule(path_of(trunk))[:-1]
    config = bare(small).config
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, WORDS, 0
    head: nn.Module = ClassHead(int(config.hidden_size), 2, pooling="mean", dropout=0.0)
    if words_of(model.head) is None:
        head = copy.deepcopy(model.head)
    made = [_given_weights(part, device) for part in (small, head)]
    return Model(made[0], made[1], _way(model, bare(made[0]))).prepare(model.precision).train()


def _way(model: Model, small: Any) -> Way:
    """How it is run: as the model; where that has no weights to be tried with, as most of its kind."""
    known = next(model.trunk.parameters()).device.type != "meta"
    if known or "position_ids" not in inspect.signature(type(small).forward).parameters:
        return model.way
    with quiet():
        small.set_attn_implementation(NAME)
    return Way(True) if small.config._attn_implementation == NAME else model.way


def _given_weights(part: nn.Module, device: torch.device) -> nn.Module:
    """On the device; small random numbers where there were shapes only."""
    for module in part.modules():
        if isinstance(module, nn.Embedding):
            module._forward_hooks.clear()  # casts of the model it was copied from
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is None:
                    continue
                value = tensor.detach()
                if value.is_meta:
                    value = torch.empty_like(value, device=device)
                    value = value.normal_(std=0.02) if value.is_floating_point() else value.zero_()
                value = value.to(device, torch.float32 if value.is_floating_point() else None)
                if isinstance(tensor, nn.Parameter):
                    store[name] = nn.Parameter(value, requires_grad=tensor.requires_grad)
                else:
                    store[name] = value
    return part


def _batch(n_rows: int, length: int, device: torch.device) -> Batch:
    ids = torch.randint(1, WORDS, (n_rows * length,), device=device)
    return Batch(ids, torch.full((n_rows,), length), None, float(n_rows), tuple(range(n_rows)))


def _kept(model: Model, batch: Batch) -> tuple[int, int, int]:
    """Bytes kept by the layer, tokens that went through it (a method may add some), and rows."""
    layer = layers_of(model.trunk)[-1]
    counter = Kept(model)
    counter.open = False
    tokens: list[int] = []

    def begin(_: nn.Module, args: Any, keywords: Any) -> None:
        states: Tensor = args[0] if args else keywords["hidden_states"]
        tokens.append(states.numel() // states.shape[-1])
        counter.open = True

    def end(*_: Any) -> None:
        counter.open = False

    hooks = [layer.register_forward_pre_hook(begin, with_kwargs=True), layer.register_forward_hook(end)]
    try:
        with counter.counting():
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return counter.bytes, tokens[-1], len(batch.lengths)


def _seconds(model: Model, batch: Batch, device: torch.device) -> float:
    """Of forward and backward."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(batch).float().square().mean().backward()

    return _best_s(step, device)


def _best_s(step: Callable[[], None], device: torch.device) -> float:
    """The quickest of a few tries after one that warms up."""
    best = float("inf")
    for turn in range(1 + TRIES):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began) if turn else best
    return best
