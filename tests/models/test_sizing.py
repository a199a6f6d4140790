"""Forecasts: operations as torch counts them, time that grows with everything, a pace that is measured."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from penjing.data.batches import pack
from penjing.device import Machine
from penjing.methods.top import top
from penjing.models import calibrate
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.sizing import Forecast, Pace, Shape, Work, flops_a_token, forecast, reading, work_of
from penjing.models.word_head import word_head
from penjing.records import Batch, Tokens

Tiny = Callable[..., Path]
CPU = Machine(torch.device("cpu"), "fp32", 1)
PACE = Pace((Shape(16, 1e-4, 1e9), Shape(64, 4e-4, 4e9)), 1e-9)
USUAL = Work(steps=100, tokens_a_step=500.0, longest=20.0, micro_tokens=8192, widest=600.0, scored=900.0)


def model_of(folder: Path, **method: Any) -> Model:
    base = load(str(folder))
    trunk = top(**method).apply(base.trunk) if method else base.trunk
    return Model(trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)


def equal_rows(n_rows: int, length: int) -> Batch:
    rng, starts = np.random.default_rng(0), np.arange(0, n_rows * length + 1, length)
    return pack(Tokens(rng.integers(40, 150, n_rows * length).astype(np.int32), starts), np.arange(n_rows))


def expected(model: Model, pace: Pace = PACE, precision: str = "fp32", **changes: Any) -> Forecast:
    work = replace(USUAL, **changes)
    return forecast(model, work, pace=pace, precision=precision)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_trunk_that_only_reads_takes_the_forward_pass_and_its_weights(family: str, tiny: Tiny) -> None:
    model = model_of(tiny(family))
    trained = expected(model, replace(PACE, update_s=0.0), steps=1)
    seconds, mib = reading(model.trunk, USUAL, pace=PACE, precision="fp32")
    assert seconds == pytest.approx(trained.seconds / 3, rel=1e-6)  # backward is twice the forward pass
    weights = sum(p.numel() for p in model.trunk.parameters()) * 4 / 2**20
    assert weights < mib < weights + trained.mib
    assert reading(model.trunk, USUAL, pace=PACE, precision="bf16")[1] == pytest.approx(mib / 2)


@pytest.mark.parametrize("layers", [None, 1], ids=["full", "top layer"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_operations_are_those_that_torch_counts(family: str, layers: int | None, tiny: Tiny) -> None:
    model = model_of(tiny(family), **({"layers": layers} if layers else {}))
    batch = equal_rows(4, 12)
    model.trunk.set_attn_implementation("penjing_packed" if model.way.packed else "sdpa")  # type: ignore[operator]
    with FlopCounterMode(display=False) as counter:
        model.train().states(batch).square().mean().backward()
    wanted = counter.get_total_flops() / batch.n_tokens
    if layers:  # the lower layer is taken to be passed back through, too: an upper bound
        assert 1.0 < flops_a_token(model, 12) / wanted < 1.5
    else:
        assert flops_a_token(model, 12) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("tokens_a_step", [10.0, 500.0, 9000.0, 20_000.0]),
        ("widest", [600.0, 1200.0, 8192.0]),
        ("longest", [5.0, 20.0, 500.0]),
        ("steps", [1, 10, 100]),
    ],
)
def test_more_of_anything_never_takes_less(key: str, values: list[Any], tiny: Tiny) -> None:
    found = [expected(model_of(tiny("bert")), **{key: value}) for value in values]
    assert [f.seconds for f in found] == sorted(f.seconds for f in found)
    assert found[0] != found[-1]
    assert [f.mib for f in found] == sorted(f.mib for f in found)


def test_more_layers_and_width_take_longer_and_a_faster_machine_less(tiny: Tiny) -> None:
    deep, wide = {"num_hidden_layers": 4}, {"hidden_size": 64, "intermediate_size": 128}
    small = expected(model_of(tiny("bert"))).seconds
    assert small < expected(model_of(tiny("bert", **deep))).seconds
    assert small < expected(model_of(tiny("bert", **wide))).seconds
    assert small > expected(model_of(tiny("bert")), Pace((Shape(32, 1e-5, 1e10),), 1e-10)).seconds
    assert small < expected(model_of(tiny("bert")), micro_tokens=100).seconds  # more, smaller pieces
    assert expected(model_of(tiny("bert"), layers=1)).seconds < small


def test_words_that_are_asked_for_take_their_time_and_a_piece_of_logits(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    model = Model(base.trunk, word_head(base, "mask", weights=True)[0], base.way)
    none, some = (
        forecast(model, replace(USUAL, asked=share), pace=PACE, precision="fp32", word_s=1e-3)
        for share in (0.0, 0.15)
    )
    assert some.seconds - none.seconds == pytest.approx(100 * 500 * 0.15 * 1e-3)
    words, width = base.trunk.get_input_embeddings().weight.shape
    assert some.mib - none.mib == pytest.approx((0.15 * 600 * words + words * width) * 4 / 2**20)
    untried = forecast(model, replace(USUAL, asked=0.15), pace=PACE, precision="fp32")
    rate = PACE.at(width).flops_a_s
    assert untried.seconds - none.seconds == pytest.approx(100 * 500 * 0.15 * 6 * words * width / rate)


def test_between_measured_widths_the_pace_is_between_and_beyond_them_the_nearest() -> None:
    assert PACE.at(32) == Shape(32, pytest.approx(2e-4), pytest.approx(2e9))  # type: ignore[arg-type]
    assert PACE.at(16) == PACE.shapes[0]
    assert PACE.at(8) == Shape(8, 1e-4, 1e9)
    assert PACE.at(1024) == Shape(1024, 4e-4, 4e9)


def test_the_pace_is_measured_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "WIDTHS", (64, 128))
    monkeypatch.setattr(calibrate, "UPDATED", 1 << 12)
    state = torch.get_rng_state()
    with torch.no_grad():  # as a caller may be
        first = calibrate.pace_of(CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert [shape.width for shape in first.shapes] == [64, 128]
    assert all(shape.overhead_s > 0 and shape.flops_a_s > 0 for shape in first.shapes)
    monkeypatch.setattr(calibrate, "_measured", lambda machine: pytest.fail("measured again"))
    assert calibrate.pace_of(CPU) == first


def test_the_pace_follows_what_steps_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step of n rows takes 1 ms and 0.1 ms a row, the overhead is 1 ms and the rate as computed."""
    monkeypatch.setattr(calibrate, "_step_s", lambda model, n_rows, device: 1e-3 + 1e-4 * n_rows)
    shape = calibrate._shape(CPU, 64)
    flops = flops_a_token(calibrate._trunk(CPU, 64), calibrate.ROW)
    assert shape.overhead_s == pytest.approx(1e-3)
    assert shape.flops_a_s == pytest.approx(flops * calibrate.ROW / 1e-4)
    assert isinstance(calibrate._trunk(CPU, 64), nn.Module)


