"""A run that begins where another ended: its parent's weights over the same base, and its head row by row.

What the head knows of a label is kept under the label's name, so that new labels may come between old ones.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.bundle_card import HEAD, TRAINED, chosen, read_card, tensors
from penjing.errors import NotSupported, SpecError
from penjing.files import sha256, standing
from penjing.jobs.prepare import Ready
from penjing.jobs.widened import misfit, outlets, put_by_name
from penjing.models.load import Base, quiet
from penjing.models.load import load as load_base
from penjing.spec import Spec
from penjing.task import Task


def place_of(parent: str | Path) -> Path:
    """The folder of the bundle that is meant, a run's best one."""
    folder = Path(parent)
    return standing(folder / "best" if (folder / "spec.yaml").is_file() else folder)


def about(parent: str) -> dict[str, str]:
    """What the lineage says of it."""
    place = place_of(parent)
    return {"folder": str(place.absolute()), "sha256": sha256(place / "card.json")}


def fitting(spec: Spec, base: Base) -> tuple[Path, dict[str, Any]]:
    """Place and card of the parent, once it is seen to be one that this spec can begin with.

    Raises:
        SpecError: another base, method or task than the parent's. NotSupported: no bundle, an ensemble, or
            damaged.
    """
    assert spec.parent is not None
    place = place_of(spec.parent)
    card = read_card(place)
    if card["saves"] == "ensemble":
        raise NotSupported(
            f"`parent` is the ensemble in {place}; one model was wanted to begin with. Give the run or "
            f"bundle of a member: {place / 'members' / '0'}."
        )
    theirs = {"base": card["base"]["sha256"], "method": chosen(card, "method"), "task": chosen(card, "task")}
    sha = base.sha256 or theirs["base"]  # shapes alone have none
    ours = {"base": sha, "method": spec.method.name, "task": spec.task.name}
    names = {"base": card["base"]["name"], "method": theirs["method"], "task": theirs["task"]}
    for key in ("base", "method", "task"):
        if theirs[key] != ours[key]:
            given = spec.base if key == "base" else ours[key]
            more = " (another SHA-256)" if key == "base" else ""
            raise SpecError(
                f"`parent` is {spec.parent}, a bundle of `{key}: {names[key]}`; this spec says "
                f"`{key}: {given}`{more}. To begin with its weights say `{key}: {names[key]}`, or leave "
                "`parent` out."
            )
    return place, card


def before_method(spec: Spec, base: Base, *, whole: bool) -> None:
    """Put the parent's trunk in place of the base's, where the parent saved the whole of it.

    Raises:
        SpecError, NotSupported: as `fitting`.
    """
    place, card = fitting(spec, base)
    if card["saves"] == "full":
        with quiet():
            own = load_base(str(place / "trunk"), device="cpu", whole=whole).trunk
        lost = base.trunk.load_state_dict(own.state_dict(), strict=False)
        _refuse(place, [*lost.missing_keys, *lost.unexpected_keys])


def after_method(spec: Spec, made: Ready, task: Task, names: list[str]) -> None:
    """Put what the parent's method learned, and its head, into the model as it begins.

    Raises:
        NotSupported: it was learned with other settings of the method, or cannot be gone on with.
    """
    assert spec.parent is not None
    place = place_of(spec.parent)
    card = read_card(place)
    trunk = made.model.trunk
    if card["saves"] == "peft":
        _put_adapter(place / "adapter" / "adapter_model.safetensors", trunk)
    elif card["saves"] in TRAINED:
        _put(place, tensors(place / TRAINED[card["saves"]]), dict(trunk.named_parameters()))
    put_by_name(place / HEAD, made.model.head, outlets(task, card["labels"]), outlets(task, names))


def _put_adapter(path: Path, trunk: nn.Module) -> None:
    from peft import PeftModel, set_peft_model_state_dict

    if not isinstance(trunk, PeftModel):
        raise NotSupported(
            f"{path.parent} holds vectors that an encoder made; the encoder was not kept, so they cannot be "
            "learned further. Begin with a bundle of `lora`, `ia3`, `adapter`, `bitfit`, `top` or `full`."
        )
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found: Any = set_peft_model_state_dict(trunk, tensors(path))
        except (RuntimeError, KeyError, ValueError) as error:
            raise misfit(path, str(error).strip().splitlines()[-1].strip()) from error
    _refuse(path, found.unexpected_keys)


def _put(place: Path, learned: dict[str, Tensor], own: dict[str, nn.Parameter]) -> None:
    _refuse(place, [n for n, t in learned.items() if n not in own or own[n].shape != t.shape])
    with torch.no_grad():
        for name, tensor in learned.items():
            own[name].copy_(tensor)


def _refuse(place: Path, lost: list[str]) -> None:
    if lost:
        raise misfit(place, f"`{lost[0]}` has no place of its shape in this model")
