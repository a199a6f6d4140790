"""A base with fewer layers: some of its own are kept, in their order, and the rest is really gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from torch import nn

from penjing.errors import NotSupported, SpecError
from penjing.models import encdec
from penjing.models.layers import bare, layers_of, path_of
from penjing.models.load import Base


def evenly(n_kept: int, n_layers: int) -> list[int]:
    """Which layers (from 1) to keep: the first, the last, and the rest evenly between; of 12 to 6 the choice
    of DistilBERT (Sanh et al. 2019, arXiv 1910.01108). One alone is the first.
    """
    if n_kept == 1:
        return [1]
    return [1 + round(i * (n_layers - 1) / (n_kept - 1)) for i in range(n_kept)]


def which(wanted: int | Sequence[int], n_layers: int, *, key: str = "layers") -> list[int]:
    """The layers (from 1, rising) that a number of them, or a list, asks for.

    Raises:
        SpecError: more than there are, none, or not rising.
    """
    asked = evenly(wanted, n_layers) if isinstance(wanted, int) and 0 < wanted <= n_layers else wanted
    rising = isinstance(asked, list | tuple) and all(a < b for a, b in pairwise(asked))
    if not rising or not asked or asked[0] < 1 or asked[-1] > n_layers:  # type: ignore[index]
        raise SpecError(
            f"`{key}` is a number of layers from 1 to {n_layers}, or a rising list of them such as "
            f"{evenly(max(1, n_layers // 2), n_layers)}; it is {wanted!r}. The base has {n_layers}."
        )
    return [int(n) for n in asked]  # type: ignore[union-attr]


def shortened(base: Base, kept: Sequence[int]) -> Base:
    """The base with only these layers (from 1, rising); its trunk is changed in place.

    Raises:
        NotSupported: the family's layers cannot be taken out.
    """
    if list(kept) == list(range(1, base.n_layers + 1)):
        return base
    keep_layers(base.trunk, kept)
    return replace(base, n_layers=len(kept), cut=True)


def keep_layers(trunk: nn.Module, kept: Sequence[int]) -> None:
    """Keep these layers (from 1, rising) of a trunk, in place; its config says so.

    Raises:
        NotSupported: an encoder-decoder, or a first layer that others lean on would go.
    """
    if encdec.is_whole(trunk):
        raise NotSupported(
            f"One stack of layers was wanted; {type(bare(trunk)).__name__} has two that answer each other. "
            "Take an encoder or a decoder."
        )
    model, stack = bare(trunk), layers_of(trunk)
    config, total = model.config, int(model.config.num_hidden_layers)
    if len(stack) == total:
        _refuse_leaning(stack, kept)
        chosen = [stack[n - 1] for n in kept]
        del stack[len(kept) :]
        for i, layer in enumerate(chosen):
            stack[i] = layer
            for module in layer.modules():
                if isinstance(getattr(module, "layer_idx", None), int):
                    module.layer_idx = i  # type: ignore[assignment]
        for key, value in _each_layer(config, total):
            setattr(config, key, [value[n - 1] for n in kept])
        owner: Any = model.get_submodule(path_of(model).rpartition(".")[0])
        for key in ("n_layers", "num_layers"):  # DistilBERT's stack keeps count
            if vars(owner).get(key) == total:
                setattr(owner, key, len(kept))
    elif len(stack) > 1:
        raise NotSupported(
            f"{total} layers in one stack were wanted; {type(model).__name__} shares {len(stack)} among "
            f"{total}. Take a base whose layers are its own."
        )  # one layer gone through often, as ALBERT's, is gone through less often
    config.num_hidden_layers = len(kept)


def _each_layer(config: Any, total: int) -> list[tuple[str, list[Any]]]:
    """What a config says of each layer (`layer_types`)."""
    own = config.to_dict()
    return [
        (key, value)
        for key, value in own.items()
        if key.startswith("layer") and isinstance(value, list) and len(value) == total
    ]


def _refuse_leaning(stack: nn.ModuleList, kept: Sequence[int]) -> None:
    names = [{name for name, _ in layer.named_parameters()} for layer in stack]
    own = names[0] - names[-1]
    if own and kept[0] != 1:
        raise NotSupported(
            f"Layers {', '.join(map(str, kept))} were to be kept; the first holds `{min(own)}` for all of "
            "them. Keep it, too."
        )
