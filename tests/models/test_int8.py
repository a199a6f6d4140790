"""Whole numbers of 8 bits: how far off, how exact, and how independent of neighbours."""

import numpy as np
import pytest
import torch
from torch import nn

from penjing.models import int8
from penjing.models.abreast import Abreast, joined
from penjing.models.int8 import (
    Int8Linear,
    Int8Table,
    rounded,
    tokens_rounded,
    whole_product,
)


@pytest.mark.parametrize("scales", ["channel", "tensor"])
def test_a_code_is_off_by_at_most_half_a_scale(scales: str) -> None:
    weight = torch.randn(9, 40, dtype=torch.float64) * torch.logspace(-3, 2, 9, dtype=torch.float64)[:, None]
    codes, scale = rounded(weight, scales)  # type: ignore[arg-type]
    off = (weight - codes.double() * scale.double()[:, None]).abs()
    assert bool((off <= scale.double()[:, None] * (0.5 + 1e-6)).all())
    assert codes.dtype == torch.int8
    assert int(codes.min()) >= -127


def test_a_scale_a_row_is_never_worse_than_one_for_all() -> None:
    weight = torch.randn(30, 64) * torch.rand(30, 1) * 4

    def error(scales: str) -> float:
        codes, scale = rounded(weight, scales)  # type: ignore[arg-type]
        return float((weight - codes * scale[:, None]).square().sum())

    assert error("channel") < error("tensor")


def test_a_row_of_zeros_stays_zeros() -> None:
    layer = Int8Linear.of(torch.zeros(4, 8), torch.arange(4.0))
    out = layer(torch.cat([torch.zeros(1, 8), torch.ones(1, 8)]))
    assert torch.equal(out, torch.arange(4.0).expand(2, 4))


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 5), (17, 384, 24), (3, 4099, 7)])
def test_the_product_is_that_of_whole_numbers_exactly(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], vnni: bool
) -> None:
    monkeypatch.setattr(int8, "has_vnni", lambda: vnni)
    rows, inner, columns = shape
    draw = np.random.default_rng(0)
    a, b = (draw.integers(-127, 128, size, dtype=np.int8) for size in ((rows, inner), (inner, columns)))
    a[0], b[:, 0] = 127, -127  # the largest sum there can be
    found = whole_product(torch.from_numpy(a), torch.from_numpy(b)).long().numpy()
    assert np.array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


def test_a_layer_computes_what_its_codes_say() -> None:
    linear, x = nn.Linear(48, 20), torch.randn(2, 7, 48)
    layer = Int8Linear.of(linear.weight, linear.bias)
    codes, scale = tokens_rounded(x.view(14, 48))
    wanted = (codes.double() * scale) @ layer.dense().double().t() + linear.bias.double()
    torch.testing.assert_close(layer(x).double().view(14, 20), wanted, atol=1e-5, rtol=1e-5)
    near = torch.nn.functional.cosine_similarity(layer(x), linear(x).detach(), dim=-1)
    assert float(near.min()) > 0.999


def test_a_token_becomes_the_same_whoever_stands_beside_it() -> None:
    layer = Int8Linear.of(torch.randn(24, 64), None)
    rows = torch.randn(50, 64)
    rows[7] *= 1000
    together = layer(rows)
    assert torch.equal(torch.cat([layer(row[None]) for row in rows]), together)


def test_an_input_changed_in_place_is_read_anew() -> None:
    layer, x = Int8Linear.of(torch.randn(4, 8), None), torch.randn(3, 8)
    first = layer(x)
    x.mul_(2)
    torch.testing.assert_close(layer(x), 2 * first)


@pytest.mark.parametrize("bias", [True, False])
def test_linears_side_by_side_give_each_its_own_bits(bias: bool) -> None:
    layers = [
        Int8Linear.of(torch.randn(n, 48) * n, torch.randn(n) if bias else None).requires_grad_(False)
        for n in (20, 8, 20)
    ]
    abreast, x = Abreast(), torch.randn(300, 48)
    assert joined(layers) is not None
    for own, layer in zip(abreast.of(layers, x), layers, strict=True):
        assert torch.equal(own, layer(x))
    layers[1].scale.mul_(3)
    assert torch.equal(abreast.of(layers, x)[1], layers[1](x))


def test_linears_that_somebody_watches_do_not_stand_side_by_side() -> None:
    layers = [Int8Linear.of(torch.randn(4, 8), None) for _ in range(2)]
    seen, x = list[int](), torch.randn(3, 8)
    layers[1].register_forward_hook(lambda *given: seen.append(1))
    assert torch.equal(Abreast().of(layers, x)[1], layers[1](x))
    assert len(seen) == 2
    assert joined([layers[0], nn.Linear(8, 4)]) is None


def test_many_tokens_give_the_bits_of_few() -> None:
    layer, x = Int8Linear.of(torch.randn(1536, 64), torch.randn(1536)), torch.randn(400, 64)
    assert torch.equal(layer(x), torch.cat([layer(part) for part in x.split(7)]))
    assert layer(x[:0]).shape == (0, 1536)


def test_a_table_gives_the_rows_that_it_stands_for() -> None:
    table = nn.Embedding(11, 6, padding_idx=0)
    held = Int8Table.of(table)
    ids = torch.tensor([[1, 10], [0, 3]])
    assert torch.equal(held(ids), held.dense()[ids])
    assert float((held.dense() - table.weight.detach()).abs().max()) <= float(held.scale.max()) / 2 * 1.001


@pytest.mark.parametrize(
    "made", [Int8Linear.of(torch.randn(5, 8), torch.randn(5)), Int8Table.of(nn.Embedding(9, 4))]
)
def test_an_empty_layer_takes_the_state_of_a_full_one(made: nn.Module) -> None:
    again = type(made).empty(
        made.in_features, made.out_features, bias=made.bias is not None, **made.settings()
    )
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.dense(), made.dense())
