"""Layers held in fewer bits, or of other sizes than the config says: what must be known to put them back.

A kind is an `nn.Module` in the place of a linear (or of a table of vectors), with buffers only, that has
- `kind`: its name here,
- `in_features`, `out_features`: its sizes, as `nn.Linear` has them; of a table of vectors its width and rows,
- `settings()`: the keyword arguments, JSON values, that `empty` makes the same layer from, without weights,
- `empty(n_in, n_out, bias=…, **settings)`: such a layer, to load a state into (a class or static method),
- `dense()`: the fp32 (out_features, in_features) weight that it stands for, bias aside,
- `forward(x)`: x W' + b in the type of x; of a table, the rows of whole numbers x, in fp32.
A kind of a table says so by `looks_up_rows = True`. An answer must not depend on what else stands in x.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from penjing.errors import NotSupported, nearest

# Name -> where the module's class stands, imported when a bundle needs it.
KINDS: dict[str, str] = {
    "int8": "penjing.models.int8.Int8Linear",
    "int8_table": "penjing.models.int8.Int8Table",
    "calibrated_int8": "penjing.models.calibrated_int8.CalibratedInt8",
    "low_rank": "penjing.models.low_rank.LowRank",
    "sparse": "penjing.models.sparse.Sparse",
    "weight_only": "penjing.models.weight_only.WeightOnly",
}
PLAIN = "linear"  # in a card: a plain linear, of other sizes than the config says
COUNTED = ("layer_idx",)  # whole numbers of modules that follow from where they stand


def kind_of(module: nn.Module) -> str | None:
    """The kind that a module is of; None of a plain one."""
    name = getattr(module, "kind", None)
    return name if isinstance(name, str) and name in KINDS else None


def dense(module: nn.Module) -> Tensor:
    """The fp32 (n_out, n_in) weight that a layer of any kind, a plain linear or GPT-2's Conv1D stands for."""
    if kind_of(module) is not None:
        made: Tensor = module.dense()  # type: ignore[operator]
        return made
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.t() if type(module).__name__ == "Conv1D" else weight


def described(trunk: nn.Module, skeleton: nn.Module) -> dict[str, dict[str, Any]]:
    """What of a trunk its config does not say, by module name, in JSON values.

    `skeleton` is what transformers makes of the trunk's config; shapes are enough. A layer of a kind, or a
    linear of another size, is told by `kind`, sizes, bias and settings; of any other module those whole
    numbers are told that differ (how many heads an attention has). Empty for a trunk that is as its config
    says.
    """
    found: dict[str, dict[str, Any]] = {}
    plain = dict(skeleton.named_modules())
    for name, module in trunk.named_modules():
        kind, own = kind_of(module), plain.get(name)
        linear = isinstance(module, nn.Linear)
        if kind is None and linear and (not isinstance(own, nn.Linear) or _sizes(own) != _sizes(module)):
            kind = PLAIN
        if kind is not None:
            n_in, n_out, bias = _sizes(module)
            settings = {} if kind == PLAIN else module.settings()
            found[name] = {"kind": kind, "in": n_in, "out": n_out, "bias": bias, **settings}
        elif own is not None and not linear:
            numbers = {
                key: value
                for key, value in vars(module).items()
                if type(value) is int and key not in COUNTED and vars(own).get(key, value) != value
            }
            if numbers:
                found[name] = {"set": numbers}
    return found


def _sizes(module: Any) -> tuple[int, int, bool]:
    return int(module.in_features), int(module.out_features), getattr(module, "bias", None) is not None


def put_empty(trunk: nn.Module, places: Mapping[str, Mapping[str, Any]]) -> None:
    """Make of a skeleton the trunk that `described` saw, without its weights, in place.

    Raises:
        NotSupported: a kind that this release does not know, or a place that the skeleton has not.
    """
    for name, about in places.items():
        settings = dict(about)
        if "set" in settings:
            _set(trunk, name, settings["set"])
            continue
        kind, n_in, n_out = settings.pop("kind"), settings.pop("in"), settings.pop("out")
        _at(trunk, name)
        trunk.set_submodule(name, _empty(name, kind, n_in, n_out, settings))


def _empty(name: str, kind: str, n_in: int, n_out: int, settings: dict[str, Any]) -> nn.Module:
    from importlib import import_module

    if kind == PLAIN:
        return nn.Linear(n_in, n_out, bias=bool(settings["bias"]))
    if kind not in KINDS:
        raise NotSupported(
            f"Layers of a known kind ({', '.join([PLAIN, *KINDS])}) were wanted; `{name}` is of kind "
            f"`{kind}`.{nearest(kind, KINDS)} Open the bundle with the release that made it, or a newer one."
        )
    module, _, own = KINDS[kind].rpartition(".")
    made: nn.Module = getattr(import_module(module), own).empty(n_in, n_out, **settings)
    return made


def _at(trunk: nn.Module, name: str) -> nn.Module:
    try:
        return trunk.get_submodule(name)
    except AttributeError as error:
        raise NotSupported(
            f"A place for `{name}` was wanted in {type(trunk).__name__}; its config.json makes none. The "
            "bundle is damaged, or made with another release of transformers: copy it again or take that one."
        ) from error


def _set(trunk: nn.Module, name: str, numbers: Mapping[str, Any]) -> None:
    """Only whole numbers that the module has already: a file decides nothing else."""
    module = _at(trunk, name)
    for key, value in numbers.items():
        if type(vars(module).get(key)) is not int or type(value) is not int:
            raise NotSupported(
                f"Whole numbers of {type(module).__name__} were to be set at `{name}`; `{key}` = {value!r} "
                "is none of them. The bundle is damaged, or made with another release of transformers."
            )
        setattr(module, key, value)


@contextlib.contextmanager
def plainly(trunk: nn.Module) -> Iterator[None]:
    """Inside, layers of every kind compute with the fp32 weights that they stand for, a layer at a time: what
    is compared there to see how a trunk runs must not be blurred by rounding."""
    held = [module for module in trunk.modules() if kind_of(module) is not None]
    for module in held:
        module.forward = functools.partial(_plain, module)
    try:
        yield
    finally:
        for module in held:
            del module.__dict__["forward"]


def _plain(module: Any, x: Tensor) -> Tensor:
    if getattr(module, "looks_up_rows", False):
        return F.embedding(x, module.dense())
    bias = None if module.bias is None else module.bias.float()
    return F.linear(x.float(), module.dense(), bias).to(x.dtype)
