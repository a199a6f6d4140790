"""Weights in few bits: the values written out by hand, bounds of the error, exact sizes, the same after
loading.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common import told
from penjing.errors import SpecError
from penjing.models.grid import Grid, fitted, nearest, values
from penjing.models.stored import kind_of
from penjing.models.weight_only import WeightOnly, rounded

GRIDS = [
    Grid(bits, group, symmetric)
    for bits in (2, 3, 4, 8)
    for group in (None, 8, 32)
    for symmetric in (True, False)
]


def weight(n_out: int = 5, n_in: int = 40) -> Tensor:
    return torch.randn(n_out, n_in) * torch.rand(n_out, 1) + 0.1


def by_hand(row: np.ndarray, grid: Grid) -> np.ndarray:
    """One group of weights at its nearest values, in plain words of the definition, and its scale."""
    top = 2**grid.bits - 1
    if grid.symmetric:
        scale, zero, lowest = np.abs(row).max() / (2 ** (grid.bits - 1) - 1), 2 ** (grid.bits - 1), 1
    else:
        low, high = min(row.min(), 0), max(row.max(), 0)
        scale, lowest = (high - low) / top, 0
    scale = np.float32(scale)
    if grid.group is not None:  # the next number of 8 significant bits
        step = 2.0 ** (np.floor(np.log2(scale)) - 7)
        scale = np.float32(np.ceil(scale / step) * step)
    if not grid.symmetric:
        zero = int(np.round(-np.float32(low) / scale))
    codes = np.clip(np.round(row / scale) + zero, lowest, top)
    return np.asarray((codes - zero) * scale)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_values_are_those_of_the_definition(grid: Grid) -> None:
    plain = weight()
    size = grid.group or plain.shape[1]
    wanted = [
        np.concatenate([by_hand(piece, grid) for piece in np.split(row, range(size, 40, size))])
        for row in plain.numpy()
    ]
    np.testing.assert_allclose(
        rounded(plain, None, grid).dense().numpy(), np.stack(wanted), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_no_weight_moves_by_more_than_half_a_step(grid: Grid) -> None:
    plain = weight()
    marks = fitted(plain, grid)
    step = marks.scale.repeat_interleave(grid.group or plain.shape[1], 1)[:, : plain.shape[1]]
    assert ((values(nearest(plain, marks, grid), marks, grid) - plain).abs() <= step * 0.5001).all()


def test_smaller_groups_and_more_bits_lose_less() -> None:
    plain = weight(64, 256)

    def lost(*grid: object) -> float:
        return float((rounded(plain, None, Grid(*grid)).dense() - plain).square().mean())  # type: ignore[arg-type]

    assert lost(4, 32, False) < lost(4, 128, False) < lost(4, None, False) < lost(3, None, False)
    assert lost(8, None, True) < lost(4, 32, False)


def test_zeros_and_weights_of_one_sign_are_held() -> None:
    for grid in GRIDS:
        assert torch.equal(rounded(torch.zeros(2, 16), None, grid).dense(), torch.zeros(2, 16))
        same = rounded(torch.full((2, 16), 0.5), None, grid).dense()
        torch.testing.assert_close(same, torch.full((2, 16), 0.5), rtol=0.01, atol=0)


def test_the_layer_multiplies_with_the_weight_it_says() -> None:
    layer = nn.Linear(40, 6)
    x = torch.randn(3, 7, 40)
    for grid in GRIDS:
        held = rounded(layer.weight, layer.bias, grid)
        torch.testing.assert_close(held(x), x @ held.dense().t() + layer.bias)
        assert held(x.bfloat16()).dtype == torch.bfloat16
        assert kind_of(held) == "weight_only"


def test_factors_of_columns_are_taken_off_again() -> None:
    plain, factors = weight(), (torch.rand(40) + 0.5).bfloat16().float()
    grid = Grid(8, None, True)
    marks = fitted(plain * factors, grid)
    held = WeightOnly.of(nearest(plain * factors, marks, grid), marks, grid, bias=None, columns=factors)
    torch.testing.assert_close(held.dense(), plain, rtol=0, atol=0.05)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_an_empty_layer_of_the_same_settings_takes_the_state(grid: Grid) -> None:
    held = rounded(weight(), torch.randn(5), grid)
    again = WeightOnly.empty(40, 5, bias=True, **held.settings())
    again.load_state_dict(held.state_dict())
    assert torch.equal(again.dense(), held.dense())
    assert not list(held.parameters())


@pytest.mark.parametrize(
    ("grid", "n_bytes"),
    [
        (Grid(8, None, True), 64 * 256 + 64 * 4),
        (Grid(4, 128, False), 64 * 128 + 64 * 2 * 2 + 64),
        (Grid(4, 32, True), 64 * 128 + 64 * 8 * 2),
        (Grid(3, 64, False), 64 * 96 + 64 * 4 * 2 + 64 * 2),
        (Grid(2, None, False), 64 * 64 + 64 * 4 + 64),
    ],
    ids=str,
)
def test_a_layer_takes_the_bytes_of_its_codes_and_grids(grid: Grid, n_bytes: int) -> None:
    held = rounded(weight(64, 256), None, grid)
    assert sum(t.numel() * t.element_size() for t in held.state_dict().values()) == n_bytes


def test_a_grid_that_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        Grid(1)
    told(caught, "`bits`", "2..8", "it is 1")
    with pytest.raises(SpecError) as caught:
        Grid(4, 4)
    told(caught, "`group`", "it is 4", "128")
