"""What a bundle's files hold, put back where it was: base, adapter, changed weights, head."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from penjing.bundle_card import tensors, words_at
from penjing.device import Machine, choose
from penjing.errors import NotSupported, SpecError
from penjing.models import encdec, peft_files
from penjing.models.load import Base, quiet, tokenizer_at, twin_of
from penjing.models.load import load as load_base


def machine_of(device: str, precision: str | None, card: dict[str, Any]) -> Machine:
    """The precision asked for, else that of training, else (where this device lacks it) what suits here."""
    if precision:
        return choose(device, precision)
    try:
        return choose(device, card.get("precision", "auto"))
    except NotSupported:
        return choose(device)


def open_base(place: Path, card: dict[str, Any], base: str | None, machine: Machine, *, whole: bool) -> Base:
    """The base that a bundle was made over; its own trunk, where it holds all its weights.

    Raises:
        NotSupported: it is not there, damaged, or not the one the bundle was made over.
        SpecError: `base` is given to a bundle that needs none.
    """
    if card["saves"] == "full":
        if base is not None:
            raise SpecError(
                f"`base` is {base}; the bundle in {place} holds all its weights and needs no base. Leave it "
                "out."
            )
        own, words = str(place / "trunk"), words_at(place)
        return load_base(own, device=machine.device, tokenizer_from=words, whole=whole)
    name = base or card["base"]["name"]
    try:
        words = words_at(place)
        found = load_base(name, device=machine.device, tokenizer_from=words, whole=whole)
    except NotSupported as error:
        raise NotSupported(
            f"The bundle in {place} needs the base it was made over. {error} If it has moved, say where: "
            f"`--base FOLDER` (in Python `base=`)."
        ) from error
    if found.sha256 != card["base"]["sha256"]:
        raise NotSupported(
            f"The bundle in {place} was made over the base `{card['base']['name']}` with SHA-256 "
            f"{card['base']['sha256'][:16]}…; `{name}` has {found.sha256[:16]}…. Over other weights its "
            f"answers would be wrong: give the right base with `--base FOLDER` (in Python `base=`)."
        )
    return found


def borrowed(
    place: Path, card: dict[str, Any], machine: Machine, lent: Mapping[str, Base], *, whole: bool
) -> Base | None:
    """The bundle's base over weights that are in memory; None where they are not, or of another kind."""
    known = lent.get(card["base"]["sha256"])
    if known is None or card["saves"] == "full" or known.way.sight or whole != encdec.is_whole(known.trunk):
        return None
    if next(known.trunk.parameters()).device != machine.device:
        return None
    return replace(twin_of(known), tokenizer=tokenizer_at(words_at(place)))


def with_adapter(place: Path, trunk: nn.Module) -> nn.Module:
    """The trunk with the bundle's adapter on it.

    Raises:
        NotSupported: the adapter does not fit it.
    """
    from peft import PeftModel

    folder = place / "adapter"
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's use of transformers, and of LoRA's checks for AdaLoRA
            ours = peft_files.load(trunk, folder)
            if ours is not None:
                return ours
            found = PeftModel.from_pretrained(trunk, folder)
            lost = peft_files.lost(found, folder)
            if lost:
                raise ValueError(f"`{lost}` found no place")
            return found
    except (RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise NotSupported(
            f"The adapter in {folder} could not be put on the base "
            f"({str(error).strip().splitlines()[0][:200]}). The bundle is damaged, or made by another "
            "release of peft: copy it again or tune anew."
        ) from error


def put_head(path: Path, head: nn.Module, trunk: nn.Module) -> None:
    """The saved head's tensors; what it shares with the trunk is there already."""
    said = ""
    try:
        found = head.load_state_dict(tensors(path), strict=False)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
    else:
        shared = {id(p) for p in trunk.parameters()}
        own = dict(head.named_parameters(remove_duplicate=False))
        lost = [k for k in found.missing_keys if k not in own or id(own[k]) not in shared]
        said = ", ".join([*lost, *found.unexpected_keys][:3])
    if said:
        raise NotSupported(
            f"{path} does not hold the head that card.json describes ({said[:200]}). The bundle is damaged: "
            f"copy it again or tune anew."
        )


def put_back(path: Path, trunk: nn.Module) -> None:
    """The saved tensors in place of the trunk's own.

    Raises:
        NotSupported: the trunk has no such tensors.
    """
    trained = tensors(path)
    own = dict(trunk.named_parameters())
    lost = [n for n, t in trained.items() if n not in own or own[n].shape != t.shape]
    if lost:
        raise NotSupported(
            f"{path} holds `{lost[0]}`, which this base has not. Give the right base with `--base "
            f"FOLDER` (in Python `base=`)."
        )
    with torch.no_grad():
        for name, tensor in trained.items():
            own[name].data = tensor.to(own[name])  # anew: others may share the base's


def dense_of(base: Base, card: dict[str, Any]) -> nn.Linear | None:
    """The dense layer over CLS that the head was saved with; its weights come from the head's file."""
    if not card.get("dense"):
        return None
    return base.pooler or nn.Linear(base.width, base.width)
