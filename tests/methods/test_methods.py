"""The contract of every method on tiny bases, and golden counts on the shapes of known models.

A new file in methods/ is tried by its name alone (tests/contract.py; settings that a tiny base needs go into
its SETTINGS). Which bases it works on is found out by `python docs/make_bases.py NAME`, and checked here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common import FAMILIES, told
from contract import Story, method_of, story
from penjing import plugin
from penjing.errors import NotSupported, SpecError
from penjing.methods.adalora import adalora
from penjing.methods.bitfit import bitfit
from penjing.methods.full import full
from penjing.methods.ia3 import ia3
from penjing.methods.lora import lora
from penjing.methods.peft import peft
from penjing.methods.top import top
from penjing.models.load import load

Tiny = Callable[..., Path]
METHODS = sorted(plugin.found("methods"))
BASES = plugin.bases()
QUICK = ("bert",)
WORKS = [
    pytest.param(name, family, marks=[] if family in QUICK else pytest.mark.slow, id=f"{name}-{family}")
    for name in METHODS
    for family in BASES[name]["works"]
]
REFUSED = [(name, family) for name in METHODS for family in BASES[name]["refuses"]]
works = pytest.mark.parametrize(("name", "family"), WORKS)


@pytest.fixture(scope="module")
def lived(tiny: Tiny) -> Callable[[str, str], Story]:
    """`lived("lora", "bert")` -> what was seen when the method was lived through on that base, once."""
    seen: dict[tuple[str, str], Story] = {}

    def get(name: str, family: str) -> Story:
        if (name, family) not in seen:
            seen[name, family] = story(name, tiny(family))
        return seen[name, family]

    return get


def test_every_method_was_tried_on_every_family() -> None:
    assert sorted(BASES) == METHODS, "run `python docs/make_bases.py METHOD`"
    for name, known in BASES.items():
        assert sorted(known["works"] + known["refuses"]) == sorted(FAMILIES), name


@pytest.mark.parametrize(("name", "family"), REFUSED)
def test_a_base_that_a_method_does_not_work_on_is_refused(name: str, family: str, tiny: Tiny) -> None:
    with pytest.raises(NotSupported) as error:
        method_of(name).apply(load(str(tiny(family))).trunk)
    assert "Take" in str(error.value)


@pytest.mark.slow
@works
def test_a_method_trains_something_and_only_full_everything(name: str, family: str, lived: Any) -> None:
    seen = lived(name, family)
    assert 0 < seen.trained <= seen.trunk
    assert (seen.trained == seen.trunk) == (name == "full")


@pytest.mark.slow
@works
def test_a_method_that_keeps_the_start_begins_bit_for_bit_at_the_base(
    name: str, family: str, lived: Any
) -> None:
    seen = lived(name, family)
    assert seen.start_gap == 0 or not seen.method.keeps_start


@works
def test_gradients_reach_all_that_trains_and_nothing_else(name: str, family: str, lived: Any) -> None:
    assert lived(name, family).unreached == []


@works
def test_training_lowers_the_loss_and_leaves_what_is_frozen(name: str, family: str, lived: Any) -> None:
    seen = lived(name, family)
    assert seen.fall > 0.03
    assert seen.frozen_stayed
    assert seen.trained_moved


@works
def test_a_loaded_bundle_gives_what_was_saved(name: str, family: str, lived: Any) -> None:
    """To the bit; AdaLoRA's files leave out triplets that are zero, so sums have another order."""
    assert lived(name, family).reload_gap <= (1e-5 if name == "adalora" else 0)


@works
def test_an_adapter_in_pefts_format_gives_the_same_states_in_peft(name: str, family: str, lived: Any) -> None:
    gap, method = lived(name, family).adapter_gap, lived(name, family).method
    assert (gap is None) == (method.saves != "peft" or method.virtual > 0)
    assert gap is None or gap < 1e-5


@works
def test_a_bundle_stores_what_trains_and_no_more(name: str, family: str, lived: Any) -> None:
    """AdaLoRA stores fewer, the triplets that are left; VeRA also its random maps, as peft has it."""
    seen = lived(name, family)
    if name == "adalora":
        assert seen.stored < seen.trained
    elif name == "peft":
        assert seen.stored > seen.trained
    else:
        assert seen.stored == seen.trained


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_its_rate_and_what_a_bundle_must_hold(name: str) -> None:
    method = method_of(name)
    assert method.name == name
    assert 0 < method.lr < 1
    assert method.saves in ("full", "changed", "added", "peft")


# ---- golden counts, on the shapes of known models, without memory for their weights


def on_paper(config: str, **shape: Any) -> nn.Module:
    """A known model as load() gives it (without a pooler), on the meta device."""
    import transformers

    with torch.device("meta"):
        model: nn.Module = transformers.AutoModel.from_config(getattr(transformers, config)(**shape))
    if hasattr(model, "pooler"):
        model.pooler = None
    return model


def trainable(trunk: nn.Module) -> int:
    return sum(p.numel() for p in trunk.parameters() if p.requires_grad)


