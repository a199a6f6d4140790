"""The fused loss equals torch's, in value and gradients, in any pieces."""

import pytest
import torch
from torch.nn import functional as F

from penjing.models import linear_loss as fused


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    x, w, b = torch.randn(40, 12), torch.randn(50, 12), torch.randn(50)
    return x.requires_grad_(), w.requires_grad_(), b.requires_grad_(), torch.randint(50, (40,))


@pytest.mark.parametrize("piece", [1, 17 * 50, 10**9])
def test_value_and_gradients_are_torchs(
    inputs: tuple[torch.Tensor, ...], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "PIECE", piece)
    x, w, b, labels = inputs
    wanted = F.cross_entropy(x.double() @ w.double().T + b.double(), labels, reduction="sum")
    wide = torch.autograd.grad(wanted / 7, (x, w, b))
    found = fused.linear_loss(x, w, b, labels)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(found / 7, (x, w, b)), wide, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    x, w = torch.full((2, 4), 100.0), torch.eye(4) * 100
    found = fused.linear_loss(x, w, None, torch.tensor([0, 1]))
    assert found.item() == pytest.approx(2 * torch.log(torch.tensor(4.0)).item(), rel=1e-5)


def test_a_frozen_table_gets_no_gradient(inputs: tuple[torch.Tensor, ...]) -> None:
    x, w, _, labels = inputs
    found = fused.linear_loss(x, w.detach(), None, labels)
    assert torch.autograd.grad(found, x)[0].shape == x.shape


def test_without_a_target_the_loss_is_zero() -> None:
    x = torch.randn(0, 4, requires_grad=True)
    found = fused.linear_loss(
        x, torch.randn(9, 4, requires_grad=True), None, torch.zeros(0, dtype=torch.int64)
    )
    found.backward()
    assert found.item() == 0


def test_each_token_s_loss_sums_to_the_whole(inputs: tuple[torch.Tensor, ...]) -> None:
    x, w, b, labels = inputs
    losses, hits = fused.token_losses(x, w, b, labels)
    assert losses.sum().item() == pytest.approx(fused.linear_loss(x, w, b, labels).item(), rel=1e-6)
    assert hits.tolist() == ((x @ w.T + b).argmax(-1) == labels).tolist()


def test_bf16_products_come_close(inputs: tuple[torch.Tensor, ...]) -> None:
    x, w, b, labels = inputs
    narrow = x.detach().bfloat16().requires_grad_()
    found = fused.linear_loss(narrow, w, b, labels)
    assert found.item() == pytest.approx(fused.linear_loss(x, w, b, labels).item(), rel=2e-2)
    grads = torch.autograd.grad(found, (narrow, w))
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32]
