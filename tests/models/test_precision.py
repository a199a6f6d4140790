"""Working copies: the trunk in bf16, its parameters in fp32; and recomputation in backward."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from common import FAMILIES
from penjing.data.batches import pack
from penjing.engine.scoring import outputs
from penjing.methods.bitfit import bitfit
from penjing.methods.lora import lora
from penjing.methods.top import top
from penjing.models.dropout import hasten, set_dropout
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.precision import WorkingCopies, recompute
from penjing.records import Batch, Method, Tokens
from penjing.tasks.classify import classify

Tiny = Callable[..., Path]
LENGTHS = np.array([3, 9, 1, 12, 12, 6])
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
ROWS = np.arange(len(LENGTHS))


def batch() -> Batch:
    return pack(TOKENS, ROWS, ROWS % 3)


def model_of(
    folder: Path,
    precision: str = "fp32",
    *,
    method: Method | None = None,
    dropout: float = 0.0,
    again: bool = False,
) -> Model:
    base = load(str(folder))
    torch.manual_seed(1)
    trunk = base.trunk if method is None else method.apply(base.trunk)
    set_dropout(trunk, dropout)
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0)
    model = Model(trunk, head, base.way).prepare(precision)
    assert not again or recompute(trunk)
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """One backward pass; the gradient of each parameter that got one."""
    torch.manual_seed(5)
    model.train()
    classify().loss(model, batch()).mean.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forward_equals_a_bf16_copy_run_natively(family: str, tiny: Tiny) -> None:
    model = model_of(tiny(family), "bf16")
    native = model_of(tiny(family))
    for parameter in native.trunk.parameters():  # not the buffers: rotary frequencies stay in fp32
        parameter.data = parameter.data.to(torch.bfloat16)
    with torch.no_grad():
        wanted = native.eval().states(batch())
        found = model.eval().states(batch())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_within_a_percent_of_fp32(family: str, tiny: Tiny) -> None:
    with torch.no_grad():
        exact, quick = (
            classify().loss(model_of(tiny(family), p).train(), batch()).mean for p in ("fp32", "bf16")
        )
    assert abs(float(quick / exact) - 1) < 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_arrive_in_fp32_and_point_where_those_of_fp32_do(family: str, tiny: Tiny) -> None:
    exact, quick = (gradients(model_of(tiny(family), p)) for p in ("fp32", "bf16"))
    assert exact.keys() == quick.keys()
    assert all(g.dtype == torch.float32 for g in quick.values())
    flat = [torch.cat([g.flatten() for g in found.values()]) for found in (exact, quick)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.995


def test_parameters_stay_in_fp32_and_are_the_same_objects(tiny: Tiny) -> None:
    model = model_of(tiny("bert"), "bf16")
    before = dict(model.named_parameters())
    gradients(model)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is p and p.dtype == torch.float32 for name, p in before.items())


def test_parameters_stay_in_their_order_where_part_of_a_module_is_frozen(tiny: Tiny) -> None:
    """Optimizers know parameters by number: a new order would give them each other's moments on resume."""
    base = load(str(tiny("bert")))
    for name, parameter in base.trunk.named_parameters():
        parameter.requires_grad_(name.endswith("weight"))
    model = Model(base.trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way).prepare("bf16")
    before = [name for name, _ in model.named_parameters()]
    gradients(model)
    assert [name for name, _ in model.named_parameters()] == before


def test_parameters_are_back_after_a_forward_that_failed(tiny: Tiny) -> None:
    model = model_of(tiny("bert"), "bf16")
    before = dict(model.named_parameters())
    wrong = copy.copy(batch())
    object.__setattr__(wrong, "ids", batch().ids + 10_000)
    with pytest.raises(IndexError):
        model(wrong)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is p for name, p in before.items())
    assert not any(isinstance(v, Tensor) for m in model.trunk.modules() for v in vars(m).values())


@pytest.mark.parametrize("method", [lora(rank=2), bitfit(), top(layers=1)], ids=["lora", "bitfit", "top"])
def test_what_is_frozen_is_kept_in_bf16_only(method: Method, tiny: Tiny) -> None:
    model = model_of(tiny("bert"), "bf16", method=method)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.trunk.named_parameters():
        if id(parameter) not in tables:
            wanted = torch.float32 if parameter.requires_grad else torch.bfloat16
            assert parameter.dtype == wanted, name
    assert all(g.dtype == torch.float32 for g in gradients(model).values())


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_scoring_after_an_update_sees_the_new_weights(kind: Any, fused: bool, tiny: Tiny) -> None:
    model = model_of(tiny("bert"), "bf16")
    before = outputs(model, TOKENS)
    gradients(model)
    kind(model.trunk.parameters(), lr=0.05, fused=fused).step()
    after = outputs(model, TOKENS)
    fresh = Model(model.trunk, model.head, model.way)
    fresh._copies = WorkingCopies(model.trunk, torch.bfloat16)
    assert not torch.equal(before, after)
    assert torch.equal(after, outputs(fresh, TOKENS))


