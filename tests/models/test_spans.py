"""Best spans of windows: against trying every pair."""

import pytest
import torch

from penjing.models.spans import best_spans, losses, padded


def case(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([9, 5, 12])
    marks = torch.tensor([[3, 8, 0], [2, 4, 0], [4, 11, 11]])
    return torch.randn(26, 2, generator=generator), lengths, marks


@pytest.mark.parametrize("longest", [1, 3, 30])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_span_is_the_best_of_all_pairs(seed: int, longest: int) -> None:
    logits, lengths, marks = case(seed)
    found = best_spans(padded(logits, lengths, marks), marks, longest)
    for row, own in enumerate(logits.split(lengths.tolist())):
        first, after, none = marks[row].tolist()
        pairs = [(float(own[a, 0] + own[b, 1]), a, b) for a in range(first, after) for b in range(a, after)
                 if b - a < longest]  # fmt: skip
        score, a, b = max(pairs)
        allowed = [*range(first, after), none]
        norm = own[allowed].logsumexp(0).sum()
        assert found[row, :3].tolist() == pytest.approx([score, a, b], abs=1e-5)
        nothing = float(own[none].sum())
        assert found[row, 3:].tolist() == pytest.approx(
            [nothing, float((score - norm).exp()), float((nothing - norm).exp())], abs=1e-5
        )


def test_the_loss_is_the_mean_of_begins_and_ends_cross_entropy() -> None:
    logits, lengths, marks = case(7)
    wanted = torch.tensor([[4, 6], [0, 0], [11, 11]])
    found = losses(padded(logits, lengths, marks), wanted)
    for row, own in enumerate(logits.split(lengths.tolist())):
        allowed = [*range(*marks[row, :2].tolist()), int(marks[row, 2])]
        log_p = own[allowed].log_softmax(0)
        each = [log_p[allowed.index(int(place)), i] for i, place in enumerate(wanted[row])]
        assert float(found[row]) == pytest.approx(-float(sum(each)) / 2, rel=1e-5)
