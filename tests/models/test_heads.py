"""Pooling against hand computation, and what the head does with it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from penjing.models.heads import POOLINGS, ClassHead, pool
from penjing.models.padded import Padded, Ports

LENGTHS = [2, 1, 3]
ROWS = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [7.0, 70.0], [8.0, 80.0], [12.0, 90.0]])


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("cls", [[1, 10], [5, 50], [7, 70]]),
        ("last", [[3, 30], [5, 50], [12, 90]]),
        ("mean", [[2, 20], [5, 50], [9, 80]]),
        ("max", [[3, 30], [5, 50], [12, 90]]),
        ("mean_sqrt_len_tokens", [[4 / 2**0.5, 40 / 2**0.5], [5, 50], [27 / 3**0.5, 240 / 3**0.5]]),
        ("weightedmean", [[7 / 3, 70 / 3], [5, 50], [59 / 6, 500 / 6]]),
    ],
)
def test_pooling_is_what_one_computes_by_hand(how: str, wanted: list[list[float]]) -> None:
    by_hand = torch.tensor(wanted, dtype=torch.float32)
    torch.testing.assert_close(pool(ROWS, LENGTHS, how), by_hand, rtol=1e-6, atol=0)


def test_the_mean_of_bf16_states_is_taken_in_fp32() -> None:
    ones = torch.full((3000, 1), 1.0078125, dtype=torch.bfloat16)
    assert pool(ones, [3000], "mean").item() == 1.0078125


@pytest.mark.parametrize("how", ["cls", "last", "mean", "mean_sqrt_len_tokens", "weightedmean"])
def test_gradients_through_pooling_are_right(how: str) -> None:
    """Pooling is a matrix (S, T), and its gradient that matrix turned."""
    matrix = pool(torch.eye(6), LENGTHS, how)
    rows, pull = ROWS.clone().requires_grad_(), torch.randn(3, 2)
    (pool(rows, LENGTHS, how) * pull).sum().backward()
    assert rows.grad is not None
    assert torch.allclose(rows.grad, matrix.T @ pull)


def test_the_gradient_of_the_greatest_goes_where_it_stands() -> None:
    rows = ROWS.clone().requires_grad_()
    pool(rows, LENGTHS, "max").sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize("how", POOLINGS)
def test_padded_states_are_pooled_as_packed_ones(how: str) -> None:
    class Given(nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=pad_sequence(list(ROWS.split(LENGTHS)), True, -9.0))

    head = ClassHead(2, 3, pooling=how, dropout=0.0)
    packed = head(ROWS, LENGTHS)
    mask = torch.arange(3)[None, :] < torch.tensor(LENGTHS)[:, None]
    ports = Ports(("input_ids", "attention_mask"), ("logits",), (False,), 0)
    (padded,) = Padded(Given(), head, ports)(mask.long(), mask.long())
    torch.testing.assert_close(padded, packed)


def test_another_way_to_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="one of cls, last, max"):
        pool(ROWS, LENGTHS, "median")


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
