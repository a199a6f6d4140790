"""Zeros that grow: as many as the schedule says, none back by itself, and movement's scores by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing.errors import SpecError
from penjing.models.layers import linears_of
from penjing.models.masked import Masks
from penjing.models.model import Model
from penjing.records import Technique
from penjing.techniques.sparsify import schedule, sparsify
from techniques.test_techniques import STEPS, Bench, technique_of

Tiny = Callable[..., Path]


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    names = linears_of(model.trunk)
    return {n: model.trunk.get_submodule(n).weight.detach().clone() for n in names}  # type: ignore[union-attr,operator]


def shares(model: Model) -> list[float]:
    return [float((w == 0).float().mean()) for w in weights_of(model).values()]


def test_the_schedule_is_the_cube_and_ends_with_all() -> None:
    found = schedule(0.8, 100, start=0.1, end=0.7, renewals=20)
    for step, share in found.items():
        assert share == pytest.approx(0.8 - 0.8 * (1 - (step - 10) / 60) ** 3)
    assert max(found) == 70
    assert found[70] == 0.8
    assert schedule(0.5, 1, start=0.1, end=0.7, renewals=20) == {1: 0.5}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("by", ["magnitude", "movement"])
@pytest.mark.slow
def test_zeros_grow_and_end_exactly_at_the_share_asked_for(by: str, family: str, tiny: Tiny) -> None:
    bench = Bench(tiny(family), technique_of("sparsify", by=by, share=0.75, renewals=3))
    grown = []
    for step in range(STEPS):
        bench.train(step, step + 1)
        grown.append(shares(bench.model)[0])
    assert grown == sorted(grown)
    assert grown[0] < 0.75
    assert shares(bench.model) == [0.75] * len(shares(bench.model))


def test_zeros_that_fp16_left_out_come_with_the_next_update(tiny: Tiny) -> None:
    bench = Bench(tiny("bert"), technique_of("sparsify", share=0.75, renewals=1, end=0.5))
    (due,) = schedule(0.75, STEPS, start=0.1, end=0.5, renewals=1)
    bench.train(0, due - 1)
    bench.train(due, due + 1)
    assert shares(bench.model) == [0.75] * len(shares(bench.model))


def test_what_is_masked_stays_zero_by_magnitude(tiny: Tiny) -> None:
    bench = Bench(tiny("bert"), technique_of("sparsify", renewals=2))
    bench.train(0, 2)
    before = weights_of(bench.model)
    assert any((w == 0).any() for w in before.values())
    bench.train(2, STEPS)
    for name, weight in weights_of(bench.model).items():
        assert not weight[before[name] == 0].any()


def test_what_is_saved_has_all_its_zeros_at_any_time(tiny: Tiny) -> None:
    made: Technique = technique_of("sparsify", renewals=3)
    bench = Bench(tiny("bert"), made)
    bench.train(0, 2)
    before = weights_of(bench.model)
    assert made.weights is not None
    with made.weights(bench.model):
        assert shares(bench.model) == [0.5] * len(before)
    after = weights_of(bench.model)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert shares(bench.model)[0] < 0.5


def test_a_state_read_from_disk_goes_where_the_weights_are(tiny: Tiny) -> None:
    """Saved tensors are read onto the CPU; `meta` stands for a card here."""
    model = Bench(tiny("bert"), technique_of("sparsify")).model
    masks = Masks("movement", "layer")
    masks.renew(model, 0.5)
    masks.load_state_dict(masks.state_dict())
    masks.hold(model.to("meta"))
    assert {kept.device.type for kept in (*masks.masks.values(), *masks.hidden.values())} == {"meta"}


def test_movements_scores_are_minus_the_sum_of_weight_times_gradient(tiny: Tiny) -> None:
    """By hand: gradients seen before they are masked, weights with what the mask hides."""
    made = technique_of("sparsify", by="movement", renewals=2)
    assert made.state is not None
    wanted: dict[str, torch.Tensor] = {}
    whole: dict[str, torch.Tensor] = {}

    def unmasked(model: Model) -> None:
        masks = made.state.state_dict()["masks"] if made.state else {}
        for name, weight in weights_of(model).items():
            stays = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
            whole[name] = torch.where(stays, weight, whole.get(name, weight))

    def look(model: Model) -> None:
        unmasked(model)
        for name, weight in whole.items():
            grad = model.trunk.get_submodule(name).weight.grad
            wanted[name] = wanted.get(name, torch.zeros_like(weight)) - weight * grad  # type: ignore[operator]

    by_hand: Any = {"edit_grads": look, "after_update": lambda model, step: unmasked(model)}
    bench = Bench(tiny("bert"), Technique("look", **by_hand), made)
    bench.train(0, STEPS)
    scores = made.state.state_dict()["scores"]
    masks = made.state.state_dict()["masks"]
    for name, score in wanted.items():
        torch.testing.assert_close(scores[name], score, rtol=1e-4, atol=1e-6)
        stays = masks[name]
        assert int((~stays).sum()) * 2 == stays.numel()


def test_zeros_that_are_there_stay_and_no_other_comes(tiny: Tiny) -> None:
    bench = Bench(tiny("bert"), technique_of("sparsify", by="zeros"))
    layer = bench.model.trunk.get_submodule(linears_of(bench.model.trunk)[0])
    with torch.no_grad():
        layer.weight[::2] = 0  # type: ignore[index,operator]
    bench.train(0, STEPS)
    assert not layer.weight[::2].any()  # type: ignore[index,operator,union-attr]
    assert sum(shares(bench.model)) == 0.5


def test_adapters_and_settings_that_cannot_be_are_refused(tiny: Tiny) -> None:
    bench = Bench(tiny("bert"), technique_of("sparsify"))
    bench.model.trunk.requires_grad_(False)
    with pytest.raises(SpecError, match=r"none of them trains. Say `method: full`"):
        bench.train(0, 1)
    for settings in ({"share": 1.0}, {"start": 0.8}, {"renewals": 0}, {"by": "zeros", "share": 0.5}):
        with pytest.raises(SpecError, match=r"`sparsify\."):
            sparsify(**settings)  # type: ignore[arg-type]