def test_the_largest_batch_of_grouped_rows_is_that_of_a_window_s_longest() -> None:
    from penjing.data.batches import order

    lengths = np.random.default_rng(0).integers(5, 60, 640)
    found = work_of(lengths, n_rows=640, batch=32, steps=20, micro_tokens=8192)
    batches = [int(lengths[rows].sum()) for rows in order(lengths, batch=32, seed=0, epoch=0)]
    assert found.widest == pytest.approx(max(batches))
    assert found.tokens_a_step == pytest.approx(np.mean(batches))
    shuffled = work_of(lengths, n_rows=640, batch=32, steps=20, micro_tokens=8192, grouped=False)
    mixed = [
        lengths[rows].sum()
        for e in range(9)
        for rows in order(lengths, batch=32, seed=0, epoch=e, group=False)
    ]
    assert np.mean(mixed) < shuffled.widest < found.widest
    assert max(mixed) < 1.1 * shuffled.widest


def test_no_micro_batch_is_taken_for_larger_than_allowed_but_one_long_row() -> None:
    lengths = np.array([10] * 62 + [300, 400])
    assert work_of(lengths, n_rows=64, batch=16, steps=4, micro_tokens=128).widest == 400
    assert work_of(lengths, n_rows=64, batch=16, steps=4, micro_tokens=512).widest == 512


def test_a_layer_that_is_gone_through_often_counts_as_often(tiny: Tiny) -> None:
    once = expected(model_of(tiny("albert", num_hidden_layers=1)))
    often = expected(model_of(tiny("albert", num_hidden_layers=6)))
    assert often.parameters == once.parameters
    assert often.flops_a_token > 5 * once.flops_a_token
    assert often.seconds > 2 * once.seconds
    assert often.mib > once.mib
