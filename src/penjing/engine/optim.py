"""Optimizers, schedules and groups of parameters, with the field's usual exclusions.

Methods bring rates for AdamW. Lion's step is larger, so it takes a tenth of them; Muon's is scaled to be as
large as AdamW's; for SGD and Adafactor no factor holds, and the spec asks for a rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from penjing.engine.lion import Lion
from penjing.engine.together import Together
from penjing.errors import SpecError
from penjing.keys import TrainSpec
from penjing.models.embedding import RowsInUse
from penjing.models.layers import bare, depths_of, layers_of
from penjing.records import Method

# What does nothing but weight decay to a row without gradients, as RowsInUse wants it; Adafactor's rates
# depend on the whole table.
DECAY_ALONE = ("adamw", "lion", "muon")
# New layers of a head. banking77, 1,500 rows, 4 epochs, MiniLM, accuracy on validation rows: at the rate of
# the rest 0.746 (full) and 0.803 (LoRA); at 3e-3 0.855 (full), 5e-3 0.866 (LoRA), 1e-2 0.881 (full).
NEW, NEW_MOST, NEW_TIMES = 2.0, 5e-3, 50.0
# The hidden size that methods' rates are meant for, and how many times smaller a base still raises them.
USUAL, NARROW = 384, 4.0


def groups(model: nn.Module, settings: TrainSpec, lr: float) -> list[dict[str, object]]:
    """Parameters that train, by rate and decay: none of it on biases, norms and other vectors, whatever their
    shape (`is_vector`: factors of (IA)^3); lower layers slower by `layer_decay` each; the head at `head_lr`;
    all times the `rate_factor` that a method gave some (LoRA+). `hidden` tells which hold hidden matrices.
    """
    trunk = model.trunk
    inner = bare(trunk)  # type: ignore[arg-type]
    top = len(layers_of(inner)) + 1
    depths = depths_of(inner) if settings.layer_decay != 1.0 else {}
    hidden = _hidden_matrices(trunk)  # type: ignore[arg-type]
    made: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = id(parameter) in hidden
        rate = (settings.muon_lr if inside else None) or lr
        if name.startswith("head."):
            rate = settings.head_lr or lr
        elif depths:
            own = name.removeprefix("trunk.").removeprefix("base_model.model.")
            rate *= settings.layer_decay ** (top - depths.get(own, 0))  # VB-LoRA's bank is for all layers
        rate *= getattr(parameter, "rate_factor", 1.0)
        decay = 0.0 if _is_vector(parameter) else settings.weight_decay
        made.setdefault((rate, decay, inside), []).append(parameter)
    return [
        {"params": ps, "lr": rate, "weight_decay": decay, "peak": rate, "hidden": inside}
        for (rate, decay, inside), ps in made.items()
    ]


def _hidden_matrices(trunk: nn.Module) -> set[int]:
    """Ids of the trunk's matrices but for tables that rows are looked up in."""
    tables = [m for m in trunk.modules() if isinstance(m, nn.Embedding) or getattr(m, "looks_up_rows", False)]
    looked_up = {id(p) for table in tables for p in table.parameters(recurse=False)}
    return {id(p) for p in trunk.parameters() if p.ndim == 2 and not _is_vector(p)} - looked_up


