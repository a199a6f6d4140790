"""A bundle's card and files, looked at before anything is made of them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from penjing.errors import NotSupported
from penjing.files import sha256, standing
from penjing.places import typed

FORMAT = 1
MIX = "mix.safetensors"
HEAD, ADAPTER = "head.safetensors", "adapter_model.safetensors"
TRAINED = {"changed": "changed.safetensors", "added": "added.safetensors"}  # by what `saves` says


def read_card(place: Path) -> dict[str, Any]:
    """A bundle's card, once every file that it names was found as it was saved.

    Raises:
        NotSupported: no bundle, another format, damaged files, weights that are not safetensors.
    """
    path = place / "card.json"
    if not path.is_file():
        run = place.parent
        if place.name == "best" and (run / "spec.yaml").is_file():
            error = run / "error.txt"
            if error.is_file():
                said = error.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
                raise NotSupported(
                    f"The best bundle of the run {run} was wanted; it has none, as the run died: "
                    f"{said[-1] if said[0].startswith('Traceback') else said[0]} Mend that, and go on with "
                    f"the run by `penjing tune --resume {typed(run)}` or begin a new one."
                )
            raise NotSupported(
                f"The best bundle of the run {run} was wanted; it has none yet (it comes with the first "
                f"validation). Wait for it, or go on with the run: `penjing tune --resume {typed(run)}`."
            )
        inside = [*place.glob("*/best/card.json"), *place.glob("*/card.json")] if place.is_dir() else []
        near = sorted(str(p.parents[1] if p.parent.name == "best" else p.parent) for p in inside)[-3:]
        hint = f" Inside it are {', '.join(near)}." if near else ""
        raise NotSupported(
            f"A bundle was wanted in {place}; "
            f"{'it has no card.json' if place.is_dir() else 'there is no such folder'}.{hint} Give a run's "
            "folder (it holds best/) or a bundle's folder."
        )
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, files = card["format"], card["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotSupported(
            f"{path} was to be the card of a bundle; it cannot be read as one ({type(error).__name__}: "
            f"{error}). The bundle is damaged: copy it again or tune anew."
        ) from error
    if version != FORMAT:
        raise NotSupported(
            f"{path} has format {version}; this penjing reads {FORMAT}. Update penjing, or tune anew."
        )
    for name, wanted in files.items():
        file = place / name
        if not file.is_file() or sha256(file) != wanted:
            state = "is not as it was saved (another SHA-256)" if file.is_file() else "is missing"
            raise NotSupported(f"{file} {state}. The bundle is damaged: copy it again or tune anew.")
    wanted = {"peft": f"adapter/{ADAPTER}", **TRAINED}.get(card["saves"])
    if wanted and wanted not in files:
        raise NotSupported(
            f"{place / wanted} was wanted; the bundle's card does not name it. Weights are read from "
            f"safetensors only, as anything else may be a pickle and run code: tune anew."
        )
    return card


def card_bytes(place: Path) -> bytes:
    """The card as it stands, to see whether it was replaced meanwhile; empty where there is none."""
    with contextlib.suppress(OSError):
        return (standing(place) / "card.json").read_bytes()
    return b""


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one of a bundle's files.

    Raises:
        NotSupported: it cannot be read.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise NotSupported(
            f"{path} could not be read as safetensors ({error}). The bundle is damaged: copy it again or "
            "tune anew."
        ) from error


def chosen(card: dict[str, Any], key: str) -> str:
    """The name of the plug-in that a card's `task` or `method` names."""
    value = card.get(key)
    return str(next(iter(value))) if isinstance(value, dict) and value else str(value)


def words_at(place: Path) -> Path:
    """Where a bundle keeps its tokenizer, or its image processor."""
    images = place / "processor"
    return images if images.is_dir() else place / "tokenizer"
