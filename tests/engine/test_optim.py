"""Optimizers, schedules and groups against transformers' formulas and hand computation."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from common import FAMILIES
from penjing.engine.optim import groups, optimizer, own_rate, schedule, set_rates
from penjing.keys import TrainSpec
from penjing.methods.ia3 import ia3
from penjing.methods.lora import lora
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Method

Tiny = Callable[..., Path]


def model_of(folder: Path) -> Model:
    base = load(str(folder))
    return Model(
        base.trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0, dense=base.pooler), base.way
    )


def rates(model: Model, **settings: Any) -> dict[str, float]:
    """The peak rate of each parameter, where the run's rate is 1."""
    of = {id(p): g["peak"] for g in groups(model, TrainSpec(**settings), 1.0) for p in g["params"]}  # type: ignore[attr-defined]
    return {name: of[id(p)] for name, p in model.named_parameters() if id(p) in of}


def decays(model: Model, **settings: Any) -> dict[str, float]:
    of = {id(p): g["weight_decay"] for g in groups(model, TrainSpec(**settings), 1.0) for p in g["params"]}  # type: ignore[attr-defined]
    return {name: of[id(p)] for name, p in model.named_parameters() if id(p) in of}


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "inverse_sqrt"])
def test_schedules_are_those_of_transformers(name: str, warmup: float) -> None:
    from transformers import get_scheduler

    steps = 40
    warm = round(warmup * steps) if warmup < 1 else int(warmup)
    weight = nn.Parameter(torch.zeros(1))
    peer = torch.optim.SGD([weight], lr=1.0)
    known = {"constant": "constant_with_warmup"}.get(name, name)
    scheduler = get_scheduler(known, peer, num_warmup_steps=warm, num_training_steps=steps)
    share = schedule(TrainSpec(schedule=name, warmup=warmup), steps)  # type: ignore[arg-type]
    for step in range(steps):
        assert share(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12), step
        weight.grad = torch.zeros(1)
        peer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "inverse_sqrt"])
