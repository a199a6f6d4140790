"""Weights without their zeros: back to the bit, in exactly as many bytes as the cheaper way takes."""

import pytest
import torch
from torch import Tensor, nn

from penjing.models.sparse import Sparse, bytes_of, cheaper


def pruned(share: float, n_out: int = 48, n_in: int = 80) -> Tensor:
    weight = torch.randn(n_out, n_in)
    weight[torch.rand(n_out, n_in) < share] = 0
    return weight


def n_bytes(layer: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in layer.state_dict().values())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_a_pruned_weight_comes_back_to_the_bit_in_as_many_bytes_as_said(share: float) -> None:
    weight, bias = pruned(share), torch.randn(48)
    held = Sparse.of(weight, bias)
    again = Sparse.empty(80, 48, bias=True, **held.settings())
    again.load_state_dict(held.state_dict())
    assert torch.equal(again.dense(), weight)
    n = int(weight.count_nonzero())
    assert n_bytes(held) == bytes_of(80, 48, n, held.by) + 48 * 4
    assert bytes_of(80, 48, n, "bits") == 4 * n + 480
    assert bytes_of(80, 48, n, "columns") == 6 * n + 192
    x = torch.randn(3, 80)
    assert torch.equal(again(x), nn.functional.linear(x, weight, bias))


def test_places_are_said_in_the_cheaper_way() -> None:
    assert [cheaper(1024, 64, n) for n in (40_000, 5_000, 3_000)] == ["bits", "bits", "columns"]
    assert cheaper(2**16, 64, 10) == "bits"  # columns are 16-bit numbers


def test_gradients_of_an_input_flow_after_the_weight_was_made_in_inference_mode() -> None:
    held = Sparse.of(pruned(0.5), None)
    with torch.inference_mode():
        held(torch.randn(2, 80))
    x = torch.randn(2, 80, requires_grad=True)
    held(x).sum().backward()
    torch.testing.assert_close(x.grad, held.dense().sum(0).expand(2, -1))
