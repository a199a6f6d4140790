"""Weights with two zeros in every four: told from others; on CUDA multiplied so, with equal answers."""

import pytest
import torch
from torch import nn

from penjing.models.semi_structured import is_semi_structured, quicken
from penjing.models.sparsity import mask_of, pattern_of


class Stack(nn.Module):
    """Two layers of one linear layer each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_weight_is_told_by_its_zeros_and_its_shape() -> None:
    weight = torch.randn(64, 128)
    pattern = pattern_of("wanda", 0.5, "2:4")
    assert not is_semi_structured(weight)
    assert is_semi_structured(weight * mask_of(weight.abs(), pattern))
    narrow = torch.randn(64, 96)
    assert not is_semi_structured(narrow * mask_of(narrow.abs(), pattern))


def test_on_a_cpu_nothing_changes() -> None:
    stack = Stack(64).bfloat16()
    assert quicken(stack) == 0


@pytest.mark.gpu
def test_on_cuda_answers_are_those_of_the_dense_product() -> None:
    stack = Stack(4096).cuda().bfloat16().requires_grad_(False)
    for layer in stack.layers:
        weight = layer[0].weight.data  # type: ignore[index]
        weight.mul_(mask_of(weight.abs().float(), pattern_of("wanda", 0.5, "2:4")))
    x = torch.randn(3, 100, 4096, device="cuda", dtype=torch.bfloat16)
    dense = stack(x)
    assert quicken(stack) in (0, 2)  # where it is not faster it is not taken
    torch.testing.assert_close(stack(x), dense, rtol=0.05, atol=0.05)
    assert "layers.0.0.weight" in stack.state_dict()
