"""A side network: fed from every layer, computed by hand in float64, and without a gradient in the trunk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import FAMILIES, each, gap, padded, stir, words
from penjing.engine.scoring import nearest_name
from penjing.errors import SpecError
from penjing.methods.prompt import prompt
from penjing.methods.side import side
from penjing.models import packing
from penjing.models.heads import ClassHead
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.models.precision import WorkingCopies
from penjing.models.sizing import flops_a_token
from penjing.records import Tokens

Tiny = Callable[..., Path]
LENGTHS = [1, 5, 3, 20, 12]


def beside(folder: Path, **settings: int) -> Base:
    base = load(str(folder))
    torch.manual_seed(1)
    side(**{"reduction": 4, **settings}).apply(base.trunk)
    return base


def states(base: Base, ids: Tensor, lengths: list[int] = LENGTHS) -> Tensor:
    return packing.run(base.trunk, base.way, ids, lengths)


@pytest.mark.parametrize("family", each(FAMILIES))
def test_it_begins_at_the_base_bit_for_bit_and_then_moves_it(family: str, tiny: Tiny) -> None:
    plain, base = load(str(tiny(family))), beside(tiny(family))
    ids = words(plain, sum(LENGTHS))
    with torch.no_grad():
        wanted = states(plain, ids)
        assert torch.equal(states(base, ids), wanted)
        stir(base.trunk)
        assert gap(states(base, ids), wanted) > 0.01


@pytest.mark.parametrize("family", each(FAMILIES))
def test_the_states_of_every_layer_are_transformers_own(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    ids = words(base, sum(LENGTHS))
    with torch.no_grad():
        found = packing.layer_states(base.trunk, base.way, ids, LENGTHS)
        assert torch.equal(found[-1], states(base, ids))
        base.trunk.set_attn_implementation("eager")
        for row, start in zip(ids.split(LENGTHS), [0, 1, 6, 9, 29], strict=True):
            wanted = base.trunk(input_ids=row[None], output_hidden_states=True).hidden_states
            assert len(found) == len(wanted) == 3
            for mine, other in zip(found[:-1], wanted[:-1], strict=True):
                assert gap(mine[start : start + len(row)], other[0]) < 1e-5


def by_hand(added: Any, heard: list[Tensor], *, causal: bool) -> Tensor:
    """The side network over the states of one sequence, (n, D) each, as its docstring and the paper say."""
    x = F.linear(heard[0], added.downs[0].weight, added.downs[0].bias)
    for i, rung in enumerate(added.rungs):
        gate = 1 / (1 + torch.exp(-added.gates[i] / 0.1))
        down, block = added.downs[i + 1], added.blocks[i]
        x = gate * F.linear(heard[rung], down.weight, down.bias) + (1 - gate) * x
        q, k, v = F.linear(block.norm(x), block.inputs.weight, block.inputs.bias).chunk(3, 1)
        out = torch.zeros_like(x)
        wide = x.shape[1] // block.heads
        for at in range(0, x.shape[1], wide):
            scores = q[:, at : at + wide] @ k[:, at : at + wide].T / wide**0.5
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            out[:, at : at + wide] = scores.softmax(1) @ v[:, at : at + wide]
        x = x + block.output(out)
        x = x + block.narrow(F.gelu(block.widen(block.other_norm(x))))
    return heard[-1] + added.up(added.norm(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("family", each(["bert", "albert", "mpnet", "gpt2", "llama"]))
def test_states_and_gradients_equal_those_by_hand_in_float64(family: str, every: int, tiny: Tiny) -> None:
    base = beside(tiny(family), every=every)
    stir(base.trunk)
    added: Any = base.trunk.added
    ids, pull = words(base, sum(LENGTHS)), torch.randn(sum(LENGTHS), base.width)
    out = states(base, ids)
    (out * pull).sum().backward()
    found = {n: p.grad.clone() for n, p in added.named_parameters()}
    base.trunk.zero_grad()
    base.trunk.double()
    with torch.no_grad():
        heard = packing.layer_states(base.trunk, base.way, ids, LENGTHS)
    rows = [list(row) for row in zip(*(h.split(LENGTHS) for h in heard), strict=True)]
    wanted = torch.cat([by_hand(added, row, causal=base.kind == "decoder") for row in rows])
    (wanted * pull).sum().backward()
    assert gap(out, wanted) < 1e-5
    largest = max(float(p.grad.abs().max()) for p in added.parameters())
    for name, parameter in added.named_parameters():
        assert float((found[name] - parameter.grad).abs().max()) < 1e-5 * largest, name


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_packed_states_equal_padded_ones(family: str, tiny: Tiny) -> None:
    base = beside(tiny(family))
    stir(base.trunk)
    ids = words(base, sum(LENGTHS))
    assert gap(states(base, ids), padded(base, ids, LENGTHS)) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", each(FAMILIES))
def test_no_activation_of_the_trunk_holds_a_graph(family: str, precision: str, tiny: Tiny) -> None:
    base = beside(tiny(family))
    stir(base.trunk)
    own = {id(m) for m in base.trunk.added.modules()}  # type: ignore[union-attr]
    inside: list[nn.Module] = [m for m in base.trunk.modules() if id(m) not in own and m is not base.trunk]
    held: list[bool] = []
    for module in inside:
        module.register_forward_hook(
            lambda m, args, out: held.append(isinstance(out, Tensor) and out.requires_grad)
        )
    copies = WorkingCopies(base.trunk, torch.bfloat16 if precision == "bf16" else torch.float32)
    base.trunk.train()
    with copies.active():
        out = states(base, words(base, sum(LENGTHS)))
    assert len(held) > 10
    assert not any(held)
    out.float().square().sum().backward()
    for name, parameter in base.trunk.named_parameters():
        assert (parameter.grad is not None) == name.startswith("added."), name
        assert parameter.grad is None or parameter.grad.dtype == torch.float32


def test_the_trunk_runs_without_dropout_while_it_trains(tiny: Tiny) -> None:
    base = beside(tiny("bert"))
    ids = words(base, sum(LENGTHS))
    base.trunk.train()
    assert torch.equal(states(base, ids), states(base, ids))


def test_weights_are_counted_layer_by_layer(tiny: Tiny) -> None:
    base = beside(tiny("bert"))  # D 32, w 8, two layers
    norms, attention, network = 4 * 8, 3 * 8 * 8 + 3 * 8 + 8 * 8 + 8, 2 * 4 * 8 * 8 + 4 * 8 + 8
    wanted = 3 * (32 * 8 + 8) + 2 * (norms + attention + network) + 2 + 2 * 8 + 8 * 32 + 32
    assert sum(p.numel() for p in base.trunk.parameters() if p.requires_grad) == wanted


def test_a_forecast_counts_no_backward_pass_through_the_trunk(tiny: Tiny) -> None:
    def flops(base: Base) -> float:
        model = Model(base.trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)
        return flops_a_token(model, longest=10.0)

    beneath = load(str(tiny("bert")))
    beneath.trunk.requires_grad_(False)
    through = load(str(tiny("bert")))
    prompt(tokens=2).apply(through.trunk)
    assert flops(beside(tiny("bert"))) == flops(beneath) < flops(through)


@pytest.mark.parametrize("method", [side(reduction=4), prompt(tokens=3)])
def test_the_untuned_base_is_asked_without_what_stands_around_it(method: Any, tiny: Tiny) -> None:
    def asked(base: Base) -> Any:
        model = Model(base.trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)
        ids = words(base, 20).numpy()
        rows, names = (Tokens(ids, np.array(starts)) for starts in ([0, 9, 20], [0, 3, 7]))
        return nearest_name(model, rows, names, "mean")

    base = load(str(tiny("bert")))
    plain = asked(base)
    method.apply(base.trunk)
    stir(base.trunk)
    added = base.trunk.added
    assert (asked(base) == plain).all()
    assert base.trunk.added is added


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"reduction": 1}, ("`side.reduction`", "at least 2", "it is 1", "4 to 16")),
        ({"every": 0}, ("`side.every`", "at least 1", "it is 0")),
        ({"reduction": 16}, ("`side.reduction` is 16", "BertModel is 32 wide", "at most 8 and 2")),
        ({"every": 3}, ("`side.every` is 3", "has 2 layers", "at most 8 and 2")),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, int], parts: tuple[str, ...], tiny: Tiny
) -> None:
    with pytest.raises(SpecError) as error:
        beside(tiny("bert"), **settings)
    assert [p for p in parts if p not in str(error.value)] == [], str(error.value)
