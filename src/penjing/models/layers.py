"""Where things are inside a trunk, whatever the family calls them."""

from __future__ import annotations

from typing import Any

from torch import nn


def bare(trunk: nn.Module) -> Any:
    """The transformers model itself, below a peft wrapper where there is one."""
    return trunk.get_base_model() if hasattr(trunk, "peft_config") else trunk  # type: ignore[operator]


def layers_of(trunk: nn.Module) -> nn.ModuleList:
    """The stack of layers: the longest list of modules of one kind that a pass goes through."""
    lists = [
        m
        for m in trunk.modules()
        if isinstance(m, nn.ModuleList) and len(m) and len({type(x) for x in m}) == 1
    ]
    groups = [m for m in trunk.modules() if type(m).__name__ == "AlbertLayerGroup"]
    if groups:  # ALBERT shares one layer among all
        return nn.ModuleList(groups)
    return max(lists, key=lambda m: (sum(p.numel() for p in m.parameters()), len(m)))


def linears_of(trunk: nn.Module, *, attention_only: bool = False) -> list[str]:
    """Full names of the linear layers inside the stack (GPT-2's Conv1D too)."""
    stack = layers_of(trunk)
    inside = {id(m) for m in stack.modules()}
    names = [
        name
        for name, module in trunk.named_modules()
        if id(module) in inside and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]
    if attention_only:
        names = [n for n in names if "att" in n.lower()]
    return names


def depth_of(trunk: nn.Module, name: str) -> int:
    """How far up a parameter lies: 0 embeddings, 1 to L the layers, L + 1 what lies above them.

    `name` is as in `trunk.named_parameters()`.
    """
    stack = layers_of(trunk)
    prefix = next(n for n, m in trunk.named_modules() if m is stack) if len(stack) else ""
    if prefix and name.startswith(prefix + "."):
        return int(name[len(prefix) + 1 :].split(".", 1)[0]) + 1
    return 0 if "embed" in name or name.startswith(("wte", "wpe", "shared")) else len(stack) + 1