def _is_vector(parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or getattr(parameter, "is_vector", False)


def own_rate(settings: TrainSpec, method: Method, width: int) -> float:
    """The peak rate of a run: the spec's, else the method's for AdamW, scaled, as the optimizer wants it.

    AdamW moves each weight by the rate, an output by the rate times its inputs: what trains matrices of the
    base takes a rate that goes with 1 / width, low-rank updates of them one with its root where B begins from
    0 (Hayou et al. 2024, arXiv 2406.08447); see `by_width`.
    """
    if settings.lr is not None:
        return settings.lr
    lr = method.lr * (settings.lr_scale or 1.0) * (0.1 if settings.optimizer == "lion" else 1.0)
    return lr * min(USUAL / width, NARROW) ** method.by_width


def quicken(head: nn.Module, trunk: nn.Module, settings: TrainSpec, lr: float) -> None:
    """Let layers of a head that begin from nothing learn faster than the base below, where `lr` is little for
    them: AdamW moves each weight by the rate, an output by the rate times its inputs, so the rate goes with
    1 / fan-in (Yang et al. 2022, arXiv 2203.03466). `head_lr` overrides it. SGD moves otherwise, and where
    the head trains alone, `lr` is its own.
    """
    alone = not any(p.requires_grad for p in trunk.parameters())
    if settings.head_lr is not None or settings.optimizer == "sgd" or alone:
        return
    scale = 0.1 if settings.optimizer == "lion" else 1.0
    for parameter in head.parameters():
        fan_in = getattr(parameter, "fan_in", None)
        if fan_in is not None:
            times = scale * min(NEW_MOST, NEW / fan_in) / lr
            parameter.rate_factor = min(max(1.0, times), NEW_TIMES)  # type: ignore[attr-defined]


def optimizer(model: nn.Module, settings: TrainSpec, lr: float) -> Optimizer:
    """The optimizer over `groups`."""
    made = groups(model, settings, lr)
    if settings.optimizer == "lion":
        return Lion(made, lr, betas=settings.betas or (0.9, 0.99))
    if settings.optimizer == "muon":
        return _muon(made, settings, lr)
    if settings.optimizer == "sgd":
        momentum = 0.9 if settings.momentum is None else settings.momentum
        whole = not any(isinstance(p, DTensor) for p in model.parameters())  # torch fuses no shares here
        return torch.optim.SGD(made, lr=lr, momentum=momentum, fused=whole)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(made, lr=lr)
    return _adamw(made, settings, lr)


def _adamw(made: list[dict[str, object]], settings: TrainSpec, lr: float) -> Optimizer:
    return torch.optim.AdamW(made, lr=lr, betas=settings.betas or (0.9, 0.999), eps=settings.eps, fused=True)


def _muon(made: list[dict[str, object]], settings: TrainSpec, lr: float) -> Optimizer:
    """Muon (Jordan et al. 2024) for hidden matrices, AdamW for the rest.

    With a rate of its own, an update of shape (m, n) is scaled by sqrt(max(1, m / n)) as in Jordan's; else
    by 0.2 sqrt(max(m, n)), with which it is as large as AdamW's and takes its rate and decay (Liu et al.
    2025, arXiv 2502.16982, section 2.2).
    """
    matrices, rest = ([group for group in made if group["hidden"] is kind] for kind in (True, False))
    if not matrices:
        raise SpecError(
            "`train.optimizer: muon` moves hidden matrices of the base; none of them train here. Take "
            "`adamw`, or a method that trains some."
        )
    muon = torch.optim.Muon(
        matrices,
        lr=lr,
        momentum=0.95 if settings.momentum is None else settings.momentum,
        adjust_lr_fn="match_rms_adamw" if settings.muon_lr is None else "original",
    )
    return Together(muon, _adamw(rest, settings, lr)) if rest else muon


def schedule(settings: TrainSpec, steps: int) -> Callable[[int], float]:
    """Share of the peak rate at step 0, 1, …: warm-up from 0, then decay to `floor` (transformers'
    formulas; `wsd`: constant, then linear over the last `cooldown` of the steps, Hu et al. 2024, MiniCPM).
    """
    warm = round(settings.warmup * steps) if settings.warmup < 1 else int(settings.warmup)
    floor = settings.floor

    def share(step: int) -> float:
        fallen = decay(step)
        return fallen if step < warm or not floor else floor + (1.0 - floor) * fallen

    def decay(step: int) -> float:
        if step < warm:
            return step / max(1, warm)
        if settings.schedule == "constant":
            return 1.0
        if settings.schedule == "inverse_sqrt":
            scale = warm or 10_000
            return 1.0 / math.sqrt((step + scale - warm) / scale)
        if settings.schedule == "wsd":
            return min(1.0, (steps - step) / max(1.0, settings.cooldown * steps))
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


def decay_unused_rows(tables: Sequence[RowsInUse], optimizer: Optimizer) -> None:
    """Follow with one scalar what this update's weight decay did to word rows that are not in use."""
    for table in tables:
        for group in optimizer.param_groups:
            if any(p is table.weight for p in group["params"]):
                table.decay *= 1.0 - group["lr"] * group["weight_decay"]
