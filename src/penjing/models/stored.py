"""Linears held in fewer bits: what a bundle must know of such a layer to put it back.

A kind is an `nn.Module` in a linear's place, with buffers only, that has
- `kind`: its name here,
- `settings()`: the keyword arguments, JSON values, that `empty` makes the same layer from, without weights,
- `empty(n_in, n_out, bias=…, **settings)`: such a layer, to load a state into,
- `dense()`: the fp32 (n_out, n_in) weight that it stands for, bias aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from penjing.errors import NotSupported, nearest

# Name -> where the module's class stands, imported when a bundle needs it.
KINDS: dict[str, str] = {}


def kind_of(module: nn.Module) -> str | None:
    """The kind that a module is of; None of a plain one."""
    name = getattr(module, "kind", None)
    return name if isinstance(name, str) and name in KINDS else None


def described(trunk: nn.Module) -> dict[str, dict[str, Any]]:
    """What stands where, by module name: kind, sizes, bias and settings, as `card.json` keeps it."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in trunk.named_modules():
        kind = kind_of(module)
        if kind is not None:
            n_out, n_in = dense(module).shape
            bias = getattr(module, "bias", None) is not None
            found[name] = {"kind": kind, "in": n_in, "out": n_out, "bias": bias, **module.settings()}
    return found


def dense(module: nn.Module) -> Tensor:
    """The fp32 (n_out, n_in) weight that a layer of any kind, or a plain linear, stands for."""
    weight = module.weight if isinstance(module, nn.Linear) else module.dense()  # type: ignore[operator]
    assert isinstance(weight, Tensor)
    return weight


def put_empty(trunk: nn.Module, places: Mapping[str, Mapping[str, Any]]) -> None:
    """Put layers without weights where `described` found them, in place.

    Raises:
        NotSupported: a kind that this release does not know.
    """
    from importlib import import_module

    for name, about in places.items():
        settings = dict(about)
        kind, n_in, n_out = settings.pop("kind"), settings.pop("in"), settings.pop("out")
        if kind not in KINDS:
            raise NotSupported(
                f"Layers of a known kind ({', '.join(KINDS)}) were wanted; `{name}` is of kind `{kind}`."
                f"{nearest(kind, KINDS)} Open the bundle with the release that made it, or a newer one."
            )
        module, _, own = KINDS[kind].rpartition(".")
        made = getattr(import_module(module), own).empty(n_in, n_out, **settings)
        trunk.set_submodule(name, made)