def test_the_rate_never_leaps(name: str) -> None:
    share = schedule(TrainSpec(schedule=name, warmup=20), 200)  # type: ignore[arg-type]
    values = [share(step) for step in range(200)]
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) < 0.06
    assert max(values) == pytest.approx(1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_norms_and_other_vectors_do_not_decay(family: str, tiny: Tiny) -> None:
    model = model_of(tiny(family))
    found = decays(model, weight_decay=0.3)
    for name, parameter in model.named_parameters():
        assert found[name] == (0.3 if parameter.ndim > 1 else 0.0), name
        if "norm" in name.lower() or "ln_" in name or name.endswith("bias"):
            assert found[name] == 0.0, name


def test_factors_that_begin_at_one_do_not_decay_to_nothing(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    model = Model(ia3().apply(base.trunk), ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)
    listed = groups(model, TrainSpec(weight_decay=0.3), 1.0)
    plain = {id(p) for g in listed if g["weight_decay"] == 0 for p in g["params"]}  # type: ignore[attr-defined]
    assert all(id(p) in plain for name, p in model.named_parameters() if "ia3_l" in name)
    assert not any(g["hidden"] for g in listed)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_that_trains_is_in_one_group_and_no_other(family: str, tiny: Tiny) -> None:
    model = model_of(tiny(family))
    next(iter(model.trunk.parameters())).requires_grad_(False)
    listed = [id(p) for g in groups(model, TrainSpec(), 1.0) for p in g["params"]]  # type: ignore[attr-defined]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_lower_layers_of_bert_learn_slower_by_depth(tiny: Tiny) -> None:
    found = rates(model_of(tiny("bert", num_hidden_layers=3)), layer_decay=0.5)
    for name, rate in found.items():
        depth = 4 if name.startswith("head.") else 0
        if name.startswith("trunk.encoder.layer."):
            depth = int(name.split(".")[3]) + 1
        assert rate == 0.5 ** (4 - depth), name


def test_lower_layers_of_gpt2_learn_slower_by_depth(tiny: Tiny) -> None:
    found = rates(model_of(tiny("gpt2")), layer_decay=0.5)
    wanted = {"wte": 0.125, "wpe": 0.125, "h.0.ln_1": 0.25, "h.1.ln_1": 0.5, "ln_f": 1.0}
    assert {name: found[f"trunk.{name}.weight"] for name in wanted} == wanted


def test_the_one_layer_of_albert_learns_slower_than_the_head(tiny: Tiny) -> None:
    found = rates(model_of(tiny("albert")), layer_decay=0.5)
    layer = {rate for name, rate in found.items() if "albert_layer_groups" in name}
    below = {rate for name, rate in found.items() if "embed" in name}
    assert (layer, below) == ({0.5}, {0.25})


def test_lora_below_learns_slower_too(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    trunk = lora(rank=2).apply(base.trunk)
    found = rates(Model(trunk, ClassHead(32, 3, pooling="cls", dropout=0.0), base.way), layer_decay=0.5)
    assert {rate for name, rate in found.items() if ".layer.0." in name} == {0.25}
    assert {rate for name, rate in found.items() if ".layer.1." in name} == {0.5}


def test_the_head_can_have_a_rate_of_its_own(tiny: Tiny) -> None:
    found = rates(model_of(tiny("bert")), head_lr=7.0)
    assert {rate for name, rate in found.items() if name.startswith("head.")} == {7.0}
    assert {rate for name, rate in found.items() if name.startswith("trunk.")} == {1.0}


def test_the_schedule_moves_all_rates_alike(tiny: Tiny) -> None:
    model = model_of(tiny("bert"))
    made = optimizer(model, TrainSpec(head_lr=0.5, layer_decay=0.5), 0.1)
    assert set_rates(made, 0.2) == pytest.approx(0.1)
    assert sorted({g["lr"] for g in made.param_groups}) == pytest.approx(
        [0.2 * 0.1 * 0.5 ** (3 - d) for d in range(3)] + [0.2 * 0.5]
    )


def steps_of(made: Optimizer, model: nn.Module, n: int) -> list[float]:
    """The losses of `n` updates on one batch."""
    x, y = torch.randn(64, 8), torch.arange(64) % 3
    losses = []
    for _ in range(n):
        made.zero_grad()
        loss = nn.functional.cross_entropy(model.head(model.trunk(x)), y)
        loss.backward()
        made.step()
        losses.append(float(loss.detach()))
    return losses


class Net(nn.Module):
    """What `groups` asks of a model: a trunk with a stack of layers, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), Stack())
        self.head = nn.Linear(16, 3)


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


@pytest.mark.parametrize(("name", "lr"), [("adamw", 1e-2), ("sgd", 0.1), ("adafactor", 5e-2)])
def test_every_optimizer_lowers_the_loss_in_thirty_steps(name: str, lr: float) -> None:
    model = Net()
    losses = steps_of(optimizer(model, TrainSpec(optimizer=name), lr), model, 30)  # type: ignore[arg-type]
    assert losses[-1] < losses[0] - 0.05


def test_adamw_is_torch_adamw_with_the_settings_given() -> None:
    model, peer = Net(), Net()
    peer.load_state_dict(model.state_dict())
    settings = TrainSpec(betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1)
    torch.manual_seed(0)
    steps_of(optimizer(model, settings, 1e-2), model, 5)
    matrices = [p for p in peer.parameters() if p.ndim > 1]
    vectors = [p for p in peer.parameters() if p.ndim < 2]
    made = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.8, 0.9),
        eps=1e-6,
    )
    torch.manual_seed(0)
    steps_of(made, peer, 5)
    for ours, theirs in zip(model.parameters(), peer.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_sgd_decays_and_has_momentum() -> None:
    made = optimizer(Net(), TrainSpec(optimizer="sgd", momentum=0.7, weight_decay=0.1), 0.1)
    assert {g["momentum"] for g in made.param_groups} == {0.7}
    assert {g["weight_decay"] for g in made.param_groups} == {0.0, 0.1}


def test_the_rate_is_the_specs_or_the_methods_own_scaled() -> None:
    method = Method("lora", lambda trunk: trunk, lr=1e-3, saves="peft")
    assert own_rate(TrainSpec(lr=0.5), method, 64) == 0.5
    assert own_rate(TrainSpec(lr_scale=3.0), method, 64) == pytest.approx(3e-3)
    assert own_rate(TrainSpec(lr_scale=3.0, optimizer="lion"), method, 64) == pytest.approx(3e-4)


def test_a_rate_by_width_falls_as_bases_grow_wider() -> None:
    method = Method("full", lambda trunk: trunk, lr=1e-4, saves="full", by_width=1.0)
    rates = {width: own_rate(TrainSpec(), method, width) for width in (16, 128, 384, 768, 4096)}
    assert rates == pytest.approx({16: 4e-4, 128: 3e-4, 384: 1e-4, 768: 5e-5, 4096: 9.375e-6})
    assert own_rate(TrainSpec(lr=0.5), method, 768) == 0.5
    assert own_rate(TrainSpec(lr_scale=2.0, optimizer="lion"), method, 768) == pytest.approx(1e-5)
    by_root = replace(method, by_width=0.5)
    assert own_rate(TrainSpec(), by_root, 4 * 384) == pytest.approx(5e-5)
