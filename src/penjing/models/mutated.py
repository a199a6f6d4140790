"""LoRA begun at parts of the base's own weights (PiSSA, OLoRA): peft takes them out of the base, W - s B0 A0.

An adapter saved as it trains would fit only that changed base. Saved here is the change from the base as it
came, s (B A - B0 A0): a plain LoRA of twice the rank, which peft loads over the untouched base.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.files import write_json

_START = "_penjing_start"


def keep_start(trunk: nn.Module) -> None:
    """Remember A0 and B0 of every LoRA layer, as they are now."""
    for _, layer in _layers(trunk):
        low, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        setattr(layer, _START, (low.detach().clone(), up.detach().clone()))


def has_start(trunk: nn.Module) -> bool:
    """True when the adapter began at parts of the base's weights."""
    return any(hasattr(layer, _START) for _, layer in _layers(trunk))


def save_over_base(trunk: Any, folder: Path) -> None:
    """Rewrite an adapter that peft has saved in `folder` so that it fits the base as it came."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, layer in _layers(trunk):
        low, up = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
        first_low, first_up = getattr(layer, _START)
        tensors[f"{name}.lora_A.weight"] = torch.cat([low, first_low])  # (2r, inputs)
        tensors[f"{name}.lora_B.weight"] = torch.cat([up, -first_up], 1)  # (outputs, 2r)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["lora_alpha"] *= 2**0.5 if config["use_rslora"] else 2  # the scale stays what it was
    write_json(path, {**config, "r": 2 * config["r"], "init_lora_weights": True})


def _layers(trunk: nn.Module) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in trunk.named_modules() if "default" in getattr(m, "lora_A", ())]
