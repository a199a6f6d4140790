"""Where layers, linear maps and depths are, whatever a family calls them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from common import FAMILIES
from penjing.models.layers import bare, depth_of, layers_of, linears_of
from penjing.models.load import load

Tiny = Callable[..., Path]
# linear maps in a layer, and how many of them are attention's
LINEARS = {
    "bert": (6, 4), "roberta": (6, 4), "electra": (6, 4), "distilbert": (6, 4), "albert": (6, 4),
    "modernbert": (4, 2), "mpnet": (6, 4), "gpt2": (4, 2), "llama": (7, 4), "qwen3": (7, 4), "t5": (6, 4),
}  # fmt: skip


def trunk_of(family: str, tiny: Tiny, **changes: int) -> nn.Module:
    trunk: nn.Module = load(str(tiny(family, **changes))).trunk
    return trunk


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stack_has_as_many_layers_as_the_config_says(family: str, tiny: Tiny) -> None:
    own = 1 if family == "albert" else 2  # ALBERT passes twice through one
    assert len(layers_of(trunk_of(family, tiny))) == own


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_a_base_of_one_layer_has_a_stack_too(family: str, tiny: Tiny) -> None:
    name = {"gpt2": "n_layer", "t5": "num_layers"}.get(family, "num_hidden_layers")
    assert len(layers_of(trunk_of(family, tiny, **{name: 1}))) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_maps_of_the_layers_are_all_found(family: str, tiny: Tiny) -> None:
    trunk = trunk_of(family, tiny)
    n_layers, (each, attention) = len(layers_of(trunk)), LINEARS[family]
    assert len(linears_of(trunk)) == n_layers * each
    assert len(linears_of(trunk, attention_only=True)) == n_layers * attention


@pytest.mark.parametrize("family", FAMILIES)
def test_depths_go_from_the_embeddings_to_what_lies_above(family: str, tiny: Tiny) -> None:
    trunk = trunk_of(family, tiny)
    top = len(layers_of(trunk)) + 1
    depths = {name: depth_of(trunk, name) for name, _ in trunk.named_parameters()}
    assert set(range(top)) <= set(depths.values()) <= set(range(top + 1))
    for name, parameter in trunk.named_parameters():
        if parameter is trunk.get_input_embeddings().weight:
            assert depths[name] == 0, name
    above = {name for name, depth in depths.items() if depth == top}
    assert all("norm" in name or name.startswith("ln_f") for name in above), above


def test_bare_looks_below_a_peft_wrapper(tiny: Tiny) -> None:
    from penjing.methods.lora import lora

    trunk = trunk_of("bert", tiny)
    assert bare(trunk) is trunk
    assert bare(lora(rank=2).apply(trunk)) is trunk
