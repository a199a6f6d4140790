"""Where things are inside a trunk, whatever the family calls them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from penjing.errors import NotSupported
from penjing.models.modes import FAILURES, evaluating


def bare(trunk: nn.Module) -> Any:
    """The transformers model itself, below a peft wrapper where there is one."""
    # peft leaves its `peft_config` on the model inside, too
    return trunk.get_base_model() if hasattr(trunk, "get_base_model") else trunk  # type: ignore[operator]


def layers_of(trunk: nn.Module) -> nn.ModuleList:
    """The stack of layers: the heaviest list of modules of one kind. ALBERT's is one, gone through often."""
    return trunk.get_submodule(path_of(trunk))  # type: ignore[return-value]


def stacks_of(trunk: nn.Module) -> list[nn.ModuleList]:
    """The stack of layers; of an encoder-decoder both, the encoder's first."""
    model = bare(trunk)
    both = hasattr(model, "encoder") and hasattr(model, "decoder")
    return [layers_of(model.encoder), layers_of(model.decoder)] if both else [layers_of(trunk)]


def path_of(trunk: nn.Module) -> str:
    """The full name of the stack of layers."""
    lists: dict[str, nn.ModuleList] = {
        name: m
        for name, m in trunk.named_modules()
        if isinstance(m, nn.ModuleList) and len(m) and len({type(x) for x in m}) == 1
    }
    if not lists:
        raise NotSupported(
            f"A base with a stack of layers was wanted; {type(trunk).__name__} has none. Take another base."
        )
    return max(lists, key=lambda name: (sum(p.numel() for p in lists[name].parameters()), -name.count(".")))


def linears_of(trunk: nn.Module, *, attention_only: bool = False) -> list[str]:
    """Full names of the linear layers inside the stacks (GPT-2's Conv1D too)."""
    inside = {id(m) for stack in stacks_of(trunk) for m in stack.modules()}
    names = [
        name
        for name, module in trunk.named_modules()
        if id(module) in inside and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]
    if attention_only:
        names = [n for n in names if "att" in n.lower()]
    return names


def is_causal(trunk: nn.Module) -> bool:
    """True when a token sees only those before it: asked of the attention modules themselves, and where none
    says so (BLOOM, Mamba), of what becomes of states when the last token is another.
    """
    asked = [m.is_causal for m in trunk.modules() if isinstance(getattr(m, "is_causal", None), bool)]
    first = next(trunk.parameters(), None)
    if asked or first is None or first.device.type == "meta" or not hasattr(trunk, "get_input_embeddings"):
        return bool(asked) and all(asked)
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 8, 10]], device=first.device)
    try:
        with evaluating(trunk), torch.no_grad():
            one, other = trunk(input_ids=ids).last_hidden_state[:, :-1]
    except FAILURES:  # it reads no words alone
        return False
    return bool((one - other).abs().max() <= 1e-5 * one.abs().max())


def width_of(trunk: nn.Module) -> int:
    """Width of the base's states."""
    return int(bare(trunk).config.hidden_size)


@dataclass(frozen=True)
class Sublayer:
    """The attention or the feed-forward network of a layer: full names of its first and last linear layer."""

    attention: bool
    first: str
    last: str


def sublayers_of(trunk: nn.Module) -> list[Sublayer]:
    """Attention and feed-forward network of every layer in turn, each ending at the width of the base.

    Linear layers in a row whose names within the layer do, or do not, speak of attention make up one of them.

    Raises:
        NotSupported: a layer is not made so (experts, or maps that are not linear layers).
    """
    found: list[Sublayer] = []
    width = width_of(trunk)
    for number in range(len(layers_of(trunk))):
        prefix = f"{path_of(trunk)}.{number}."
        names = [n.removeprefix(prefix) for n in linears_of(trunk) if n.startswith(prefix)]
        runs = [(of, list(run)) for of, run in groupby(names, lambda name: "att" in name.lower())]
        own = [Sublayer(of, prefix + run[0], prefix + run[-1]) for of, run in runs]
        ends = [trunk.get_submodule(one.last) for one in own]
        if sum(one.attention for one in own) * 2 != len(own) or any(_outputs(m) != width for m in ends):
            raise NotSupported(
                f"Each layer's attention and feed-forward network were wanted, both ending in a linear layer "
                f"of width {width}; layer {number + 1} of {type(trunk).__name__} has the linear layers "
                f"{', '.join(names) or 'none'}. Take `method: lora`, which "
                f"needs only linear layers."
            )
        found += own
    return found


def keys_and_values_of(trunk: nn.Module) -> list[str]:
    """Full names of the linear layers that make keys and values, in each layer of the stack.

    Siblings tell: queries, keys and values come of one attention's layers named by q, k and v, or by the
    whole words. Where its first layer makes all three at once (more outputs than the width), it is named.

    Raises:
        NotSupported: an attention is not made so, or a layer is not (see `sublayers_of`).
    """
    linear, found = linears_of(trunk), []
    for attention in (s for s in sublayers_of(trunk) if s.attention):
        own = linear[linear.index(attention.first) : linear.index(attention.last) + 1]
        roles = {_role(name): name for name in own}
        if {"q", "k", "v"} <= roles.keys():
            found += [roles["k"], roles["v"]]
        elif len(own) == 2 and _outputs(trunk.get_submodule(attention.first)) > width_of(trunk):
            found.append(attention.first)
        else:
            raise NotSupported(
                f"The layers that make keys and values were wanted in {type(trunk).__name__}; its attention "
                f"has {', '.join(name.rpartition('.')[2] for name in own)}. Take `method: lora`, which needs "
                f"only linear layers."
            )
    return found


def _role(name: str) -> str:
    """`k` of `….self.key`, `….k_proj` and `….k`; the first word of a layer that is neither q, k nor v."""
    word = name.rpartition(".")[2].partition("_")[0]
    return {"query": "q", "key": "k", "value": "v"}.get(word, word)


def _outputs(linear: Any) -> int:
    """Width of what a linear layer (or GPT-2's Conv1D) gives."""
    return int(linear.out_features if isinstance(linear, nn.Linear) else linear.nf)


def depths_of(trunk: nn.Module) -> dict[str, int]:
    """How far up each parameter lies, by name: 0 embeddings, 1 to L the layers, L + 1 what lies above them.

    A bias of attention that all layers share lies below them.
    """
    prefix, n_layers = path_of(trunk) + ".", len(layers_of(trunk))
    return {name: _depth(name, prefix, n_layers) for name, _ in trunk.named_parameters()}


def _depth(name: str, prefix: str, n_layers: int) -> int:
    if name.startswith(prefix):
        return int(name[len(prefix) :].split(".", 1)[0]) + 1
    if "decoder." in prefix and "encoder." in name:  # all of the encoder lies below its decoder
        return 0
    below = "embed" in name or "relative_attention_bias" in name or name.startswith(("wte", "wpe", "shared"))
    return 0 if below else n_layers + 1
