"""Bottleneck adapters: where they stand, what they compute, what they count."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import FAMILIES, each, gap, padded, stir, words
from penjing.errors import NotSupported, SpecError
from penjing.methods.adapter import adapter
from penjing.models import packing
from penjing.models.bottleneck import Bottleneck
from penjing.models.layers import layers_of, sublayers_of
from penjing.models.load import Base, load
from penjing.models.precision import WorkingCopies, recompute

Tiny = Callable[..., Path]
PLACES = ["houlsby", "pfeiffer", "parallel"]
LENGTHS = [1, 5, 3, 20, 12]


def adapted(folder: Path, places: Any = "houlsby", **settings: Any) -> Base:
    base = load(str(folder))
    torch.manual_seed(1)
    adapter(size=4, places=places, **settings).apply(base.trunk)
    return base


def states(base: Base, ids: Tensor) -> Tensor:
    return packing.run(base.trunk, base.way, ids, LENGTHS)


@pytest.mark.parametrize("family", each(FAMILIES))
@pytest.mark.parametrize("places", PLACES)
def test_it_begins_at_the_base_bit_for_bit_and_then_moves_it(places: str, family: str, tiny: Tiny) -> None:
    plain, base = load(str(tiny(family))), adapted(tiny(family), places)
    ids = words(plain, sum(LENGTHS))
    with torch.no_grad():
        assert torch.equal(states(plain, ids), states(base, ids))
        stir(base.trunk)
        assert gap(states(base, ids), states(plain, ids)) > 0.01


@pytest.mark.parametrize("family", each([f for f in FAMILIES if f not in ("mpnet", "t5")]))
@pytest.mark.parametrize("places", PLACES)
def test_packed_states_and_gradients_equal_padded_ones(places: str, family: str, tiny: Tiny) -> None:
    base = adapted(tiny(family), places)
    stir(base.trunk)
    ids = words(base, sum(LENGTHS))
    pull = torch.randn(sum(LENGTHS), base.width)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for run in (lambda: states(base, ids), lambda: padded(base, ids, LENGTHS)):
        out = run()
        base.trunk.zero_grad()
        (out * pull).sum().backward()
        grads = {n: p.grad.clone() for n, p in base.trunk.named_parameters() if p.grad is not None}
        found.append((out.detach(), grads))
    assert gap(found[0][0], found[1][0]) < 1e-5
    assert found[0][1].keys() == {n for n, p in base.trunk.named_parameters() if p.requires_grad}
    largest = max(float(g.abs().max()) for g in found[1][1].values())
    for name, grad in found[0][1].items():
        assert float((grad - found[1][1][name]).abs().max()) < 1e-5 * largest, name


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh"])
def test_a_bottleneck_computes_its_formula(activation: str) -> None:
    module = Bottleneck(5, 3, activation=activation, scale=2.5).double()
    stir(module)
    x = torch.randn(7, 5, dtype=torch.float64)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": lambda h: h * (1 + torch.erf(h / math.sqrt(2))) / 2,
        "relu": lambda h: h.clamp(min=0),
        "silu": lambda h: h / (1 + torch.exp(-h)),
        "tanh": lambda h: 1 - 2 / (torch.exp(2 * h) + 1),
    }
    low = functions[activation](x @ module.down.weight.T + module.down.bias)
    wanted = 2.5 * (low @ module.up.weight.T + module.up.bias)
    assert torch.allclose(module(x), wanted, atol=1e-12)


def test_a_feed_forward_network_gives_what_each_paper_says(tiny: Tiny) -> None:
    """In float64, by the weights of BERT's own layer: before the residual and its norm."""
    for places in PLACES:
        base = adapted(tiny("bert"), places, scale=1.5)
        stir(base.trunk)
        layer = base.trunk.double().get_submodule("encoder.layer.1")
        x = torch.randn(1, 6, 32, dtype=torch.float64)
        plain = nn.functional.gelu(x @ layer.intermediate.dense.weight.T + layer.intermediate.dense.bias)
        plain = plain @ layer.output.dense.weight.T + layer.output.dense.bias
        added = layer.output.dense.bottleneck(x if places == "parallel" else plain)
        wanted = nn.functional.layer_norm(
            plain + added + x, (32,), layer.output.LayerNorm.weight, layer.output.LayerNorm.bias, 1e-12
        )
        found = layer.eval().feed_forward_chunk(x)
        assert torch.allclose(found, wanted, atol=1e-12), places


def bert_base() -> nn.Module:
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        return BertModel(BertConfig(vocab_size=100), add_pooling_layer=False)


@pytest.mark.parametrize(
    ("places", "wanted"), [("houlsby", 2_379_264), ("pfeiffer", 1_189_632), ("parallel", 1_189_632)]
)
def test_on_bert_base_it_counts_24_times_2dm_m_d_or_half_of_it(places: Any, wanted: int) -> None:
    trunk = adapter(size=64, places=places).apply(bert_base())
    assert sum(p.numel() for p in trunk.parameters() if p.requires_grad) == wanted


@pytest.mark.parametrize("family", each(FAMILIES))
def test_every_layer_holds_its_adapters_by_name(family: str, tiny: Tiny) -> None:
    trunk = load(str(tiny(family))).trunk
    places = {f"{one.last}.bottleneck" for one in sublayers_of(trunk)}
    adapter(size=4).apply(trunk)
    assert places == {n.rsplit(".", 2)[0] for n, p in trunk.named_parameters() if p.requires_grad}
    assert len(places) == 2 * len(layers_of(trunk))


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_activations_give_the_same_gradients(
    precision: str, family: str, places: str, tiny: Tiny
) -> None:
    found = []
    for again in (False, True):
        base = adapted(tiny(family), places)
        stir(base.trunk)
        base.trunk.train()
        copies = WorkingCopies(base.trunk, torch.bfloat16 if precision == "bf16" else torch.float32)
        assert recompute(base.trunk) if again else True
        torch.manual_seed(5)
        with copies.active():
            out = states(base, words(base, sum(LENGTHS)))
        (out.float() ** 2).sum().backward()
        found.append({n: p.grad for n, p in base.trunk.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][n], found[1][n]) and found[0][n].dtype == torch.float32 for n in found[0])


def test_settings_that_cannot_be_are_refused(tiny: Tiny) -> None:
    for settings, parts in (
        ({"size": 0}, ("`adapter.size`", "at least 1", "it is 0", "16 to 256")),
        ({"scale": 0.0}, ("`adapter.scale`", "above 0", "it is 0.0", "Leave it out")),
        ({"scale": float("nan")}, ("`adapter.scale`", "above 0", "nan")),
    ):
        with pytest.raises(SpecError) as error:
            adapter(**settings)
        assert [p for p in parts if p not in str(error.value)] == [], str(error.value)


def test_a_base_without_linear_feed_forward_networks_is_refused() -> None:
    from transformers import MixtralConfig, MixtralModel

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    trunk = MixtralModel(MixtralConfig(num_hidden_layers=1, vocab_size=50, num_local_experts=2, **shape))
    with pytest.raises(NotSupported):
        adapter().apply(trunk)
