"""Layers that round while they train: forward as the held layers', backward as the formula says."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from penjing.models.grid import Grid
from penjing.models.int8 import Int8Linear, Int8Table
from penjing.models.rounding import Rounded, vectors_on_grid
from penjing.models.weight_only import rounded

GRIDS = [None, Grid(4, None, True), Grid(3, 8, False)]


def made(grid: Grid | None, layer: nn.Module | None = None) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layer = layer or nn.Linear(16, 6)
    layer.forward = Rounded(layer, grid, lambda: True)
    return layer, torch.randn(2, 5, 16, requires_grad=True)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_pass_is_that_of_the_layer_that_will_be_held_to_the_bit(grid: Grid | None) -> None:
    layer, x = made(grid)
    weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
    held = Int8Linear.of(weight, bias) if grid is None else rounded(weight, bias, grid)
    assert torch.equal(layer(x), held(x.detach()))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_gradients_pass_as_if_rounding_were_the_identity(grid: Grid | None) -> None:
    layer, x = made(grid)
    weight = layer.get_parameter("weight")
    grad = torch.randn(2, 5, 6)
    layer(x).backward(grad)
    own, seen = weight.detach().double().numpy(), x.detach().double().numpy().reshape(10, 16)
    if grid is None:
        held = Int8Linear.of(weight, None).dense().double().numpy()
        steps = np.abs(seen).max(1, keepdims=True) / 127
        seen = np.rint(seen / steps) * steps
    else:
        held = rounded(weight, None, grid).dense().double().numpy()
    assert np.abs(held - own).max() > 0
    g = grad.double().numpy().reshape(10, 6)
    for found, wanted in ((x.grad, (g @ held).reshape(2, 5, 16)), (weight.grad, g.T @ seen),
                          (layer.get_parameter("bias").grad, g.sum(0))):  # fmt: skip
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_linear_layers_of_gpt2_round_alike() -> None:
    turned = Conv1D(6, 16)
    layer, x = made(None, turned)
    plain = nn.Linear(16, 6)
    with torch.no_grad():
        plain.weight.copy_(turned.weight.t())
        plain.bias.copy_(turned.bias)
    assert torch.equal(layer(x), made(None, plain)[0](x))
    layer(x).sum().backward()
    assert turned.weight.grad.shape == turned.weight.shape


def test_vectors_are_those_of_the_held_table() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(9, 8)
    ids = torch.tensor([3, 3, 8, 0])
    found = vectors_on_grid(table(ids))
    assert torch.equal(found, Int8Table.of(table)(ids))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert table.weight.grad is not None
    assert table.weight.grad[3].tolist() == [2.0] * 8
