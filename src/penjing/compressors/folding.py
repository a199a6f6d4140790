"""Factors on the inputs of linear layers, put into the norm that makes these inputs where nothing else reads
them.

y = (x / s) (W s)' is y = x W' for any factors s. The division costs nothing where it goes into a norm's own
weight and bias; where the norm's output goes elsewhere too (BERT adds it to what follows) it would change
that, so the layer has to divide by itself. Which is so is tried, not known by the family's name.

Legend: I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penjing.compressors.calibrating import watch
from penjing.models.model import Model
from penjing.models.modes import evaluating
from penjing.models.stored import kind_of
from penjing.records import Batch

CLOSE = 1e-4  # of the largest state, that a trial fold may move one; what it would break moves far more


def norms_of(model: Model, batch: Batch, names: Sequence[str]) -> dict[frozenset[str], str]:
    """For layers that read one and the same tensor, the norm that can take their factors; many have none."""
    groups = _sharing(model, batch, names)
    before = _states(model, batch)
    found = {}
    for group, norm in _makers(model, batch, groups).items():
        width = model.trunk.get_submodule(norm).get_parameter("weight").shape[0]
        factors = torch.linspace(0.5, 2.0, width, device=before.device)
        with _tried(model.trunk, norm, group, factors):
            moved = (_states(model, batch) - before).abs().max()
        if moved <= CLOSE * before.abs().max():
            found[group] = norm
    return found


def fold(trunk: nn.Module, norm: str, factors_I: Tensor) -> None:
    """Let a norm give its output over these factors; the layers that read it must multiply by them."""
    with torch.no_grad():
        for parameter in trunk.get_submodule(norm).parameters(recurse=False):
            parameter.div_(factors_I.to(parameter.dtype))


def _sharing(model: Model, batch: Batch, names: Sequence[str]) -> list[frozenset[str]]:
    """These layers, those that read one and the same tensor together."""
    groups: list[set[str]] = []
    last: list[Tensor] = []

    def see(name: str, x: Tensor) -> None:
        if any(name in group for group in groups):
            return  # a layer that is gone through more than once
        if last and last[0] is x:
            groups[-1].add(name)
        else:
            groups.append({name})
            last[:] = [x]

    watch(model, [batch], names, see)
    return [frozenset(group) for group in groups]


def _makers(model: Model, batch: Batch, groups: Sequence[frozenset[str]]) -> dict[frozenset[str], str]:
    """The norm whose output each group reads, as it is."""
    made: dict[str, Tensor] = {}
    found: dict[frozenset[str], str] = {}
    first = {min(group): group for group in groups}
    norms = [name for name, module in model.trunk.named_modules() if _is_norm(module)]

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            made[name] = output

        return look

    def see(name: str, x: Tensor) -> None:
        maker = next((norm for norm, output in made.items() if output.data_ptr() == x.data_ptr()), None)
        if maker is not None and made[maker].shape == x.shape:
            found[first[name]] = maker

    handles = [model.trunk.get_submodule(name).register_forward_hook(keep(name)) for name in norms]
    try:
        watch(model, [batch], list(first), see)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_norm(module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False))
    return "weight" in own and all(p.ndim == 1 for p in own.values()) and kind_of(module) is None


@contextmanager
def _tried(trunk: nn.Module, norm: str, group: Iterable[str], factors_I: Tensor) -> Iterator[None]:
    """Inside, the factors are folded into the norm and the layers."""
    touched = list(trunk.get_submodule(norm).parameters(recurse=False))
    touched += [trunk.get_submodule(name).get_parameter("weight") for name in group]
    before = [parameter.detach().clone() for parameter in touched]
    try:
        fold(trunk, norm, factors_I)
        with torch.no_grad():
            for name in group:
                layer = trunk.get_submodule(name)
                turned = type(layer).__name__ == "Conv1D"
                layer.get_parameter("weight").mul_(factors_I[:, None] if turned else factors_I)
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(touched, before, strict=True):
                parameter.copy_(old)


def _states(model: Model, batch: Batch) -> Tensor:
    with evaluating(model), torch.no_grad():
        return model.states(batch.to(next(model.parameters()).device)).float()
