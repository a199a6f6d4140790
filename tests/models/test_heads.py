"""Pooling against hand computation, and what the head does with it."""

import pytest
import torch
from torch import nn

from penjing.models.heads import ClassHead, pool

LENGTHS = [2, 1, 3]
ROWS = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [7.0, 70.0], [8.0, 80.0], [12.0, 90.0]])


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("cls", [[1, 10], [5, 50], [7, 70]]),
        ("last", [[3, 30], [5, 50], [12, 90]]),
        ("mean", [[2, 20], [5, 50], [9, 80]]),
    ],
)
def test_pooling_is_what_one_computes_by_hand(how: str, wanted: list[list[int]]) -> None:
    assert torch.equal(pool(ROWS, LENGTHS, how), torch.tensor(wanted, dtype=torch.float32))


def test_the_mean_of_bf16_states_is_taken_in_fp32() -> None:
    ones = torch.full((3000, 1), 1.0078125, dtype=torch.bfloat16)
    assert pool(ones, [3000], "mean").item() == 1.0078125


@pytest.mark.parametrize("how", ["cls", "last", "mean"])
def test_gradients_through_pooling_are_right(how: str) -> None:
    """Pooling is a matrix (S, T), and its gradient that matrix turned."""
    matrix = pool(torch.eye(6), LENGTHS, how)
    rows, pull = ROWS.clone().requires_grad_(), torch.randn(3, 2)
    (pool(rows, LENGTHS, how) * pull).sum().backward()
    assert rows.grad is not None
    assert torch.allclose(rows.grad, matrix.T @ pull)


def test_another_way_to_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="cls, mean or last"):
        pool(ROWS, LENGTHS, "max")


def test_a_family_with_a_dense_layer_keeps_it_below_the_scores() -> None:
    dense = nn.Linear(2, 2)
    head = ClassHead(2, 3, pooling="cls", dropout=0.1, dense=dense).eval()
    wanted = torch.tanh(ROWS[[0, 2, 3]] @ dense.weight.T + dense.bias) @ head.out.weight.T + head.out.bias
    assert torch.allclose(head(ROWS, LENGTHS), wanted)


def test_the_head_answers_in_fp32_whatever_the_states_are() -> None:
    head = ClassHead(2, 3, pooling="mean", dropout=0.0)
    assert head(ROWS.bfloat16(), LENGTHS).dtype == torch.float32


def test_the_head_drops_only_in_training() -> None:
    head = ClassHead(2, 3, pooling="mean", dropout=0.5)
    assert torch.equal(head.eval()(ROWS, LENGTHS), head(ROWS, LENGTHS))
    drawn = [head.train()(ROWS, LENGTHS) for _ in range(20)]
    assert any(not torch.equal(drawn[0], other) for other in drawn)
