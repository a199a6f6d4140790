"""Optimizers, schedules and groups of parameters: plain torch, with the field's usual exclusions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from penjing.models.embedding import RowsInUse
from penjing.models.layers import bare, depth_of, layers_of
from penjing.spec import TrainSpec


def groups(model: nn.Module, settings: TrainSpec, lr: float) -> list[dict[str, object]]:
    """Parameters that train, by rate and decay: none of it on biases, norms and other vectors; lower layers
    slower by `layer_decay` each; the head at `head_lr`.
    """
    trunk = model.trunk
    inner = bare(trunk)  # type: ignore[arg-type]
    top = len(layers_of(inner)) + 1
    decay_depth = settings.layer_decay != 1.0
    made: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = lr
        if name.startswith("head."):
            rate = settings.head_lr or lr
        elif decay_depth:
            own = name.removeprefix("trunk.").removeprefix("base_model.model.")
            rate = lr * settings.layer_decay ** (top - depth_of(inner, own))
        decay = 0.0 if parameter.ndim < 2 else settings.weight_decay
        made.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": ps, "lr": rate, "weight_decay": decay, "peak": rate} for (rate, decay), ps in made.items()
    ]


def optimizer(model: nn.Module, settings: TrainSpec, lr: float) -> Optimizer:
    """The optimizer over `groups`."""
    made = groups(model, settings, lr)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(made, lr=lr, betas=settings.betas, eps=settings.eps, fused=True)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(made, lr=lr, momentum=settings.momentum, fused=True)
    return torch.optim.Adafactor(made, lr=lr)


def schedule(settings: TrainSpec, steps: int) -> Callable[[int], float]:
    """Share of the peak rate at step 0, 1, …: warm-up from 0, then decay (transformers' formulas)."""
    warm = round(settings.warmup * steps) if settings.warmup < 1 else int(settings.warmup)

    def share(step: int) -> float:
        if step < warm:
            return step / max(1, warm)
        if settings.schedule == "constant":
            return 1.0
        if settings.schedule == "inverse_sqrt":
            scale = warm or 10_000
            return 1.0 / math.sqrt((step + scale - warm) / scale)
        done = (step - warm) / max(1, steps - warm)
        if settings.schedule == "linear":
            return max(0.0, 1.0 - done)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))

    return share


def set_rates(optimizer: Optimizer, share: float) -> float:
    """Set every group to its peak times `share`; returns the largest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return max(float(g["lr"]) for g in optimizer.param_groups)


def decay_unused_rows(model: nn.Module, optimizer: Optimizer) -> None:
    """Follow with one scalar what this update's weight decay did to word rows that are not in use."""
    for module in model.modules():
        if isinstance(module, RowsInUse):
            for group in optimizer.param_groups:
                if any(p is module.weight for p in group["params"]):
                    module.decay *= 1.0 - group["lr"] * group["weight_decay"]
