"""Contrastive and ranking losses, against loops over pairs and torch's cross-entropy."""

import math

import pytest
import torch
from torch.nn import functional as F

from penjing.models.contrast import cosent, info_nce, supervised_contrast


def by_hand(embedded: torch.Tensor, labels: list[int], temperature: float) -> list[float]:
    """Khosla et al. 2020, equation 2, term by term."""
    rows = embedded.double().tolist()

    def alike(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / temperature)

    found = []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        same = [j for j in others if labels[j] == labels[i]]
        total = sum(alike(i, j) for j in others)
        found.append(-sum(math.log(alike(i, j) / total) for j in same) / len(same) if same else 0.0)
    return found


def test_the_loss_is_that_of_a_loop_over_pairs() -> None:
    embedded = F.normalize(torch.randn(9, 5), dim=1)
    labels = [0, 1, 2, 0, 1, 0, 3, 2, 0]
    found = supervised_contrast(embedded, torch.tensor(labels), temperature=0.1)
    torch.testing.assert_close(
        found.double(),
        torch.tensor(by_hand(embedded, labels, 0.1), dtype=torch.float64),
        rtol=1e-6,  # of fp32's sums
        atol=1e-6,
    )


def test_a_sentence_without_another_of_its_class_teaches_nothing_and_breaks_nothing() -> None:
    embedded = F.normalize(torch.randn(3, 5), dim=1).requires_grad_()
    supervised_contrast(embedded, torch.tensor([0, 1, 2]), temperature=0.05).sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().max() == 0


def test_a_sentence_alone_in_its_step_teaches_nothing() -> None:
    embedded = F.normalize(torch.randn(1, 5), dim=1).requires_grad_()
    found = supervised_contrast(embedded, torch.tensor([0]), temperature=0.05)
    found.sum().backward()
    assert found.tolist() == [0.0]
    assert embedded.grad is not None
    assert embedded.grad.abs().max() == 0


def test_cosent_is_the_sum_over_pairs_of_unequal_scores() -> None:
    cosines, scores = torch.tensor([0.1, 0.9, 0.3, 0.5]), torch.tensor([2.0, 1.0, 2.0, 0.0])
    total = sum(
        math.exp(20 * float(cosines[j] - cosines[i]))
        for i in range(4) for j in range(4) if scores[i] > scores[j]
    )  # fmt: skip
    assert float(cosent(cosines, scores)) == pytest.approx(math.log1p(total), rel=1e-5)
    assert float(cosent(cosines, torch.ones(4))) == 0


def test_info_nce_is_cross_entropy_over_all_texts_but_doubles() -> None:
    draw = torch.Generator().manual_seed(0)
    anchors, others = (F.normalize(torch.randn(n, 5, generator=draw), dim=1) for n in (3, 4))
    right = torch.eye(3, 4, dtype=torch.bool)
    plain = info_nce(anchors, others, right, right, temperature=0.1)
    assert torch.allclose(plain, F.cross_entropy(anchors @ others.T / 0.1, torch.arange(3), reduction="none"))
    same = right.clone()
    same[0, 3] = True  # the last text is as right for the first anchor
    masked = info_nce(anchors, others, right, same, temperature=0.1)
    without = F.cross_entropy((anchors @ others.T / 0.1)[:1, :3], torch.tensor([0]))
    assert torch.allclose(masked[0], without)
    assert torch.allclose(masked[1:], plain[1:])
