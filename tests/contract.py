"""What one method does on one tiny base, lived through once; tests and docs/make_bases.py read what was seen.

`story("lora", folder)` loads the base, applies the method, trains, saves and loads, and notes what it saw.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing import bundle as bundles
from penjing import plugin
from penjing.data.batches import pack
from penjing.device import Machine
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.engine.scoring import outputs
from penjing.keys import TrainSpec
from penjing.models import packing
from penjing.models.heads import ClassHead
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Batch, Method, Tokens
from penjing.tasks.classify import classify

# Settings that a base of 2 layers and width 32 needs, or that must be given.
SETTINGS: dict[str, dict[str, Any]] = {
    "top": {"layers": 1},
    "lora": {"rank": 4},
    "adalora": {"rank": 2, "start_rank": 4},
    "peft": {"peft_type": "VERA", "r": 8},
}
RATES = {"adalora": 3e-2, "ia3": 3e-2, "peft": 3e-2}  # in twelve steps; others take 3e-3
STEPS = 12
LENGTHS = np.array([6] * 6 + [9] * 6)
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
LABELS = np.arange(len(LENGTHS)) % 3
CPU = Machine(torch.device("cpu"), "fp32", 1)


@dataclass(frozen=True)
class Story:
    """What was seen. Gaps are largest differences; `adapter_gap` is None without an adapter of layers."""

    method: Method
    trained: int  # parameters of the trunk
    trunk: int
    start_gap: float
    unreached: list[str]  # trained, and no gradient came; or frozen, and one came
    fall: float  # of the loss, by training
    frozen_stayed: bool
    trained_moved: bool
    reload_gap: float
    adapter_gap: float | None
    stored: int  # numbers in the files of weights, but the head's and a whole trunk's layer over CLS


def method_of(name: str) -> Method:
    """The method with settings for tiny bases."""
    built: Method = plugin.build("methods", plugin.Choice(name, SETTINGS.get(name, {})))
    return built


def states(base: Base, trunk: nn.Module) -> Tensor:
    """Last hidden states of the twelve sequences, without dropout."""
    with torch.no_grad():
        return packing.run(trunk.eval(), base.way, torch.from_numpy(TOKENS.ids).long(), LENGTHS.tolist())


def digest(parameters: list[nn.Parameter]) -> str:
    """SHA-256 over these weights."""
    state = hashlib.sha256()
    for parameter in parameters:
        state.update(parameter.detach().numpy().tobytes())
    return state.hexdigest()


def stream() -> Iterator[list[Batch]]:
    """The twelve rows, for ever."""
    while True:
        yield [pack(TOKENS, np.arange(len(LENGTHS)), LABELS)]


def story(name: str, folder: Path, method: Method | None = None) -> Story:
    """Live through it.

    Raises:
        NotSupported: the method does not work on this base, and says so.
    """
    torch.manual_seed(0)
    base = load(str(folder))
    before = states(base, base.trunk)
    method = method or method_of(name)
    trunk = method.apply(base.trunk)
    start_gap = float((states(base, trunk) - before).abs().max())
    model = Model(trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way).prepare("fp32")
    unreached = _unreached(model)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    trained = [p for p in model.trunk.parameters() if p.requires_grad]
    still, moving = digest(frozen), digest(trained)
    fall = _trained(model, method, RATES.get(name, 3e-3))
    with tempfile.TemporaryDirectory() as place:
        reload_gap, adapter_gap, stored = _saved(model, base, method, Path(place) / "bundle")
    return Story(
        method=method,
        trained=sum(p.numel() for p in trained),
        trunk=sum(p.numel() for p in trunk.parameters()),
        start_gap=start_gap,
        unreached=unreached,
        fall=fall,
        frozen_stayed=digest(frozen) == still,
        trained_moved=digest(trained) != moving,
        reload_gap=reload_gap,
        adapter_gap=adapter_gap,
        stored=stored,
    )


def _unreached(model: Model) -> list[str]:
    """Names of parameters whose gradients are not as `requires_grad` says. What was moved is put back."""
    kept = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():  # what begins at zero (LoRA's B) lets no gradient through to the rest
        for name in kept:
            model.get_parameter(name).add_(0.01 * torch.randn_like(kept[name]))
    classify().loss(model.train(), next(stream())[0]).mean.backward()
    wrong = []
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None
        silent = (
            reached and not parameter.grad.any() and "bias" not in name
        )  # a key's bias moves no attention
        if reached != parameter.requires_grad or silent:
            wrong.append(name)
    model.zero_grad()
    with torch.no_grad():
        for name, value in kept.items():
            model.get_parameter(name).copy_(value)
    return wrong


def _trained(model: Model, method: Method, rate: float) -> float:
    """Train; by how much the loss fell."""
    settings = TrainSpec(warmup=0, schedule="constant")
    techniques = method.techniques(model.trunk, STEPS) if method.techniques else ()

    def loss() -> float:
        with torch.no_grad():
            return float(classify().loss(model.eval(), next(stream())[0]).mean)

    first = loss()
    made, share = optim.optimizer(model, settings, rate), optim.schedule(settings, STEPS)
    for _ in train_steps(model, stream(), classify().loss, made, share, steps=STEPS, techniques=techniques):
        pass
    return first - loss()


def _saved(model: Model, base: Base, method: Method, folder: Path) -> tuple[float, float | None, int]:
    """(gap of the loaded bundle, gap of the adapter in plain peft, numbers stored)."""
    chosen = {method.name: SETTINGS[method.name]} if method.name in SETTINGS else method.name
    card = {"task": {"classify": {"pooling": "mean"}}, "method": chosen, "labels": ["a", "b", "c"]}
    card |= {"max_length": 32, "precision": "fp32", "dense": False, "chosen": {}}
    wanted, deep = outputs(model.eval(), TOKENS), states(base, model.trunk)
    bundles.save(folder, model=model, base=base, saves=method.saves, card=card)
    loaded = bundles.load(folder, machine=CPU)
    gap = float((outputs(loaded.model, TOKENS) - wanted).abs().max())
    stored = sum(_numbers(path) for path in folder.rglob("*.safetensors") if path.name != "head.safetensors")
    if method.saves == "full" and base.over_cls is not None:  # off the trunk, and not of this head
        stored -= sum(p.numel() for p in base.over_cls.parameters())
    if method.saves != "peft" or method.virtual:  # virtual tokens: tests/methods/test_prompts.py
        return gap, None, stored
    plain = load(str(base.folder))
    opened = in_peft(plain.trunk, folder / "adapter")
    return gap, float((states(plain, opened) - deep).abs().max()), stored


def in_peft(trunk: nn.Module, folder: Path) -> Any:
    """An adapter's folder opened over a base by peft alone."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's use of transformers, and of LoRA's checks for AdaLoRA
        return PeftModel.from_pretrained(trunk, folder)


def _numbers(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
