"""A model one can use, and the truth about it: weights, head, tokenizer, labels and a card. safetensors and JSON only.

A bundle is a folder:
    card.json            task, labels, base, how it was made, scores, reference statistics, SHA-256 of every file
    head.safetensors     the task's head
    tokenizer/           the tokenizer's files
    trunk/               method `full`: the whole trunk in transformers' format
    adapter/             adapters: in peft's format, over the base that the card names
    changed.safetensors  methods that train some weights of the base: just those, over the base that the card names
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing import plugin
from penjing.data.tokenize import tokenize
from penjing.device import Machine, choose
from penjing.engine.scoring import outputs
from penjing.errors import DataError, NotSupported
from penjing.files import new_folder, settle, sha256, write_json
from penjing.models.embedding import whole_state
from penjing.models.layers import bare
from penjing.models.load import Base
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.plugin import Choice, choice
from penjing.records import Task

FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `predict` answers texts; `card` is what is known of it."""

    folder: Path
    card: dict[str, Any]
    model: Model
    task: Task
    tokenizer: Any
    machine: Machine

    @property
    def labels(self) -> list[str]:
        """Label names, in the order of the classes."""
        return list(self.card["labels"])

    def probabilities(self, texts: Sequence[str], *, tokens: int = 8192) -> np.ndarray:
        """(S, C) float64 probabilities of the texts, in their order; `tokens` at most are computed at once."""
        told = tokenize(self.tokenizer, list(texts), max_length=self.card["max_length"], cache=False)
        return self.task.probabilities(outputs(self.model, told, tokens=tokens))

    def predict(self, texts: Sequence[str], *, tokens: int = 8192) -> list[dict[str, Any]]:
        """One answer a text: `label` (or `labels`), `confidence` in 0..1, and `scores` of every label.

        Raises:
            DataError: not a list of texts.
        """
        if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
            raise DataError(
                f"`predict` takes a list of texts; it got {type(texts).__name__} {str(texts)[:60]!r}. "
                f"For one text write predict([text])."
            )
        if not texts:
            return []
        return self.task.answers(self.probabilities(texts, tokens=tokens), self.labels, self.card["chosen"])


def save(folder: Path, *, model: Model, base: Base, saves: str, card: dict[str, Any]) -> None:
    """Write a bundle in one step: a reader sees the old one or this one, whole.

    `card` holds what the caller knows (task, method, labels, max_length, chosen, scores, …); files' hashes are added.

    Raises:
        CannotWrite: no room or no right; what stood there stays.
    """
    from safetensors.torch import save_file

    with new_folder(folder) as aside:
        save_file({k: v.contiguous() for k, v in model.head.state_dict().items()}, aside / "head.safetensors")
        base.tokenizer.save_pretrained(aside / "tokenizer")
        if saves == "full":
            bare(model.trunk).save_pretrained(aside / "trunk", state_dict=whole_state(model.trunk))
        elif saves == "peft":
            model.trunk.save_pretrained(aside / "adapter")  # type: ignore[operator]
            for extra in ("README.md",):
                (aside / "adapter" / extra).unlink(missing_ok=True)
        else:
            changed = {
                n: p.detach().contiguous() for n, p in model.trunk.named_parameters() if p.requires_grad
            }
            save_file(changed, aside / "changed.safetensors", metadata={"format": "pt"})
        files = {str(f.relative_to(aside)): sha256(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        full = {"format": FORMAT, "saves": saves, **card, "base": _base_card(base), "files": files}
        write_json(aside / "card.json", full)


def _base_card(base: Base) -> dict[str, Any]:
    return {
        "name": base.name,
        "sha256": base.sha256,
        "pooling": base.pooling,
        "width": base.width,
        "kind": base.kind,
    }


def load(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    base: str | None = None,
    machine: Machine | None = None,
) -> Bundle:
    """Open a bundle (or a run, whose best bundle is taken). `base` says where the base is, if it has moved.

    Raises:
        NotSupported: not a bundle, damaged files, or a base that is not the one it was made with.
    """
    place = Path(folder)
    if (place / "best").is_dir() or (place / ".best.old").is_dir():
        place = place / "best"
    settle(place)
    card = _card(place)
    if machine is None:
        machine = choose(device, precision or card.get("precision", "auto"))
    task: Task = plugin.build("tasks", choice(card["task"], kind="tasks", key="task"))
    found = _open_base(place, card, base, machine)
    trunk: nn.Module = found.trunk
    if card["saves"] == "peft":
        from peft import PeftModel

        trunk = PeftModel.from_pretrained(trunk, place / "adapter")
    elif card["saves"] == "changed":
        _put_back(place, trunk)
    head = task.head(found.width, card["labels"], card["base"]["pooling"], _dense(found, card))
    from safetensors.torch import load_file

    head.load_state_dict(load_file(place / "head.safetensors"))
    model = Model(trunk, head.to(machine.device), found.way)
    model.requires_grad_(False)
    model.eval()
    return Bundle(place, card, model.prepare(machine.precision), task, found.tokenizer, machine)


def _card(place: Path) -> dict[str, Any]:
    path = place / "card.json"
    if not path.is_file():
        raise NotSupported(
            f"A bundle was wanted in {place}; it has no card.json. Give a run's folder (it holds best/) or a bundle's folder."
        )
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotSupported(
            f"{path} is not readable as JSON ({error}). The bundle is damaged: copy it again or tune anew."
        ) from error
    if card.get("format") != FORMAT:
        raise NotSupported(
            f"{path} has format {card.get('format')}; this penjing reads {FORMAT}. Update penjing."
        )
    for name, wanted in card["files"].items():
        file = place / name
        if not file.is_file() or sha256(file) != wanted:
            state = "is missing" if not file.is_file() else "is not as it was saved (another SHA-256)"
            raise NotSupported(f"{file} {state}. The bundle is damaged: copy it again or tune anew.")
    return card


def _open_base(place: Path, card: dict[str, Any], base: str | None, machine: Machine) -> Base:
    if card["saves"] == "full":
        return load_base(str(place / "trunk"), device=machine.device, tokenizer_from=place / "tokenizer")
    name = base or card["base"]["name"]
    found = load_base(name, device=machine.device, tokenizer_from=place / "tokenizer")
    if found.sha256 != card["base"]["sha256"]:
        raise NotSupported(
            f"The bundle in {place} was made over the base `{card['base']['name']}` with SHA-256 {card['base']['sha256'][:16]}…; "
            f"`{name}` has {found.sha256[:16]}…. Over other weights its answers would be wrong: give the right base with `base=`."
        )
    return found


def _put_back(place: Path, trunk: nn.Module) -> None:
    from safetensors.torch import load_file

    changed = load_file(place / "changed.safetensors")
    own = dict(trunk.named_parameters())
    lost = [n for n, t in changed.items() if n not in own or own[n].shape != t.shape]
    if lost:
        raise NotSupported(
            f"{place / 'changed.safetensors'} holds `{lost[0]}`, which this base has not. Give the right base with `base=`."
        )
    with torch.no_grad():
        for name, tensor in changed.items():
            own[name].copy_(tensor)


def _dense(base: Base, card: dict[str, Any]) -> nn.Linear | None:
    """The dense layer over CLS that the head was saved with; its weights come from the head's file."""
    if not card.get("dense"):
        return None
    return base.pooler or nn.Linear(base.width, base.width)


def chosen_task(card: dict[str, Any]) -> Choice:
    """The task of a card, as chosen."""
    return choice(card["task"], kind="tasks", key="task")
