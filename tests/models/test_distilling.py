"""Distances between student and teacher: against the papers' formulas in plain numpy, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from penjing.models.distilling import (
    common_heads,
    mean_of_rows,
    mean_of_tokens,
    outputs_apart,
    relations_apart,
    states_apart,
    teachers_layers,
)
from penjing.records import Batch

DRAW = np.random.default_rng(0)
OURS, THEIRS = (3 * DRAW.standard_normal((5, 4)) for _ in range(2))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_classes_are_apart_by_the_softened_divergence_times_the_temperature_squared(
    temperature: float,
) -> None:
    p, q = softmax(THEIRS / temperature), softmax(OURS / temperature)
    wanted = temperature**2 * (p * np.log(p / q)).sum(1)
    found = outputs_apart(torch.from_numpy(OURS), torch.from_numpy(THEIRS), "classes", temperature)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_marks_are_apart_by_the_mean_divergence_of_yes_and_no() -> None:
    p, q = 1 / (1 + np.exp(-THEIRS / 2)), 1 / (1 + np.exp(-OURS / 2))
    wanted = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(1)
    found = outputs_apart(torch.from_numpy(OURS), torch.from_numpy(THEIRS), "marks", 2.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_numbers_and_states_are_apart_by_squares_or_angles() -> None:
    ours, theirs = torch.from_numpy(OURS), torch.from_numpy(THEIRS)
    squares = ((OURS - THEIRS) ** 2).mean(1)
    np.testing.assert_allclose(outputs_apart(ours, theirs, "numbers", 9.0), squares)
    np.testing.assert_allclose(states_apart(ours, theirs, "squares"), squares)
    norms = np.linalg.norm(OURS, axis=1) * np.linalg.norm(THEIRS, axis=1)
    np.testing.assert_allclose(states_apart(ours, theirs, "cosine"), 1 - (OURS * THEIRS).sum(1) / norms)


@pytest.mark.parametrize("kind", ["classes", "marks", "numbers"])
def test_who_answers_as_the_teacher_is_at_no_distance_and_pushed_nowhere(kind: str) -> None:
    ours = torch.from_numpy(THEIRS).requires_grad_()
    found = outputs_apart(ours, torch.from_numpy(THEIRS), kind, 2.0)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert max(float(found.detach().abs().max()), float(ours.grad.abs().max())) < 1e-14


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[4, 4], [7, 2, 6, 1]])
def test_relations_are_those_of_the_paper_one_sequence_and_head_at_a_time(
    lengths: list[int], causal: bool
) -> None:
    total, heads, widths = sum(lengths), 3, (6, 12)
    x, y, u, v = (DRAW.standard_normal((total, widths[i // 2])) for i in range(4))
    wanted, at = [], 0
    for n in lengths:
        each = np.zeros(n)
        for head in range(heads):
            logs = []
            for a, b in ((x, y), (u, v)):
                d = a.shape[1] // heads
                own = slice(head * d, head * d + d)
                scores = a[at : at + n, own] @ b[at : at + n, own].T / math.sqrt(d)
                if causal:
                    scores[np.triu_indices(n, 1)] = -1e30
                logs.append(softmax(scores))
            q, p = logs
            each += (
                np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), 0).sum(1) / heads
            )
        wanted.append(each)
        at += n
    tensors = [torch.from_numpy(one) for one in (x, y, u, v)]
    ours = tensors[0].requires_grad_(), tensors[1]
    found = relations_apart(ours, (tensors[2], tensors[3]), lengths, heads, causal=causal)
    np.testing.assert_allclose(found.detach(), np.concatenate(wanted), rtol=1e-9, atol=1e-12)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(tensors[0].grad).all()  # type: ignore[arg-type]


def test_layers_are_mapped_evenly_the_last_to_the_last() -> None:
    assert teachers_layers(3, 6, "even") == {1: 2, 2: 4, 3: 6}
    assert teachers_layers(4, 12, "even") == {1: 3, 2: 6, 3: 9, 4: 12}
    assert teachers_layers(3, 6, "last") == {3: 6}
    assert teachers_layers(3, 6, [1, 0, 6]) == {1: 1, 3: 6}


def test_relation_heads_are_the_teachers_where_the_width_allows() -> None:
    assert (common_heads(6, 12, 384), common_heads(6, 4, 30), common_heads(4, 12, 32)) == (12, 2, 4)


def batch(labels: Tensor | None, n_targets: float, weights: Tensor | None = None) -> Batch:
    return Batch(
        torch.zeros(6, dtype=torch.long), torch.tensor([4, 2]), labels, n_targets, (0, 1), weights=weights
    )


def test_means_are_of_rows_by_what_each_counts() -> None:
    rows, tokens = torch.tensor([1.0, 4.0]), torch.tensor([1.0, 2, 3, 6, 10, 20])
    plain = batch(torch.tensor([0, 1]), 2.0)
    assert float(mean_of_rows(rows, plain)) == 2.5
    assert float(mean_of_tokens(tokens, plain)) == (3 + 15) / 2
    heavy = batch(torch.tensor([0, 1]), 4.0, torch.tensor([1.0, 3.0]))
    assert float(mean_of_rows(rows, heavy)) == (1 + 3 * 4) / 4
    sites = batch(torch.tensor([-100, 0, 1, 0, -100, 2]), 4.0)  # three sites, and one
    assert float(mean_of_tokens(tokens, sites)) == (3 * 3 + 15) / 4