def test_training_goes_on_after_scoring(tiny: Tiny) -> None:
    """Scoring runs in inference mode, whose tensors cannot be trained with."""
    model = model_of(tiny("bert"), "bf16")
    wanted = {name: g.clone() for name, g in gradients(model).items()}
    model.zero_grad()
    outputs(model, TOKENS, tokens=int(LENGTHS.sum()))
    found = gradients(model)
    assert all(torch.equal(wanted[name], g) for name, g in found.items())


CHECKPOINTED = ["bert", "roberta", "electra", "distilbert", "modernbert", "gpt2", "llama", "qwen3", "t5"]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", CHECKPOINTED)
def test_recomputation_gives_the_same_gradients(
    family: str, precision: str, dropout: float, tiny: Tiny
) -> None:
    plain = gradients(model_of(tiny(family), precision, dropout=dropout))
    again = gradients(model_of(tiny(family), precision, dropout=dropout, again=True))
    assert plain.keys() == again.keys()
    for name, grad in plain.items():
        assert torch.equal(grad, again[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", [lora(rank=2), bitfit(), top(layers=1)], ids=["lora", "bitfit", "top"])
def test_recomputation_works_with_what_is_partly_frozen(method: Method, precision: str, tiny: Tiny) -> None:
    plain = gradients(model_of(tiny("bert"), precision, method=method, dropout=0.2))
    again = gradients(model_of(tiny("bert"), precision, method=method, dropout=0.2, again=True))
    assert plain.keys() == again.keys()
    assert all(torch.equal(grad, again[name]) for name, grad in plain.items())


def test_recomputation_saves_what_the_layers_would_have_kept(tiny: Tiny) -> None:
    def kept(again: bool) -> int:
        sizes: dict[int, int] = {}

        def pack_(x: Tensor) -> Tensor:
            if not isinstance(x, nn.Parameter):
                sizes[x.data_ptr()] = x.numel()
            return x

        model = model_of(tiny("bert", num_hidden_layers=4), again=again).train()
        with torch.autograd.graph.saved_tensors_hooks(pack_, lambda x: x):
            classify().loss(model, batch())
        return sum(sizes.values())

    assert kept(True) < 0.5 * kept(False)


def test_recomputation_leaves_a_layers_own_tensors_alone() -> None:
    """A tensor that is no parameter, such as a fixed scale, lies in a layer too."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    class Layer(GradientCheckpointingLayer):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.scale = nn.Linear(4, 4), torch.tensor(2.0, dtype=torch.bfloat16)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.map(x) * self.scale)

    trunk = nn.Sequential(Layer()).train()
    copies = WorkingCopies(trunk, torch.bfloat16)
    assert recompute(trunk)
    with copies.active():
        out = trunk(torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True))
    out.float().sum().backward()
    assert trunk[0].map.weight.grad is not None


def test_a_trunk_without_layers_to_recompute_says_so(tiny: Tiny) -> None:
    assert not recompute(nn.Sequential(nn.Linear(2, 2)))
    for family in set(FAMILIES) - set(CHECKPOINTED):  # albert and mpnet, as transformers has them
        assert not recompute(load(str(tiny(family))).trunk), family


def test_copies_of_what_trains_are_made_anew_for_each_forward(tiny: Tiny) -> None:
    trunk = load(str(tiny("bert"))).trunk
    copies = WorkingCopies(trunk, torch.bfloat16)
    layer = trunk.encoder.layer[0].output.dense
    with copies.active():
        first = layer.weight
        assert first.dtype == torch.bfloat16
        assert first.requires_grad
    assert isinstance(layer.weight, nn.Parameter)
    with torch.no_grad():
        layer.weight.mul_(2)
    with copies.active():
        assert torch.equal(layer.weight, first * 2)


def test_quick_dropout_and_working_copies_live_together(tiny: Tiny) -> None:
    model = model_of(tiny("bert"), "bf16", dropout=0.3)
    hasten(model.trunk)
    first, same = gradients(model), gradients(model)
    assert first.keys() == same.keys()
    assert all(torch.isfinite(g).all() for g in same.values())


@pytest.mark.parametrize("trains", [True, False])
def test_a_table_that_is_read_whole_has_the_working_type(trains: bool) -> None:
    """DeBERTa's of relative places, which goes through a norm and projections."""
    config = transformers.DebertaV2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=300,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16, share_att_key=True,
        norm_rel_ebd="layer_norm", position_biased_input=False,
    )  # fmt: skip
    trunk = transformers.DebertaV2Model(config).requires_grad_(trains)
    copies = WorkingCopies(trunk, torch.bfloat16)
    with copies.active():
        states = trunk(input_ids=torch.arange(10, 20)[None]).last_hidden_state
    assert states.dtype == torch.bfloat16
