"""Static int8: whole numbers exactly as a reference with int64 has them, and values outside cut."""

import pytest
import torch
from torch import nn

from penjing.models.calibrated_int8 import CalibratedInt8, grid_of, through


def test_a_static_layer_is_the_reference_in_whole_numbers() -> None:
    layer, x = nn.Linear(40, 24), torch.randn(11, 40) + 0.3
    for factors in (None, torch.rand(40) + 0.5):
        held = CalibratedInt8.of(
            layer.weight.detach(), layer.bias.detach(), span=(-2.0, 3.0), factors=factors
        )
        by = torch.ones(40) if factors is None else factors
        step, zero = grid_of(-2.0, 3.0)
        codes = (x / (step * by) + zero).round().clamp(-127, 127).long()
        whole = (codes - zero) @ held.weight.long()
        wanted = whole.double() * step * held.scale.double() + layer.bias.double()
        torch.testing.assert_close(held(x).double(), wanted, rtol=1e-5, atol=1e-5)


def test_inputs_inside_move_by_half_a_step_at_most_and_those_outside_are_cut() -> None:
    x = torch.linspace(-1, 3, 1001)
    step, _ = grid_of(-1.0, 3.0)
    assert (through(x, -1.0, 3.0) - x).abs().max() <= step * 0.5001
    assert through(torch.tensor([9.0, -9.0]), -1.0, 3.0).tolist() == pytest.approx([3.0, -1.0], abs=step)
    assert through(torch.zeros(1), -0.3, 3.0).item() == 0
    assert through(torch.ones(1), 0.0, 0.0).isfinite().all()


@pytest.mark.parametrize("span", [None, (-6.0, 8.0)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_near_the_plain_layer_and_no_token_changes_another(
    span: tuple[float, float] | None, bias: bool
) -> None:
    layer = nn.Linear(64, 24, bias=bias)
    x = torch.randn(2, 9, 64).clamp(-3, 4)
    held = CalibratedInt8.of(layer.weight.detach(), layer.bias, span=span, factors=torch.rand(64) + 0.5)
    assert (held(x) - layer(x)).abs().max() < 0.1
    assert torch.equal(held(x)[1, 3], held(x[1:2, 3])[0])
    torch.testing.assert_close(held.dense(), layer.weight.detach(), rtol=0, atol=0.005)
    assert held(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("span", [None, (-3.0, 4.0)])
def test_an_empty_layer_of_the_same_settings_takes_the_state(span: tuple[float, float] | None) -> None:
    held = CalibratedInt8.of(torch.randn(24, 40), None, span=span, factors=torch.rand(40) + 0.5)
    again = CalibratedInt8.empty(40, 24, bias=False, **held.settings())
    again.load_state_dict(held.state_dict())
    x = torch.randn(3, 40)
    assert torch.equal(again(x), held(x))
