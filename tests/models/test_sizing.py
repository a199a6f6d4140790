"""Forecasts: operations as torch counts them, time that grows with everything, a pace that is measured."""

from collections.abc import Callable
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
from penjing.models.sizing import Forecast, Pace, Shape, flops_a_token, forecast
from penjing.records import Batch, Tokens

Tiny = Callable[..., Path]
CPU = Machine(torch.device("cpu"), "fp32", 1)
PACE = Pace((Shape(16, 1e-4, 1e9), Shape(64, 4e-4, 4e9)), 1e-9)
USUAL: dict[str, Any] = {"tokens_a_step": 500.0, "longest": 20.0, "steps": 100, "micro_tokens": 8192}


def model_of(folder: Path, **method: Any) -> Model:
    base = load(str(folder))
    trunk = top(**method).apply(base.trunk) if method else base.trunk
    return Model(trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)


def equal_rows(n_rows: int, length: int) -> Batch:
    rng, starts = np.random.default_rng(0), np.arange(0, n_rows * length + 1, length)
    return pack(Tokens(rng.integers(40, 150, n_rows * length).astype(np.int32), starts), np.arange(n_rows))


def expected(model: Model, pace: Pace = PACE, precision: str = "fp32", **changes: Any) -> Forecast:
    return forecast(model, pace=pace, precision=precision, **{**USUAL, **changes})


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
        ("longest", [5.0, 20.0, 500.0]),
        ("steps", [1, 10, 100]),
    ],
)
def test_more_of_anything_never_takes_less(key: str, values: list[Any], tiny: Tiny) -> None:
    found = [expected(model_of(tiny("bert")), **{key: value}) for value in values]
    assert [f.seconds for f in found] == sorted({f.seconds for f in found})
    assert [f.mib for f in found] == sorted(f.mib for f in found)


def test_more_layers_and_width_take_longer_and_a_faster_machine_less(tiny: Tiny) -> None:
    deep, wide = {"num_hidden_layers": 4}, {"hidden_size": 64, "intermediate_size": 128}
    small = expected(model_of(tiny("bert"))).seconds
    assert small < expected(model_of(tiny("bert", **deep))).seconds
    assert small < expected(model_of(tiny("bert", **wide))).seconds
    assert small > expected(model_of(tiny("bert")), Pace((Shape(32, 1e-5, 1e10),), 1e-10)).seconds
    assert small < expected(model_of(tiny("bert")), micro_tokens=100).seconds  # more, smaller pieces
    assert expected(model_of(tiny("bert"), layers=1)).seconds < small


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
