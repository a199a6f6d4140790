"""Round to nearest, GPTQ and AWQ: against plain second ways, each other, and the layers' own errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common import told
from compressed import answers, held_of, rehearsal_of, shrink
from conftest import tickets
from penjing.compressor import Compressor, Held, Rehearsal
from penjing.compressors.awq import awq, clipped, factors
from penjing.compressors.calibrating import (
    Moments,
    batches_of,
    by_layer,
    error_of,
    gathered,
    plain_linears,
    watch,
)
from penjing.compressors.folding import fold, norms_of
from penjing.compressors.gptq import gptq, solved
from penjing.compressors.round import round as to_nearest
from penjing.compressors.sensitive import scan
from penjing.data.batches import packed
from penjing.errors import NotSupported, SpecError
from penjing.models.grid import Grid, Marks, fitted, nearest, values
from penjing.models.slim import weight_of
from penjing.models.stored import dense, kind_of
from penjing.models.weight_only import rounded
from penjing.records import NO_ROWS, Part, Tokens
from penjing.tasks.translate import translate

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(24)]
GRID = Grid(3, 32, False)
SIDES = ("encoder", "decoder")


def moments_of(x: Tensor) -> Moments:
    found = Moments.empty(x.shape[1], x.device)
    found.add(x)
    return found


def inputs(n: int = 400, width: int = 64) -> Tensor:
    """Inputs as layers have them: correlated, and some much larger than others."""
    return torch.randn(n, width) @ torch.randn(width, width) * torch.rand(width).mul(3).exp()


def changed(step: Compressor, held: Held) -> dict[str, Tensor]:
    """The step made; the weights of all linear layers, as they then are."""
    names = plain_linears(held)
    made = shrink(step, held, rehearsal_of(held, TEXTS))
    return {name: dense(made.held.model.trunk.get_submodule(name)) for name in names}


# ---- what enters a layer


def test_moments_are_those_of_what_enters_each_layer(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    batches = batches_of(rehearsal_of(held, TEXTS))
    names = by_layer(held.model.trunk, plain_linears(held))[1]
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    watch(held.model, batches, names, lambda name, x: seen[name].append(x.reshape(-1, x.shape[-1])))
    for name, found in gathered(held.model, batches, names, Moments.empty).items():
        x = torch.cat(seen[name]).double()
        torch.testing.assert_close(found.outer, x.t() @ x, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(found.size, x.abs().sum(0), rtol=1e-5, atol=1e-4)
        assert found.n == sum(int(b.lengths.sum()) for b in batches)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_rows_together_are_seen_as_rows_alone_and_no_padding_is(family: str, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    assert held.model.way.packed == (family == "bert")
    part = rehearsal_of(held, ["late", "my card was charged twice on order 12", "the parcel is lost"]).part
    names = plain_linears(held)
    one, many = ([packed(part, np.array(rows)) for rows in cut] for cut in ([[0], [1], [2]], [[0, 1, 2]]))
    alone, together = (gathered(held.model, batches, names, Moments.empty) for batches in (one, many))
    for name in names:
        assert alone[name].n == together[name].n == int(part.tokens.lengths.sum())
        torch.testing.assert_close(together[name].outer, alone[name].outer, rtol=1e-3, atol=1e-2)


def test_layers_above_those_looked_at_do_not_run(tiny: Tiny) -> None:
    held = held_of(tiny("gpt2"))
    first, second = by_layer(held.model.trunk, plain_linears(held))
    ran = []
    for name in (*first, *second):
        held.model.trunk.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    gathered(held.model, batches_of(rehearsal_of(held, TEXTS[:2])), first, Moments.empty)
    assert ran == first


# ---- GPTQ


def naive(weight: np.ndarray, outer: np.ndarray, marks: Marks, grid: Grid, order: np.ndarray) -> np.ndarray:
    """GPTQ as the paper's equations 2 and 3 have it: the inverse of what is left of H, made anew for each
    column.
    """
    hessian = 2 * outer
    hessian = hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))
    weight, codes = weight.copy(), np.zeros_like(weight)
    for step, q in enumerate(order):
        left = order[step:]
        inverse = np.linalg.inv(hessian[np.ix_(left, left)])
        group = 0 if grid.group is None else q // grid.group
        scale, zero = marks.scale.double().numpy()[:, group], marks.zero.double().numpy()[:, group]
        codes[:, q] = np.clip(np.round(weight[:, q] / scale) + zero, 1 if grid.symmetric else 0, grid.top)
        error = (weight[:, q] - (codes[:, q] - zero) * scale) / inverse[0, 0]
        weight[:, left] -= np.outer(error, inverse[0])
    return codes


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", [GRID, Grid(4, None, True)], ids=str)
def test_gptq_in_blocks_is_gptq_column_by_column(act_order: bool, grid: Grid) -> None:
    x, weight = inputs(), torch.randn(12, 64)
    outer = x.double().t() @ x.double()
    order = np.argsort(-np.diag(outer), kind="stable") if act_order else np.arange(64)
    marks = fitted(weight, grid)
    wanted = naive(weight.double().numpy(), outer.numpy(), marks, grid, order)
    found = solved(weight, outer, marks, grid, act_order=act_order, block=24)
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_gptq_of_inputs_that_have_nothing_in_common_is_rounding() -> None:
    weight = torch.randn(12, 64)
    marks = fitted(weight, GRID)
    for outer in (torch.diag(torch.rand(64).double()), torch.zeros(64, 64).double()):
        assert torch.equal(solved(weight, outer, marks, GRID), nearest(weight, marks, GRID))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_gptq_errs_less_than_rounding_on_every_layer(family: str, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    names, trunk = plain_linears(held), held.model.trunk
    found = gathered(held.model, batches_of(rehearsal_of(held, TEXTS)), names, Moments.empty)
    for name in names:
        weight, outer = weight_of(trunk, name), found[name].outer
        marks = fitted(weight, GRID)
        ours = values(solved(weight, outer, marks, GRID), marks, GRID)
        assert error_of(ours - weight, outer) < error_of(rounded(weight, None, GRID).dense() - weight, outer)


def test_a_layer_is_solved_for_what_the_layers_below_give_once_they_are_held(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    trunk, batches = held.model.trunk, batches_of(rehearsal_of(held, TEXTS))
    step = gptq(bits=3, group=32)
    _, above = by_layer(trunk, plain_linears(held))
    before = {name: weight_of(trunk, name).clone() for name in above}
    found = changed(step, held)
    # what enters the first of `above` is final once all is held
    again = gathered(held.model, batches, above, Moments.empty)
    name = above[0]
    marks = fitted(before[name], GRID)
    wanted = values(solved(before[name], again[name].outer, marks, GRID), marks, GRID)
    torch.testing.assert_close(found[name], wanted)


# ---- AWQ


def test_awq_of_inputs_of_one_size_is_rounding() -> None:
    x = inputs().sign()
    assert factors([torch.randn(12, 64)], moments_of(x), GRID) is None


def test_awq_scales_up_what_meets_large_inputs_and_errs_less() -> None:
    x = torch.randn(400, 64)
    x[:, :3] *= 30
    weight, outer = torch.randn(48, 64), (x.double().t() @ x.double())
    found = factors([weight], moments_of(x), Grid(3, None, False))
    assert found is not None
    assert found[:3].min() > found[3:].max()
    grid = Grid(3, None, False)
    ours = rounded(weight * found, None, grid).dense() / found
    assert error_of(ours - weight, outer) < 0.5 * error_of(
        rounded(weight, None, grid).dense() - weight, outer
    )


def test_grids_that_span_less_lose_less_of_their_own_part() -> None:
    x, weight = inputs(), torch.randn(12, 64) ** 3
    grid = Grid(3, None, False)
    outer = x.double().t() @ x.double()
    marks, plain = clipped(weight, outer, grid), fitted(weight, grid)
    ours, theirs = (values(nearest(weight, m, grid), m, grid) - weight for m in (marks, plain))
    for row in range(12):
        assert error_of(ours[row, None], outer) <= error_of(theirs[row, None], outer) * 1.0001
    assert (marks.scale < plain.scale).any()


def test_factors_go_into_the_norms_whose_output_nothing_else_reads(tiny: Tiny) -> None:
    """GPT-2 and Llama: attention's norm and the feed-forward network's; BERT adds its norms' outputs on."""
    for family, n in (("gpt2", 4), ("llama", 4), ("bert", 0)):
        held = held_of(tiny(family))
        batch = batches_of(rehearsal_of(held, TEXTS[:2]))[0]
        assert len(norms_of(held.model, batch, plain_linears(held))) == n, family


