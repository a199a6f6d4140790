"""The contract of every method, on tiny bases: what trains, where it begins, that it learns, what it counts.

A new file in methods/ is tested by its name alone; settings that a tiny base needs go into SETTINGS.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing import plugin
from penjing.data.batches import pack
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.errors import NotSupported, PenjingError, SpecError
from penjing.keys import TrainSpec
from penjing.methods.bitfit import bitfit
from penjing.methods.full import full
from penjing.methods.lora import lora
from penjing.methods.top import top
from penjing.models import packing
from penjing.models.heads import ClassHead
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Batch, Method, Tokens
from penjing.tasks.classify import classify

Tiny = Callable[..., Path]
FAMILIES = ["bert", "gpt2", "llama", "distilbert", "electra"]
ALL = [*FAMILIES, "roberta", "albert", "modernbert", "mpnet", "qwen3", "t5"]
METHODS = sorted(plugin.found("methods"))
SETTINGS: dict[str, dict[str, Any]] = {"top": {"layers": 1}, "lora": {"rank": 4}}
NOT_FOR = {("bitfit", "llama")}  # it has no biases
CASES = [(m, f) for m in METHODS for f in FAMILIES if (m, f) not in NOT_FOR]
LENGTHS = np.array([6] * 6 + [9] * 6)
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
LABELS = np.arange(len(LENGTHS)) % 3


def method_of(name: str) -> Method:
    built: Method = plugin.build("methods", plugin.Choice(name, SETTINGS.get(name, {})))
    return built


def states(base: Base, trunk: nn.Module) -> Tensor:
    with torch.no_grad():
        return packing.run(trunk.eval(), base.way, torch.from_numpy(TOKENS.ids).long(), LENGTHS.tolist())


def digest(parameters: list[nn.Parameter]) -> str:
    state = hashlib.sha256()
    for parameter in parameters:
        state.update(parameter.detach().numpy().tobytes())
    return state.hexdigest()


def stream() -> Iterator[list[Batch]]:
    while True:
        yield [pack(TOKENS, np.arange(len(LENGTHS)), LABELS)]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_method_trains_something_and_only_full_everything(name: str, family: str, tiny: Tiny) -> None:
    trunk = method_of(name).apply(load(str(tiny(family))).trunk)
    trains = [p.requires_grad for p in trunk.parameters()]
    assert any(trains)
    assert all(trains) == (name == "full")


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_method_that_keeps_the_start_begins_bit_for_bit_at_the_base(
    name: str, family: str, tiny: Tiny
) -> None:
    base = load(str(tiny(family)))
    before = states(base, base.trunk)
    method = method_of(name)
    after = states(base, method.apply(base.trunk))
    assert torch.equal(before, after) or not method.keeps_start


@pytest.mark.parametrize(("name", "family"), CASES)
def test_gradients_reach_all_that_trains_and_nothing_else(name: str, family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    model = Model(
        method_of(name).apply(base.trunk), ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way
    )
    with torch.no_grad():  # LoRA's B begins at zero, and then no gradient reaches A
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.add_(0.01 * torch.randn_like(parameter))
            assert parameter.grad is None, parameter_name
    classify().loss(model.train(), next(stream())[0]).mean.backward()
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
        if parameter.grad is not None and "bias" not in parameter_name:  # a key's bias moves no attention
            assert bool(parameter.grad.any()), parameter_name


@pytest.mark.parametrize(("name", "family"), CASES)
def test_twenty_steps_lower_the_loss_and_leave_what_is_frozen(name: str, family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    method = method_of(name)
    model = Model(method.apply(base.trunk), ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)
    model.prepare("fp32")
    frozen = [p for p in model.parameters() if not p.requires_grad]
    trained = [p for p in model.trunk.parameters() if p.requires_grad]
    before, moving = digest(frozen), digest(trained)
    settings = TrainSpec(warmup=0, schedule="constant")
    made = optim.optimizer(model, settings, 3e-3)

    def loss() -> float:
        with torch.no_grad():
            return float(classify().loss(model.eval(), next(stream())[0]).mean)

    first = loss()
    for _ in train_steps(model, stream(), classify().loss, made, optim.schedule(settings, 20), steps=20):
        pass
    assert loss() < first - 0.05
    assert digest(frozen) == before
    assert digest(trained) != moving


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


@pytest.mark.parametrize("family", ALL)
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


# ---- LoRA's arithmetic


def test_lora_adds_the_scaled_product_to_the_weight(tiny: Tiny) -> None:
    trunk = lora(rank=4, alpha=6, targets=["query"]).apply(load(str(tiny("bert"))).trunk)
    layer = trunk.get_submodule("base_model.model.encoder.layer.0.attention.self.query")
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(5, 32)
    wanted = x @ (layer.base_layer.weight + 6 / 4 * b @ a).T + layer.base_layer.bias
    assert torch.allclose(layer(x), wanted, atol=1e-5)


def test_lora_scales_by_twice_the_rank_when_not_told(tiny: Tiny) -> None:
    trunk = lora(rank=5, targets=["query"]).apply(load(str(tiny("bert"))).trunk)
    assert trunk.peft_config["default"].lora_alpha == 10


def test_rank_stabilised_lora_divides_by_the_root_of_the_rank(tiny: Tiny) -> None:
    def scaling(**settings: Any) -> float:
        trunk = lora(targets=["query"], **settings).apply(load(str(tiny("bert"))).trunk)
        layer = trunk.get_submodule("base_model.model.encoder.layer.0.attention.self.query")
        return float(layer.scaling["default"])

    assert scaling(rank=16, alpha=8, rslora=True) == scaling(rank=16, alpha=32)


@pytest.mark.parametrize("family", FAMILIES)
def test_dora_begins_at_the_base(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    before = states(base, base.trunk)
    after = states(base, lora(rank=2, dora=True).apply(base.trunk))
    assert float((before - after).abs().max()) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_merged_into_the_base_gives_the_same_states(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    trunk = lora(rank=3).apply(base.trunk)
    for name, parameter in trunk.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    apart = states(base, trunk)
    assert not torch.equal(apart, states(base, load(str(tiny(family))).trunk))
    assert float((apart - states(base, trunk.merge_and_unload())).abs().max()) < 1e-4


def test_lora_begins_alike_with_the_same_seed(tiny: Tiny) -> None:
    def first() -> Tensor:
        torch.manual_seed(7)
        trunk = lora(rank=2).apply(load(str(tiny("bert"))).trunk)
        return next(p for n, p in trunk.named_parameters() if "lora_A" in n)

    assert torch.equal(first(), first())


# ---- settings that cannot be


def told(error: pytest.ExceptionInfo[PenjingError], *parts: str) -> None:
    """What was wanted, what was found, where, what to do: each part stands in the text."""
    for part in parts:
        assert part in str(error.value), str(error.value)


@pytest.mark.parametrize("rank", [0, -3])
def test_a_rank_below_one_is_refused(rank: int) -> None:
    with pytest.raises(SpecError) as error:
        lora(rank=rank)
    told(error, "`lora.rank`", "at least 1", str(rank), "8 to 32")


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_a_scale_that_would_train_nothing_is_refused(alpha: float) -> None:
    with pytest.raises(SpecError) as error:
        lora(alpha=alpha)
    told(error, "`lora.alpha`", "above 0", str(alpha), "Leave it out")


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    with pytest.raises(SpecError) as error:
        lora(dropout=dropout)
    told(error, "`lora.dropout`", "at least 0 and below 1", str(dropout), "usual")


@pytest.mark.parametrize("targets", [["q_proj"], ["query", "wrong"], [], ["LayerNorm"]])
def test_targets_that_match_no_linear_layer_are_refused(targets: list[str], tiny: Tiny) -> None:
    trunk = load(str(tiny("bert"))).trunk
    with pytest.raises(NotSupported) as error:
        lora(targets=targets).apply(trunk)
    told(error, "`lora.targets`", str(targets[-1:]), "BertModel", "query", "`targets: all`")


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
