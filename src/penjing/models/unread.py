"""Weights that a checkpoint has and its config.json does not describe.

transformers leaves them out without an error. A head that the trunk does not have may stay behind; a layer or
a bias of the trunk may not: without it the base answers otherwise than the one that was fetched.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penjing.errors import NotSupported

# Masks, places and tables that older releases stored beside the weights and newer ones compute.
COMPUTED = (
    "attn.bias",
    "attention.bias",
    "masked_bias",
    "position_ids",
    "inv_freq",
    "embed_positions.weights",
)


def refuse_unread(trunk: Any, names: Iterable[str], folder: Path) -> None:
    """Refuse a checkpoint of which `names`, what was not read of it, lie within the trunk.

    Raises:
        NotSupported: such weights there are.
    """
    lost = unread(trunk, names)
    if not lost:
        return
    said = ", ".join(f"`{name}`" for name in lost[:3])
    raise NotSupported(
        f"A config.json that describes all weights was wanted in {folder}; its "
        f"{trunk.config.num_hidden_layers} layers have no place for {len(lost):,} of their tensors: {said}. "
        "It is of another model or was edited: fetch it again, or say in it which layers and biases there "
        "are. To take the lowest layers alone, say `layers: N` in the spec."
    )


def unread(trunk: Any, names: Iterable[str]) -> list[str]:
    """Those of the names that belong to a module which the trunk has, in order."""
    prefix = f"{trunk.base_model_prefix}."
    modules = {name for name, _ in trunk.named_modules()}
    return sorted(
        name
        for name in names
        if not name.endswith(COMPUTED) and name.removeprefix(prefix).partition(".")[0] in modules
    )