def test_folded_factors_leave_the_answers_as_they_were(tiny: Tiny) -> None:
    held = held_of(tiny("llama"))
    trunk, before = held.model.trunk, answers(held, TEXTS)
    batch = batches_of(rehearsal_of(held, TEXTS[:2]))[0]
    for group, norm in norms_of(held.model, batch, plain_linears(held)).items():
        scaled = torch.rand(held.base.width) + 0.5
        fold(trunk, norm, scaled)
        for name in group:
            trunk.get_submodule(name).get_parameter("weight").mul_(scaled)
    torch.testing.assert_close(answers(held, TEXTS), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_awq_with_bits_enough_changes_nothing(family: str, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    before = answers(held, TEXTS)
    made = shrink(awq(bits=8, group=8, clip=False), held, rehearsal_of(held, TEXTS))
    torch.testing.assert_close(answers(made.held, TEXTS), before, rtol=0.02, atol=0.02)


# ---- all of them


@pytest.mark.parametrize("make", [gptq, awq])
def test_facts_say_what_was_gained_over_rounding(make: Callable[..., Compressor], tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    facts = shrink(make(bits=3, group=32), held, rehearsal_of(held, TEXTS)).facts
    assert 0 < facts["error"] < facts["error_of_rounding"]
    assert facts["layers"] == facts["layers_better"] == 12
    # factors of columns, which BERT's norms cannot take, are many for weights so small
    assert facts["bits_a_weight"] == pytest.approx(3 + 16 / 32 + 8 / 32 + (make is awq) * 0.5, abs=0.2)


def test_the_layers_that_hurt_most_are_kept_in_eight_bits(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    names, trunk, rehearsal = plain_linears(held), held.model.trunk, rehearsal_of(held, TEXTS)
    plain = {name: weight_of(trunk, name).clone() for name in names}
    before = answers(held, TEXTS)
    grid, hurts = Grid(2, 32, False), {}
    for name in names:  # by hand
        layer = trunk.get_submodule(name)
        old = layer.weight.clone()
        layer.weight.copy_(rounded(old, None, grid).dense())
        hurts[name] = float((answers(held, TEXTS) - before).square().sum())
        layer.weight.copy_(old)
    worst = sorted(names, key=lambda name: -hurts[name])
    assert (
        list(scan(held, rehearsal, names, lambda n: rounded(plain[n], trunk.get_submodule(n).bias, grid)))
        == worst
    )
    facts = shrink(
        to_nearest(bits=2, group=32, symmetric=False, embeddings=False, keep=0.25), held, rehearsal
    ).facts
    assert sorted(facts["kept"]) == sorted(worst[:3])
    assert list(facts["sensitivity"]) == worst[:5]
    bits = {name: trunk.get_submodule(name).grid.bits for name in names}
    assert {name for name in names if bits[name] == 8} == set(worst[:3])


def test_layers_to_keep_may_be_named(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    facts = shrink(to_nearest(bits=4, keep=["*.layer.0.*"]), held, rehearsal_of(held, [TEXTS[0]])).facts
    assert len(facts["kept"]) == 6
    assert "sensitivity" not in facts


def test_what_cannot_be_is_refused(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    rehearsal: Any = rehearsal_of(held, TEXTS)
    with pytest.raises(SpecError) as caught:
        shrink(to_nearest(keep=1.5), held, rehearsal)
    told(caught, "`keep`", "0 to below 1", "it is 1.5")
    with pytest.raises(SpecError) as caught:
        shrink(to_nearest(keep=["*.lyer.0.*"]), held, rehearsal)
    told(caught, "`*.lyer.0.*` is none of the 12 here", "called such as `encoder.layer.0", "`*` stands")
    with pytest.raises(SpecError) as caught:
        gptq(damping=0.0)
    told(caught, "`gptq.damping`", "it is 0")
    shrink(to_nearest(), held, rehearsal)
    with pytest.raises(NotSupported) as caught:
        shrink(to_nearest(), held, rehearsal)
    told(caught, "Linear layers to compress", "weight_only already", "once")


@pytest.mark.parametrize("make", [gptq, awq])
def test_both_stacks_of_an_encoder_decoder_are_held(make: Callable[..., Compressor], tiny: Tiny) -> None:
    held = held_of(tiny("t5"), translate(), [])
    ids = np.arange(10, 42).astype(np.int32)
    read, said = Tokens(ids, np.array([0, 12, 32])), Tokens(ids[::-1].copy(), np.array([0, 20, 32]))
    rehearsal = Rehearsal(NO_ROWS, Part(NO_ROWS, read, np.zeros(2), answers=said))
    batch = batches_of(rehearsal)[0]
    before = held.model.states(batch)
    made = shrink(make(bits=8, group=8, embeddings=False), held, rehearsal)
    trunk = made.held.model.trunk
    assert {kind_of(trunk.get_submodule(f"{side}.block.0.layer.0.SelfAttention.q")) for side in SIDES} == {
        "weight_only"
    }
    torch.testing.assert_close(made.held.model.states(batch), before, rtol=0.05, atol=0.05)
