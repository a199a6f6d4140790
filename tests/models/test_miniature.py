"""What a layer keeps for its backward pass is what the whole model's layers keep, method by method."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from penjing import plugin
from penjing.data.batches import pack
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.miniature import Kept, _miniature, layer_cost, word_cost
from penjing.models.model import Model
from penjing.models.word_head import word_head
from penjing.records import Batch, Tokens

Tiny = Callable[..., Path]
CPU = torch.device("cpu")
LAYERS = 4


def model_of(folder: Path, method: str, device: str, precision: str = "fp32") -> Model:
    base = load(str(folder), device=device)
    apply = plugin.build("methods", plugin.choice(method, kind="methods", key="method")).apply
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0).to(device)
    return Model(apply(base.trunk), head, base.way).prepare(precision).train()


def rows(n: int, length: int) -> Batch:
    ids = np.random.default_rng(0).integers(40, 150, n * length).astype(np.int32)
    return pack(Tokens(ids, np.arange(0, n * length + 1, length)), np.arange(n))


def kept(model: Model, batch: Batch) -> int:
    with Kept(model).counting() as counter:
        model(batch)
    return counter.bytes


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["full", "lora", "bitfit", "adapter", "prefix", "ia3"])
def test_a_layer_without_weights_keeps_what_a_layer_of_the_model_keeps(
    method: str, precision: str, tiny: Tiny
) -> None:
    """The whole model's bytes, less what does not grow with tokens, are those of its layers."""
    deep = tiny("bert", num_hidden_layers=LAYERS, hidden_size=64, intermediate_size=256)
    whole = model_of(deep, method, "cpu", precision)
    cost = layer_cost(model_of(deep, method, "meta", precision), CPU)
    assert cost is not None
    for length in (16, 48):
        more = kept(whole, rows(24, length)) - kept(whole, rows(8, length))
        assert LAYERS * cost.bytes_of(16 * length, length) == pytest.approx(more, rel=0.12)


def test_a_head_over_the_vocabulary_is_tried_by_itself(tiny: Tiny) -> None:
    base = load(str(tiny("bert")), device="meta")
    model = Model(base.trunk, word_head(base, "mask", weights=True)[0], base.way).prepare("fp32")
    assert word_cost(model, CPU) > 0
    assert isinstance(_miniature(model, CPU).head, ClassHead)
    assert layer_cost(model, CPU) is not None
    assert word_cost(model_of(tiny("bert"), "full", "meta"), CPU) == 0


@pytest.mark.parametrize(
    "family", ["roberta", "distilbert", "electra", "gpt2", "llama", "qwen3", "albert", "mpnet"]
)
def test_families_are_taken_apart_alike(family: str, tiny: Tiny) -> None:
    whole = model_of(tiny(family), "full", "cpu")
    cost = layer_cost(model_of(tiny(family), "full", "meta"), CPU)
    assert cost is not None
    more = kept(whole, rows(24, 32)) - kept(whole, rows(8, 32))
    assert 2 * cost.bytes_of(16 * 32, 32) == pytest.approx(more, rel=0.35)  # embeddings weigh in tiny models


def test_it_leaves_model_and_random_numbers_as_they_were(tiny: Tiny) -> None:
    model = model_of(tiny("bert"), "full", "cpu")
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():  # as a caller may be
        cost = layer_cost(model, CPU)
    assert cost is not None
    assert cost.token_s > 0
    assert cost.overhead_s > 0
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert len(model.trunk.encoder.layer) == 2  # type: ignore[union-attr,arg-type]


def test_a_layer_too_large_to_try_is_left_to_formulas(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.models.miniature.MOST_PARAMETERS", 10)
    assert layer_cost(model_of(tiny("bert"), "full", "cpu"), CPU) is None
