"""Static int8: whole numbers exactly as a reference with int64 has them, and values outside cut."""

import pytest
import torch
from torch import nn

from penjing.models.abreast import Abreast, joined
from penjing.models.calibrated_int8 import CalibratedInt8, feed_forward, grid_of, plus, through
from penjing.models.int8 import has_vnni


def test_a_static_layer_is_the_reference_in_whole_numbers() -> None:
    layer, x = nn.Linear(40, 24), torch.randn(11, 40) + 0.3
    for factors in (None, torch.rand(40) + 0.5):
        held = CalibratedInt8.of(
            layer.weight.detach(), layer.bias.detach(), span=(-2.0, 3.0), factors=factors
        )
        by = torch.ones(40) if factors is None else factors
        step, zero = grid_of(-2.0, 3.0)
        codes = (x / (step * by) + zero).round().clamp(-128, 127).long()
        whole = (codes - zero) @ held.weight.long()
        wanted = whole.double() * step * held.scale.double() + layer.bias.double()
        torch.testing.assert_close(held(x).double(), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(held._by_sums(x).double(), wanted, rtol=1e-5, atol=1e-5)


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


def _two(n: int = 32) -> tuple[CalibratedInt8, CalibratedInt8, torch.Tensor]:
    up, down, x = nn.Linear(n, 4 * n), nn.Linear(4 * n, n), torch.randn(19, n)
    inside = nn.functional.gelu(up(x)).detach()
    spans = (float(x.min()), float(x.max())), (float(inside.min()), float(inside.max()))
    first, second = (
        CalibratedInt8.of(layer.weight.detach(), layer.bias.detach(), span=span)
        for layer, span in zip((up, down), spans, strict=True)
    )
    return first, second, x


def test_what_is_added_is_added() -> None:
    _, down, _ = _two()
    x, rest = torch.randn(19, 128), torch.randn(19, 32)
    torch.testing.assert_close(plus(down, x, rest), down(x) + rest, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not has_vnni(), reason="oneDNN's int8 wants VNNI")
@pytest.mark.parametrize("activation", [nn.GELU(), nn.ReLU()])
def test_a_fused_feed_forward_is_its_layers_but_for_codes_between_two(activation: nn.Module) -> None:
    up, down, x = _two()
    found, wanted = feed_forward(up, activation, down, x), down(activation(up(x))) + x
    code = float(down.get_buffer("step")) * down.dense().abs().max()  # what one code more comes to
    assert (found - wanted).abs().max() <= 2 * code
    assert ((found - wanted).abs() > 1e-4).float().mean() < 0.1
    alone = torch.cat([feed_forward(up, activation, down, row[None]) for row in x])
    assert torch.equal(alone, found)
    assert torch.equal(feed_forward(up, activation, down, x, fused=False), plus(down, activation(up(x)), x))


def test_who_watches_a_layer_of_a_feed_forward_sees_what_it_gives() -> None:
    up, down, x = _two()
    seen = list[torch.Size]()
    up.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    feed_forward(up, nn.GELU(), down, x)
    assert seen == [(19, 128)]


def test_layers_on_one_grid_are_one_product_and_a_changed_weight_is_seen() -> None:
    x = torch.randn(7, 40)
    layers = [CalibratedInt8.of(torch.randn(n, 40), torch.randn(n), span=(-3.0, 4.0)) for n in (8, 8, 16)]
    other = CalibratedInt8.of(torch.randn(8, 40), torch.randn(8), span=(-3.0, 5.0))
    assert (joined(layers) is not None) == has_vnni()
    assert joined([*layers, other]) is None
    abreast = Abreast()
    for _ in range(2):
        for found, layer in zip(abreast.of(layers, x), layers, strict=True):
            assert torch.equal(found, layer(x))
        layers[1].scale.mul_(2)