LLAMA_3B = {
    "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
    "intermediate_size": 8192, "vocab_size": 1000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("rank", "targets", "wanted"),
    [(32, ["q_proj", "v_proj"], 9_175_040), (10, ["gate_proj", "up_proj", "down_proj"], 9_461_760)],
)
def test_lora_on_llama_3b_counts_what_peft_has_published(rank: int, targets: list[str], wanted: int) -> None:
    assert trainable(lora(rank=rank, targets=targets).apply(on_paper("LlamaConfig", **LLAMA_3B))) == wanted


def test_dora_on_llama_3b_counts_a_norm_for_each_output_more() -> None:
    model = on_paper("LlamaConfig", **LLAMA_3B)
    assert trainable(lora(rank=32, targets=["q_proj", "v_proj"], dora=True).apply(model)) == 9_289_728


def test_lora_on_roberta_base_counts_what_its_paper_says() -> None:
    model = on_paper("RobertaConfig", vocab_size=1000)
    assert trainable(lora(rank=8, targets=["query", "value"]).apply(model)) == 294_912


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", ["all", "attention"])
def test_lora_counts_rank_times_inputs_and_outputs(targets: Any, family: str, tiny: Tiny) -> None:
    plain = load(str(tiny(family))).trunk
    shapes = {
        name: module.weight.shape
        for name, module in plain.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and "embed" not in name
    }
    if targets == "attention":
        shapes = {n: s for n, s in shapes.items() if any(k in n for k in ("attention", "attn", "Attention"))}
    found = trainable(lora(rank=3, targets=targets).apply(load(str(tiny(family))).trunk))
    assert found == sum(3 * sum(shape) for shape in shapes.values()) > 0


def test_bitfit_on_bert_base_counts_all_biases_but_the_one_the_head_holds() -> None:
    """102,912 biases in the paper's count; the pooler's 768 belong to the head here, which trains in full."""
    model = bitfit().apply(on_paper("BertConfig", vocab_size=1000))
    assert trainable(model) == 102_912 - 768


def test_ia3_on_llama_3b_counts_keys_values_and_inner_channels() -> None:
    assert trainable(ia3().apply(on_paper("LlamaConfig", **LLAMA_3B))) == 28 * (1024 + 1024 + 8192) == 286_720


@pytest.mark.slow
def test_adalora_on_llama_3b_counts_what_peft_has_published() -> None:
    method = adalora(rank=32, start_rank=64, targets=["q_proj", "v_proj"])
    assert trainable(method.apply(on_paper("LlamaConfig", **LLAMA_3B))) == 18_353_664


def test_vera_on_llama_3b_counts_a_vector_for_inputs_rank_and_outputs() -> None:
    method = peft(peft_type="vera", r=256, target_modules=["q_proj", "v_proj"])
    assert trainable(method.apply(on_paper("LlamaConfig", **LLAMA_3B))) == 28 * (256 + 3072 + 256 + 1024)


@pytest.mark.parametrize("layers", [0, 1, 2, 12])
def test_top_on_bert_base_counts_its_layers(layers: int) -> None:
    assert trainable(top(layers=layers).apply(on_paper("BertConfig", vocab_size=1000))) == layers * 7_087_872


def test_full_on_bert_base_counts_everything() -> None:
    assert trainable(full().apply(on_paper("BertConfig"))) == 109_482_240 - 590_592  # less the pooler


@pytest.mark.parametrize(
    ("family", "norm"),
    [("llama", "norm."), ("gpt2", "ln_f."), ("modernbert", "final_norm."), ("qwen3", "norm."),
     ("t5", "encoder.final_layer_norm.")],
)  # fmt: skip
def test_top_takes_the_last_norm_with_it(family: str, norm: str, tiny: Tiny) -> None:
    trains = {
        n: p.requires_grad for n, p in top(layers=1).apply(load(str(tiny(family))).trunk).named_parameters()
    }
    assert all(trains[name] for name in trains if name.startswith(norm))
    assert sum(name.startswith(norm) for name in trains) > 0
    lowest = ("layers.0.", "h.0.", "encoder.block.0.", "w", "embed", "shared")
    assert not any(on for name, on in trains.items() if name.startswith(lowest))


def test_top_of_nothing_trains_the_head_only(tiny: Tiny) -> None:
    assert trainable(top().apply(load(str(tiny("llama"))).trunk)) == 0


# ---- settings that cannot be


def test_more_layers_than_there_are_is_refused(tiny: Tiny) -> None:
    trunk = load(str(tiny("bert"))).trunk
    with pytest.raises(SpecError) as error:
        top(layers=3).apply(trunk)
    told(error, "`top.layers`", "0 to 2", "it is 3", "BertModel", "`method: full`")


def test_fewer_layers_than_none_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        top(layers=-1)
    told(error, "`top.layers`", "0 or more", "-1", "head only")


@pytest.mark.parametrize("family", ["llama", "modernbert", "t5"])
def test_bitfit_on_a_base_without_biases_is_refused(family: str, tiny: Tiny) -> None:
    trunk = load(str(tiny(family))).trunk
    with pytest.raises(NotSupported) as error:
        bitfit().apply(trunk)
    told(error, "BitFit trains biases", type(trunk).__name__, "has none", "`method: lora`")
