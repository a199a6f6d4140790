"""Greedy soup (Wortsman et al. 2022, arXiv 2203.05482): one model whose weights are the mean of several.

Ingredients begin from the same weights (one base, one seed) and have the same shapes; best first, each stays
in the soup if the validation score does not fall. Unlike an ensemble it costs no more than one model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from penjing.chains.combine import Member
from penjing.files import new_folder, sha256, write_json


def kettles(members: Sequence[Member], seeds: dict[str, int]) -> list[list[Member]]:
    """Members that may be averaged: one base, seed and method with its settings, the same shapes."""
    groups: dict[str, list[Member]] = {}
    for one in members:
        card = one.card
        about = [card["base"]["sha256"], card["method"], seeds[one.name], sorted(_shapes(one.folder).items())]
        groups.setdefault(json.dumps(about), []).append(one)
    return [group for group in groups.values() if len(group) > 1]


def greedy(members: Sequence[Member], score: Callable[[Sequence[Member]], float]) -> list[Member]:
    """The ingredients to keep, of members given best first; `score` cooks a soup of some and judges it."""
    kept = [members[0]]
    best = score(kept)
    for one in members[1:]:
        found = score([*kept, one])
        if found >= best:
            kept, best = [*kept, one], found
    return kept


def cook(folder: Path, members: Sequence[Member]) -> None:
    """Write the mean of the members' weights as a bundle; its card names them."""
    from safetensors.torch import load_file, save_file

    with new_folder(folder) as aside:
        shutil.copytree(members[0].folder, aside, dirs_exist_ok=True)
        for path in sorted(aside.rglob("*.safetensors")):
            name = path.relative_to(aside)
            each = [load_file(one.folder / name) for one in members]
            mean = {key: _mean([tensors[key] for tensors in each]) for key in each[0]}
            save_file(mean, path, metadata={"format": "pt"})
        card = json.loads((aside / "card.json").read_text(encoding="utf-8"))
        card["files"] = {name: sha256(aside / name) for name in card["files"]}
        write_json(aside / "card.json", {**card, "soup": [one.name for one in members]})


def _mean(tensors: list[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([t.double() for t in tensors]).mean(0).to(tensors[0].dtype).contiguous()


def _shapes(folder: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                found[f"{path.name}/{key}"] = list(file.get_slice(key).get_shape())
    return found
