"""Losses of preferences beside their formulas in float64, and losses a token with their gradients."""

import math

import pytest
import torch
from torch.nn import functional as F

from penjing.models.linear_loss import each_loss
from penjing.models.preferring import dpo, ipo, orpo

POLICY = torch.tensor([[-12.0, -9.0], [-3.0, -20.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-13.0, -8.5], [-3.0, -18.0]], dtype=torch.float64)
LENGTHS = torch.tensor([[6.0, 3.0], [2.0, 8.0]], dtype=torch.float64)


def test_dpo_is_the_log_of_a_sigmoid_of_the_margin() -> None:
    wanted = [-math.log(1 / (1 + math.exp(-0.3 * gain))) for gain in (1.0 + 0.5, 0.0 + 2.0)]
    assert dpo(POLICY, REFERENCE, 0.3).tolist() == pytest.approx(wanted, rel=1e-12)


def test_ipo_is_the_squared_distance_from_its_rest() -> None:
    wanted = [(gain - 1 / 0.6) ** 2 for gain in (1.0 / 6 + 0.5 / 3, 0.0 + 2.0 / 8)]
    assert ipo(POLICY, REFERENCE, LENGTHS, 0.3).tolist() == pytest.approx(wanted, rel=1e-12)


def test_orpo_is_the_better_replys_loss_and_the_log_odds_ratio() -> None:
    wanted = []
    for (a, b), (m, n) in zip(POLICY.tolist(), LENGTHS.tolist(), strict=True):
        p, q = math.exp(a / m), math.exp(b / n)
        ratio = math.log(p / (1 - p)) - math.log(q / (1 - q))
        wanted.append(-a / m - 0.3 * math.log(1 / (1 + math.exp(-ratio))))
    assert orpo(POLICY, LENGTHS, 0.3).tolist() == pytest.approx(wanted, rel=1e-9)


def test_losses_a_token_have_the_gradients_of_plain_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=generator).requires_grad_()  # noqa: E731
    states, words, bias = make(50, 8), make(40, 8), make(40)
    labels, weights = torch.randint(40, (50,), generator=generator), torch.randn(50, generator=generator)
    found = each_loss(states, words, bias, labels)
    ours = torch.autograd.grad((found * weights).sum(), (states, words, bias))
    plain = F.cross_entropy(states @ words.T + bias, labels, reduction="none")
    theirs = torch.autograd.grad((plain * weights).sum(), (states, words, bias))
    assert torch.allclose(found, plain, atol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
