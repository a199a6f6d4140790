"""Outputs and spans: what is encoded is decoded, answers keep the rules, losses are torch's."""

import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.models.crf import NEVER
from penjing.models.tagging import Tagging, by_ends, by_tags

WAYS = {"bio": lambda: by_tags(3, "bio"), "bioes": lambda: by_tags(3, "bioes"), "span": lambda: by_ends(3)}
SPANS = [(0, 2, 1), (2, 3, 1), (4, 7, 0), (7, 8, 2)]


def sure_of(tagging: Tagging, targets: Tensor, way: str) -> Tensor:
    """Logits that leave no doubt about these targets."""
    if way == "span":
        n = tagging.n_outputs // 2
        marks = torch.cat([F.one_hot(targets // n, n), F.one_hot(targets % n, n)], dim=1)
    else:
        marks = F.one_hot(targets, tagging.n_outputs)
    return 20.0 * marks.float()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_encoded_is_decoded(way: str) -> None:
    tagging = WAYS[way]()
    logits = sure_of(tagging, torch.from_numpy(tagging.encode(SPANS, 9)), way)
    rows = [logits, logits[:0], logits[:3]]
    found = tagging.decode(rows, None)
    assert [(a, b, label) for a, b, label, _ in found[0]] == SPANS
    assert all(p > 0.99 for *_, p in found[0])
    assert found[1] == []
    assert [(a, b, label) for a, b, label, _ in found[2]] == SPANS[:2]


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_no_answer_contradicts_itself(scheme: str, crf: bool) -> None:
    tagging = by_tags(3, scheme)
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(tagging.n_outputs, tagging.n_outputs, generator=generator) if crf else None
    rows = [5 * torch.randn(n, tagging.n_outputs, generator=generator) for n in (1, 4, 9, 30)]
    for row, spans in zip(rows, tagging.decode(rows, moves), strict=True):
        assert all(0 <= a < b <= len(row) and 0 <= p <= 1 for a, b, _, p in spans)
        assert all(one[1] <= two[0] for one, two in pairwise(spans))


@pytest.mark.parametrize("crf", [False, True])
def test_a_chain_is_decoded_as_if_it_were_alone(crf: bool) -> None:
    tagging = by_tags(2, "bio")
    moves = torch.randn(5, 5) if crf else None
    rows = [3 * torch.randn(n, 5) for n in (7, 1, 4, 12)]
    together = tagging.decode(rows, moves)
    for row, wanted in zip(rows, together, strict=True):
        (alone,) = tagging.decode([row], moves)
        assert [one[:3] for one in alone] == [one[:3] for one in wanted]
        assert [one[3] for one in alone] == pytest.approx([one[3] for one in wanted], abs=1e-5)


def test_the_loss_of_tags_is_torchs() -> None:
    tagging, logits = by_tags(2, "bio"), torch.randn(9, 5)
    targets = torch.from_numpy(tagging.encode([(1, 4, 0)], 9))
    found = tagging.loss(logits, targets, [4, 5], None)
    assert torch.allclose(found, F.cross_entropy(logits, targets, reduction="sum"))


def test_a_crf_that_scores_no_transition_is_a_softmax_a_tag() -> None:
    tagging, logits = by_tags(2, "bioes"), torch.randn(9, 9)
    targets = torch.from_numpy(tagging.encode([(1, 4, 0)], 9))
    plain = tagging.loss(logits, targets, [4, 5], None)
    assert torch.allclose(tagging.loss(logits, targets, [4, 0, 5], torch.zeros(9, 9)), plain)
    alike, other = (tagging.decode([logits], moves) for moves in (None, torch.zeros(9, 9)))
    assert [one[:3] for one in alike[0]] == [one[:3] for one in other[0]]


def test_a_crf_learns_that_what_never_follows_does_not() -> None:
    tagging = by_tags(1, "bio")
    moves = torch.zeros(3, 3)
    moves[1, 2] = NEVER  # no I behind B
    logits = torch.tensor([[0.0, 9, 0], [0, 0, 3]])
    assert [one[:3] for one in tagging.decode([logits], None)[0]] == [(0, 2, 0)]
    assert [one[:3] for one in tagging.decode([logits], moves)[0]] == [(0, 1, 0)]


def test_spans_of_unequal_labels_may_overlap_where_ends_are_said() -> None:
    tagging, spans = by_ends(3), [(0, 6, 0), (1, 3, 1), (4, 5, 2)]
    logits = sure_of(tagging, torch.from_numpy(tagging.encode(spans, 6)), "span")
    assert sorted(one[:3] for one in tagging.decode([logits], None)[0]) == spans


def test_a_beginning_without_an_end_is_no_span() -> None:
    tagging = by_ends(1)
    begins, ends = torch.tensor([1, 0, 1, 0]), torch.tensor([0, 0, 0, 1])
    logits = sure_of(tagging, begins * 2 + ends, "span")
    assert [one[:3] for one in tagging.decode([logits], None)[0]] == [(2, 4, 0)]


@pytest.mark.parametrize("way", WAYS)
def test_random_spans_come_back(way: str) -> None:
    tagging, draw = WAYS[way](), random.Random(0)
    for _ in range(200):
        n = draw.randint(1, 12)
        borders = sorted(draw.sample(range(n + 1), 2 * draw.randint(0, min(3, (n + 1) // 2))))
        spans = [(a, b, draw.randrange(3)) for a, b in zip(borders[::2], borders[1::2], strict=True)]
        logits = sure_of(tagging, torch.from_numpy(tagging.encode(spans, n)), way)
        assert [one[:3] for one in tagging.decode([logits], None)[0]] == spans
