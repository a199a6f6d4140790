"""Two thin linears: equal at full rank, the best of their rank for the inputs, and as small as said."""

import pytest
import torch

from penjing.models.low_rank import LowRank, factored, worth


def error(layer: LowRank, weight: torch.Tensor, x: torch.Tensor) -> float:
    return float(((layer.dense() - weight).double() @ x.double().t()).square().sum())


def test_full_rank_is_the_weight_itself() -> None:
    weight, x = torch.randn(24, 40), torch.randn(200, 40)
    found = factored(weight, x.double().t() @ x.double())
    layer = LowRank(*found.cut(24), torch.randn(24))
    torch.testing.assert_close(layer.dense(), weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(x), x @ weight.t() + layer.bias, rtol=1e-4, atol=1e-3)


def test_its_error_is_that_of_the_values_cut_off_and_less_than_a_plain_svd_gives() -> None:
    weight = torch.randn(24, 40)
    x = torch.randn(500, 40) * torch.rand(40).mul(4).exp()
    found = factored(weight, x.double().t() @ x.double())
    left, values, right = torch.linalg.svd(weight)
    for rank in (1, 5, 20):
        ours = error(LowRank(*found.cut(rank), None), weight, x)
        assert ours == pytest.approx(float(found.values[rank:].square().sum()), rel=1e-3)
        plain = LowRank((left[:, :rank] * values[:rank]).contiguous(), right[:rank].contiguous(), None)
        assert ours < 0.9 * error(plain, weight, x)


def test_the_rank_of_an_energy_is_the_lowest_that_keeps_it() -> None:
    weight, x = torch.randn(24, 40), torch.randn(500, 40)
    found = factored(weight, x.double().t() @ x.double())
    squares = found.values.square()
    for energy in (0.3, 0.9, 0.999):
        rank = found.rank_of(energy)
        assert squares[:rank].sum() >= energy * squares.sum() > squares[: rank - 1].sum()
    assert factored(torch.zeros(24, 40), torch.eye(40).double()).rank_of(0.9) == 1


def test_a_rank_is_worth_it_while_two_thin_layers_have_fewer_weights() -> None:
    for n_in, n_out in ((40, 24), (32, 32), (7, 100)):
        rank = worth(n_in, n_out)
        assert rank * (n_in + n_out) < n_in * n_out <= (rank + 1) * (n_in + n_out)


def test_an_empty_layer_of_the_same_settings_takes_the_state() -> None:
    held = LowRank(torch.randn(6, 2), torch.randn(2, 9), torch.randn(6))
    again = LowRank.empty(9, 6, bias=True, **held.settings())
    again.load_state_dict(held.state_dict())
    assert torch.equal(again.dense(), held.dense())
    assert again(torch.randn(2, 9).bfloat16()).dtype == torch.bfloat16
