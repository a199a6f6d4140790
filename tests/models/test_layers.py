"""Where layers, linear maps and depths are, whatever a family calls them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from common import FAMILIES
from penjing.errors import NotSupported
from penjing.models.layers import bare, depths_of, layers_of, linears_of, sublayers_of
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
    depths = depths_of(trunk)
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


ENDS = {  # of layer 0: attention's first and last linear map, the feed-forward network's first and last
    "bert": "attention.self.query attention.output.dense intermediate.dense output.dense",
    "roberta": "attention.self.query attention.output.dense intermediate.dense output.dense",
    "electra": "attention.self.query attention.output.dense intermediate.dense output.dense",
    "distilbert": "attention.q_lin attention.out_lin ffn.lin1 ffn.lin2",
    "albert": "albert_layers.0.attention.query albert_layers.0.attention.dense albert_layers.0.ffn "
    "albert_layers.0.ffn_output",
    "modernbert": "attn.Wqkv attn.Wo mlp.Wi mlp.Wo",
    "mpnet": "attention.attn.q attention.attn.o intermediate.dense output.dense",
    "gpt2": "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj",
    "llama": "self_attn.q_proj self_attn.o_proj mlp.gate_proj mlp.down_proj",
    "qwen3": "self_attn.q_proj self_attn.o_proj mlp.gate_proj mlp.down_proj",
    "t5": "layer.0.SelfAttention.q layer.0.SelfAttention.o layer.1.DenseReluDense.wi "
    "layer.1.DenseReluDense.wo",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_feed_forward_network_of_each_layer_are_found(family: str, tiny: Tiny) -> None:
    trunk = trunk_of(family, tiny)
    found = sublayers_of(trunk)
    assert [one.attention for one in found] == [True, False] * len(layers_of(trunk))
    names = [name for one in found[:2] for name in (one.first, one.last)]
    assert [name.split(".0.", 1)[1] for name in names] == ENDS[family].split()


def test_a_layer_of_albert_with_inner_layers_has_all_their_sublayers(tiny: Tiny) -> None:
    found = sublayers_of(trunk_of("albert", tiny, inner_group_num=2))
    assert [one.last.rsplit(".", 1)[1] for one in found] == ["dense", "ffn_output"] * 2


def test_layers_whose_experts_are_no_linear_maps_are_refused(tiny: Tiny) -> None:
    from transformers import MixtralConfig, MixtralModel

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    trunk = MixtralModel(MixtralConfig(num_hidden_layers=1, vocab_size=50, num_local_experts=2, **shape))
    with pytest.raises(NotSupported) as error:
        sublayers_of(trunk)
    for part in ("width 16", "layer 1 of MixtralModel", "self_attn.o_proj", "Take `method: lora`"):
        assert part in str(error.value), str(error.value)
