"""Attention heads and feed-forward units taken out of a trunk for good: its linear layers become narrower.

What can go together is a unit: a head (with keys and values shared, all heads that share them), or one number
of a feed-forward network. The linear layer that ends a sublayer loses columns, those before it the rows that
make them. Which linear layers these are, siblings tell (`layers.sublayers_of`), not a list of families.

Legend: O outputs, I inputs of a linear layer; U units of a sublayer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.layers import bare, layers_of, linears_of, sublayers_of
from penjing.models.skeleton import differs

HEAD_SIZE = ("head_dim", "attention_head_size", "key_value_proj_dim")
INNER = (
    "intermediate_size",
    "hidden_dim",
    "n_inner",
    "d_ff",
    "ffn_dim",
)  # configs' names of a network's units
TOTAL = ("all_head_size", "inner_dim", "split_size")  # attention modules' names of all heads' numbers


@dataclass(frozen=True)
class Site:
    """A sublayer whose units can go. `makers` are linear layers with the number of equal parts, units side by
    side in each, that their outputs have: queries, keys and values in one are 3, gate and value in one 2."""

    layer: int  # from 1
    attention: bool
    makers: tuple[tuple[str, int], ...]
    last: str
    n: int  # units
    size: int  # inputs of `last` that make one unit


def sites_of(trunk: nn.Module, *, attention: bool) -> list[Site]:
    """The attention, or the feed-forward network, of every layer in turn.

    Raises:
        NotSupported: a layer is not made of linear layers in that way, or layers share their weights.
    """
    model = bare(trunk)
    stack = layers_of(trunk)
    if len(stack) != getattr(model.config, "num_hidden_layers", len(stack)):
        raise NotSupported(
            f"Layers with weights of their own were wanted; {type(model).__name__} has "
            f"{model.config.num_hidden_layers} and {len(stack)} set of weights. Take `trim_vocabulary`."
        )
    linear, found = linears_of(trunk), []
    for number, one in enumerate(s for s in sublayers_of(trunk) if s.attention == attention):
        makers = linear[linear.index(one.first) : linear.index(one.last)]
        n_in = _sizes(trunk.get_submodule(one.last))[0]
        outs = [_sizes(trunk.get_submodule(name))[1] for name in makers]
        if attention:
            size = _head_size(trunk, one.first)
            fused = len(makers) == 1
            parts = [3] if fused else [1] * len(makers)
            n = outs[0] // 3 // size if fused else min(outs) // size
            right = fused or len(makers) == 3
        else:
            size, n = 1, n_in
            parts = [out // n_in for out in outs]
            right = bool(makers)
        if not right or n < 1 or n_in % n or any(out % (p * n) for out, p in zip(outs, parts, strict=True)):
            what = "queries, keys and values" if attention else "a network of two or three linear layers"
            raise NotSupported(
                f"{what.capitalize()} whose parts are equal were wanted in layer {number + 1} of "
                f"{type(model).__name__}; it has {', '.join(makers)} with {outs} outputs before {n_in} "
                f"inputs. Take `drop_layers`."
            )
        together = tuple(zip(makers, parts, strict=True))
        found.append(Site(number + 1, attention, together, one.last, n, n_in // n))
    return found


def narrow(trunk: nn.Module, site: Site, kept: Sequence[int]) -> None:
    """Keep these units (from 0, rising) of a sublayer, in place."""
    for name, parts in site.makers:
        out = _sizes(trunk.get_submodule(name))[1]
        rows = _places(kept, out // parts // site.n, n=site.n, parts=parts)
        _cut(trunk.get_submodule(name), 0, rows)
    last = trunk.get_submodule(site.last)
    _cut(last, 1, _places(kept, site.size, n=site.n, parts=1))
    owner = trunk.get_submodule(site.makers[0][0].rpartition(".")[0])
    for key, value in list(vars(owner).items()):
        counts = _counts_heads(key) if site.attention else key in INNER
        if type(value) is int and counts and value % site.n == 0:
            setattr(owner, key, value // site.n * len(kept))


def describe(trunk: nn.Module, before: Sequence[Site]) -> bool:
    """Say in the config what was narrowed, where a config can: as many units in each layer, by a name it has.

    True: transformers makes the trunk of its config. Else the bundle keeps sizes beside it (`skeleton`).
    """
    config = bare(trunk).config
    after = sites_of(trunk, attention=before[0].attention)
    if len({one.n for one in after}) == len({one.n for one in before}) == 1:
        changes = _in_config(config, before[0], after[0])
        old = {key: getattr(config, key, None) for key in changes}
        for key, value in changes.items():
            setattr(config, key, value)
        if _is_said(trunk):
            return True
        for key in changes:
            setattr(config, key, old[key])
    for one in after:
        for name in (*(maker for maker, _ in one.makers), one.last):
            _as_linear(trunk, name)
    return not differs(trunk)


def weight_of(trunk: nn.Module, name: str) -> Tensor:
    """(O, I) the weight of a linear layer or of GPT-2's Conv1D; a view of it."""
    module: Any = trunk.get_submodule(name)
    weight: Tensor = module.weight.detach()
    return weight if isinstance(module, nn.Linear) else weight.t()


