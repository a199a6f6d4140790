"""LoRA: its arithmetic against formulas, its beginnings, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import stir, told
from contract import in_peft, states
from penjing import bundle as bundles
from penjing.engine.optim import groups
from penjing.errors import NotSupported, SpecError
from penjing.keys import TrainSpec
from penjing.methods.lora import lora
from penjing.models import peft_files
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.wrap import merged

Tiny = Callable[..., Path]
SOME = ["bert", "gpt2", "llama"]


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


@pytest.mark.parametrize("family", SOME)
def test_dora_begins_at_the_base(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    before = states(base, base.trunk)
    after = states(base, lora(rank=2, dora=True).apply(base.trunk))
    assert float((before - after).abs().max()) < 1e-5


@pytest.mark.parametrize("family", SOME)
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


@pytest.mark.parametrize("ratio", [0.0, -4.0, float("nan")])
def test_a_ratio_of_rates_that_would_not_train_is_refused(ratio: float) -> None:
    with pytest.raises(SpecError) as error:
        lora(plus_ratio=ratio)
    told(error, "`lora.plus_ratio`", "above 0", str(ratio), "1 is plain LoRA")


@pytest.mark.parametrize(("other", "settings"), [("dora", {"dora": True}), ("init", {"init": "pissa"})])
def test_what_needs_the_base_as_it_came_is_refused_over_four_bits(
    other: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(SpecError) as error:
        lora(quantize="nf4", **settings)
    told(error, "`lora.quantize`", "4 bits", f"lora.{other}", "Drop one")


# ---- LoRA+ and QLoRA


def test_rates_of_lora_plus_are_those_of_pefts_optimizer(tiny: Tiny) -> None:
    from peft.optimizers import create_loraplus_optimizer

    base = load(str(tiny("bert")))
    trunk: Any = lora(rank=2, plus_ratio=16).apply(base.trunk)
    theirs = create_loraplus_optimizer(trunk, torch.optim.AdamW, lr=2e-4, loraplus_lr_ratio=16)
    rates = {id(p): group["lr"] for group in theirs.param_groups for p in group["params"]}
    model = nn.ModuleDict({"trunk": trunk, "head": nn.Linear(4, 2)})
    ours = groups(model, TrainSpec(weight_decay=0.0), 2e-4)
    found = {id(p): group["lr"] for group in ours for p in group["params"]}  # type: ignore[attr-defined]
    assert {key: found[key] for key in rates} == pytest.approx(rates)
    assert sorted(set(found.values())) == pytest.approx([2e-4, 32e-4])


@pytest.mark.parametrize("family", SOME)
def test_over_four_bits_it_learns_and_opens_merges_and_answers_the_same(
    family: str, tiny: Tiny, tmp_path: Path
) -> None:
    base = load(str(tiny(family)))
    plain = states(base, base.trunk)
    trunk: Any = lora(rank=2, quantize="nf4").apply(base.trunk)
    start = states(base, trunk)
    assert 1e-4 < float((start - plain).norm() / plain.norm()) < 0.5  # random weights
    stir(trunk, by=0.05)
    wanted = states(base, trunk)
    assert not torch.allclose(wanted, start, atol=1e-2)
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0)
    card = {"task": "classify", "method": {"lora": {"quantize": "nf4"}}, "labels": ["a", "b", "c"]}
    model = Model(trunk, head, base.way)
    bundles.save(tmp_path / "b", model=model, base=base, saves="peft", card={**card, "max_length": 64})
    opened: Any = bundles.load(tmp_path / "b", device="cpu", precision="fp32").model
    assert torch.allclose(states(base, opened.trunk), wanted, atol=1e-6)  # GPT-2's activation is fused now
    assert torch.allclose(states(base, merged(opened.trunk)), wanted, atol=2e-5)


# ---- beginnings


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("init", "family"), [("pissa", "bert"), ("pissa", "gpt2"), ("olora", "bert")])
def test_an_adapter_begun_at_the_bases_own_parts_opens_in_peft_over_the_untouched_base(
    init: Any, family: str, rslora: bool, tiny: Tiny, tmp_path: Path
) -> None:
    base = load(str(tiny(family)))
    before = states(base, base.trunk)
    trunk: Any = lora(rank=4, init=init, rslora=rslora).apply(base.trunk)
    assert torch.allclose(states(base, trunk), before, atol=1e-4)
    stir(trunk, by=0.02)
    wanted = states(base, trunk)
    assert not torch.allclose(wanted, before, atol=1e-2)
    peft_files.save(trunk, tmp_path)
    plain = load(str(tiny(family)))
    opened = in_peft(plain.trunk, tmp_path)
    assert torch.allclose(states(plain, opened), wanted, atol=2e-5)


def test_pissa_begins_at_the_largest_singular_values(tiny: Tiny) -> None:
    whole = load(str(tiny("bert"))).trunk.get_parameter("encoder.layer.0.attention.self.query.weight")
    trunk = lora(rank=3, targets=["query"], init="pissa").apply(load(str(tiny("bert"))).trunk)
    layer: Any = trunk.get_submodule("base_model.model.encoder.layer.0.attention.self.query")
    left, values, right = torch.linalg.svd(whole.detach().double())
    wanted = left[:, :3] @ values[:3].diag() @ right[:3]
    found = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.allclose(found.double(), wanted, atol=1e-5)
    assert torch.allclose(layer.base_layer.weight.double(), whole - wanted, atol=1e-5)


def test_a_gaussian_beginning_keeps_the_start_and_an_orthogonal_one_nearly(tiny: Tiny) -> None:
    for init, most in (("gaussian", 0.0), ("orthogonal", 1e-5)):
        base = load(str(tiny("bert")))
        before = states(base, base.trunk)
        trunk = lora(rank=4, init=init).apply(base.trunk)  # type: ignore[arg-type]
        assert float((states(base, trunk) - before).abs().max()) <= most


def test_olora_on_layers_that_lie_the_other_way_is_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported) as error:
        lora(init="olora").apply(load(str(tiny("gpt2"))).trunk)
    told(error, "`lora.init`", "olora", "GPT2Model", "`init: pissa`")


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_changed_base_under_dora_is_refused(init: Any) -> None:
    with pytest.raises(SpecError) as error:
        lora(dora=True, init=init)
    told(error, "`lora.dora`", init, "over the base as it came", "Drop one")
