"""How much of a model's answers hangs on its layers, heads and units.

Legend: S sequences, T tokens, D width, I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penjing.models.layers import layers_of
from penjing.models.model import Model
from penjing.models.modes import evaluating
from penjing.records import Batch, LossFunction


def tokens_of(x: Tensor, batch: Batch, *, packed: bool) -> Tensor:
    """(T, I) what a layer reads or gives of a batch's tokens, without the padding of padded bases."""
    if packed:
        return x.reshape(-1, x.shape[-1])
    there = torch.arange(x.shape[1])[None] < batch.lengths[:, None]
    return x[there.to(x.device)]


def influence(model: Model, batches: Sequence[Batch]) -> list[float]:
    """Of each layer 1 - the mean cosine of what enters and what leaves it, over tokens (ShortGPT's block
    influence, Men et al. 2024, arXiv 2403.03853, eq. 1): a layer of low influence changes little.
    """
    stack, device = layers_of(model.trunk), next(model.parameters()).device
    sums, counts = [0.0] * len(stack), [0] * len(stack)
    current: list[Batch] = []

    def look(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
            before = given[0] if given else named["hidden_states"]
            after = out[0] if isinstance(out, tuple) else out
            a, b = (tokens_of(x, current[0], packed=model.way.packed).double() for x in (before, after))
            cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)
            sums[number] += float(cosine.sum())
            counts[number] += len(cosine)

        return hook

    handles = [layer.register_forward_hook(look(i), with_kwargs=True) for i, layer in enumerate(stack)]
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                current[:] = [batch]
                model.states(batch.to(device))
    finally:
        for handle in handles:
            handle.remove()
    return [1 - total / max(1, n) for total, n in zip(sums, counts, strict=True)]


def sensitivity(
    model: Model, loss: LossFunction, batches: Sequence[Batch], units: Mapping[str, int]
) -> dict[str, Tensor]:
    """By first order, how much the loss changes without each unit: the sum over sequences of
    |sum of x dL/dx| over the unit's numbers x and the sequence's tokens (Michel et al. 2019, arXiv
    1905.10650, eq. 5; Molchanov et al. 2017), float64.

    `units`: names of linear layers and how many units (equal stretches) their inputs have.
    """
    device = next(model.parameters()).device
    found = {name: torch.zeros(n, dtype=torch.float64, device=device) for name, n in units.items()}
    for batch in batches:
        batch = batch.to(device)
        with evaluating(model), torch.enable_grad(), _entering(model.trunk, units) as entered:
            (loss(model, batch).mean * batch.n_targets).backward()
            for name, x in entered.items():
                if x.grad is None:  # no answer of this batch hangs on it
                    continue
                effect = (x.detach().double() * x.grad.double()).unflatten(-1, (units[name], -1)).sum(-1)
                found[name] += _each_sequence(effect, batch, packed=model.way.packed).abs().sum(0)
        model.zero_grad(set_to_none=True)
    return found


def activity(
    model: Model, batches: Sequence[Batch], units: Mapping[str, int], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """How much each unit adds to the states: the mean norm of its part of a linear layer's product, float64.

    `weights`: (O, I) of the same linear layers. Without labels or gradients.
    """
    device = next(model.parameters()).device
    found = {name: torch.zeros(n, dtype=torch.float64, device=device) for name, n in units.items()}
    grams = {}
    for name, n in units.items():
        parts = weights[name].double().unflatten(1, (n, -1)).movedim(1, 0)  # (U, O, size)
        grams[name] = parts.mT @ parts
    n_tokens = sum(batch.n_tokens for batch in batches)
    for batch in batches:
        with evaluating(model), torch.no_grad(), _entering(model.trunk, units) as entered:
            model.states(batch.to(device))
        for name, x in entered.items():
            own = tokens_of(x, batch, packed=model.way.packed).double().unflatten(-1, (units[name], -1))
            squared = ((own.movedim(1, 0) @ grams[name]).movedim(0, 1) * own).sum(-1)
            found[name] += squared.clamp(min=0).sqrt().sum(0) / n_tokens
    return found


def moments(model: Model, batches: Sequence[Batch], name: str) -> Tensor:
    """(I + 1, I + 1) float64: the sum over tokens of [x 1][x 1]' of what enters a linear layer."""
    device, total = next(model.parameters()).device, None
    for batch in batches:
        with evaluating(model), torch.no_grad(), _entering(model.trunk, {name: 1}) as entered:
            model.states(batch.to(device))
        own = tokens_of(entered[name], batch, packed=model.way.packed).float()
        own = torch.cat([own, own.new_ones(len(own), 1)], dim=1)
        outer = (own.T @ own).double()
        total = outer if total is None else total + outer
    assert total is not None, "no batch to look at"
    return total


@contextmanager
def _entering(trunk: nn.Module, names: Mapping[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Inside, what enters each of these linear layers is kept, and gradients get to it."""
    entered: dict[str, Tensor] = {}

    def look(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> Any:
            x = given[0]
            if torch.is_grad_enabled() and x.requires_grad:
                x.retain_grad()
            elif torch.is_grad_enabled():  # nothing below trains: gradients begin here
                x = x.detach().requires_grad_(True)
            entered[name] = x
            return (x, *given[1:])

        return hook

    handles = [trunk.get_submodule(name).register_forward_pre_hook(look(name)) for name in names]
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()


def _each_sequence(effect: Tensor, batch: Batch, *, packed: bool) -> Tensor:
    """(S, U) sums over the tokens of each sequence, of packed (1, T, U) or padded (S, L, U)."""
    if not packed:
        return effect.sum(1)
    owner = torch.repeat_interleave(batch.lengths).to(effect.device)
    return effect.new_zeros(len(batch.lengths), effect.shape[2]).index_add(0, owner, effect[0])
