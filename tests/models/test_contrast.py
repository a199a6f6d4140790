"""The supervised contrast, against a loop over pairs in float64."""

import math

import torch
from torch.nn import functional as F

from penjing.models.contrast import supervised_contrast


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
        found.double(), torch.tensor(by_hand(embedded, labels, 0.1), dtype=torch.float64)
    )


def test_a_sentence_without_another_of_its_class_teaches_nothing_and_breaks_nothing() -> None:
    embedded = F.normalize(torch.randn(3, 5), dim=1).requires_grad_()
    supervised_contrast(embedded, torch.tensor([0, 1, 2]), temperature=0.05).sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().max() == 0
