"""Bundles without training, for tests of the service: a random adapter and a random head over a tiny base."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penjing import plugin
from penjing.bundle import Bundle, load, save
from penjing.data import parts
from penjing.models.load import Base, twin_of
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.plugin import choice
from penjing.serve.opened import Bases, Opened, prove
from penjing.serve.registry import Version, add

TEXTS = [
    "my card was charged twice",
    "the parcel is late",
    "i cannot log in, my password was reset on order 12, and the login page says refused again and again",
    "我的快递还没有到",
    "no",
    "the invoice shows a wrong fee on order 812",
]


BASES = Bases()


@functools.cache
def _base(folder: str, whole: bool) -> Base:
    return load_base(folder, whole=whole)


def made(
    folder: Path, base: Path, task: Any = "classify", *, labels: int = 3, method: Any = "lora", seed: int = 0
) -> Path:
    """A bundle of these, saved in `folder`; its adapter changes every answer."""
    torch.manual_seed(seed)
    own = plugin.build("tasks", choice(task, kind="tasks", key="task"))
    found = twin_of(_base(str(base), own.whole))
    chosen = plugin.build("methods", choice(method, kind="methods", key="method"))
    trunk = chosen.apply(found.trunk)
    for name, parameter in trunk.named_parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(torch.randn_like(parameter) * (0.3 if "lora" in name else 0.05))
    names = [f"{chr(97 + i)}{seed}" for i in range(labels)]
    if own.bind:
        own = own.bind(found, names, weights=True)
    parts.refuse_unseen(own, found)
    model = Model(trunk, own.head(found.width, names, found.pooling, None), found.way).eval()
    for name, parameter in model.head.named_parameters():
        if "own" not in name and parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(torch.randn_like(parameter) * 0.5)
    card = {
        "task": choice(task, kind="tasks", key="task").written(),
        "method": choice(method, kind="methods", key="method").written(),
        "labels": names,
        "max_length": 64,
        "chosen": {},
        "precision": "fp32",
        "scores": {},
    }
    save(folder, model=model, base=found, saves=chosen.saves, card=card)
    return folder


def registered(root: Path, name: str, folder: Path, **how: Any) -> Version:
    """The bundle as the next version of a model, with its golden answers."""
    return add(root, name, folder, prove=lambda place: prove(place, bases=BASES, device="cpu"), **how)


@functools.cache
def anew(folder: Path) -> Bundle:
    """The bundle of a folder as `penjing predict` has it."""
    return load(folder, device="cpu")


def alone(opened: Opened | Path, inputs: list[Any]) -> list[dict[str, Any]]:
    """What the bundle answers each input by itself, opened anew and sharing nothing."""
    bundle = anew(opened if isinstance(opened, Path) else opened.version.folder)
    return [bundle.predict([one])[0] for one in inputs]


def near(wanted: Any, found: Any) -> bool:
    """Equal, numbers to 1e-5."""
    if isinstance(wanted, dict):
        return wanted.keys() == found.keys() and all(near(wanted[key], found[key]) for key in wanted)
    if isinstance(wanted, list | tuple | np.ndarray) and not isinstance(wanted, str):
        return len(wanted) == len(found) and all(near(a, b) for a, b in zip(wanted, found, strict=True))
    return abs(wanted - found) < 1e-5 if isinstance(wanted, float | np.floating) else wanted == found