def _in_config(config: Any, old: Site, new: Site) -> Mapping[str, int]:
    """Fields of the config that would say the new number of units."""
    if not old.attention:
        said = [key for key in INNER if getattr(config, key, None) == old.n]
        return dict.fromkeys(said or [key for key in INNER if hasattr(config, key)][:1], new.n)
    heads = config.num_attention_heads
    size = old.size * old.n // heads
    changes = {"num_attention_heads": heads * new.n // old.n, "head_dim": size}
    if getattr(config, "num_key_value_heads", None):
        changes["num_key_value_heads"] = new.n
    return changes


def _is_said(trunk: nn.Module) -> bool:
    try:
        return not _misshapen(trunk) and not differs(trunk)
    except (ValueError, ZeroDivisionError):  # heads that do not divide the width
        return False


def _misshapen(trunk: nn.Module) -> bool:
    """Whether any tensor has another shape than the config gives it (Conv1D has no sizes to compare)."""
    model = bare(trunk)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in type(model)(model.config).named_parameters()}
    return any(p.shape != shapes.get(name, p.shape) for name, p in model.named_parameters())


def _head_size(trunk: nn.Module, name: str) -> int:
    """Numbers a head, as the attention module around a linear layer says."""
    module = trunk.get_submodule(name.rpartition(".")[0])
    size = next((getattr(module, key) for key in HEAD_SIZE if hasattr(module, key)), None)
    if not isinstance(size, int):
        raise NotSupported(
            f"The size of a head was wanted in {type(module).__name__}; it has none of "
            f"{', '.join(HEAD_SIZE)}. Take `prune_ffn` or `drop_layers`."
        )
    return size


def _sizes(module: Any) -> tuple[int, int]:
    """Inputs and outputs."""
    n_out, n_in = module.weight.shape if isinstance(module, nn.Linear) else module.weight.t().shape
    return int(n_in), int(n_out)


def _places(kept: Sequence[int], size: int, *, n: int, parts: int) -> Tensor:
    """Rows of the kept units, `size` each, in each of the parts of `n` units."""
    units = torch.as_tensor(list(kept))[:, None] * size + torch.arange(size)
    return (torch.arange(parts)[:, None] * n * size + units.flatten()).flatten()


def _cut(module: Any, axis: int, places: Tensor) -> None:
    """Keep rows (axis 0) or columns of a linear layer's weight, and with rows the bias's."""
    linear = isinstance(module, nn.Linear)
    places = places.to(module.weight.device)
    weight = module.weight.detach().index_select(axis if linear else 1 - axis, places)
    module.weight = nn.Parameter(weight.contiguous(), requires_grad=module.weight.requires_grad)
    if axis == 0 and module.bias is not None:
        bias = module.bias.detach().index_select(0, places)
        module.bias = nn.Parameter(bias, requires_grad=module.bias.requires_grad)
    setattr(module, (("out_features", "in_features") if linear else ("nf", "nx"))[axis], len(places))


def _counts_heads(key: str) -> bool:
    """Whether an attention module's number follows how many heads it has."""
    return key in TOTAL or ("head" in key and key not in (*HEAD_SIZE, "num_key_value_groups"))


def _as_linear(trunk: nn.Module, name: str) -> None:
    """A narrowed Conv1D as the linear layer that it is, which a bundle can hold in any size."""
    module: Any = trunk.get_submodule(name)
    if isinstance(module, nn.Linear):
        return
    n_in, n_out = _sizes(module)
    made = nn.Linear(n_in, n_out, bias=module.bias is not None, device="meta")
    made.weight = nn.Parameter(
        module.weight.detach().t().contiguous(), requires_grad=module.weight.requires_grad
    )
    if module.bias is not None:
        made.bias = module.bias
    trunk.set_submodule(name, made.train(module.training))
