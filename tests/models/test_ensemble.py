"""Ensembles: what combined logits make of the members' probabilities, by numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from penjing.models.ensemble import combined, features, share_weights
from penjing.models.model import Model
from penjing.models.packing import Way


def logits() -> torch.Tensor:
    return torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0)) * 3


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def test_mean_gives_the_average_probability() -> None:
    found = combined(logits(), "mean", of="classes").softmax(-1).numpy()
    np.testing.assert_allclose(found, softmax(logits().double().numpy()).mean(0), atol=1e-6)


def test_mean_of_several_labels_gives_the_average_probability() -> None:
    found = torch.sigmoid(combined(logits(), "mean", of="marks")).numpy()
    np.testing.assert_allclose(found, (1 / (1 + np.exp(-logits().double().numpy()))).mean(0), atol=1e-6)


def test_vote_answers_what_most_members_answer_and_ties_go_by_probability() -> None:
    x = logits()
    answers = x.argmax(-1).numpy()
    p = softmax(x.double().numpy()).mean(0)
    found = combined(x, "vote", of="classes")
    assert found.softmax(-1).sum(-1).numpy() == pytest.approx(np.ones(20), abs=1e-5)
    for row in range(20):
        counts = np.bincount(answers[:, row], minlength=5)
        tied = np.flatnonzero(counts == counts.max())
        assert int(found[row].argmax()) == tied[p[row, tied].argmax()]


def test_vote_of_several_labels_counts_members_above_one_half() -> None:
    x = logits()
    found = torch.sigmoid(combined(x, "vote", of="marks")).numpy()
    np.testing.assert_allclose(found, (x.numpy() > 0).mean(0), atol=2e-3)


def test_stack_is_a_linear_layer_over_log_probabilities() -> None:
    x, mix = logits(), nn.Linear(15, 5)
    seen = np.log(softmax(x.double().numpy())).transpose(1, 0, 2).reshape(20, 15).clip(-20)
    np.testing.assert_allclose(features(x).numpy(), seen, atol=1e-5)
    wanted = seen @ mix.weight.detach().double().numpy().T + mix.bias.detach().double().numpy()
    found = combined(x, "stack", of="classes", mix=mix).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_numbers_are_averaged_as_they_are() -> None:
    np.testing.assert_allclose(
        combined(logits(), "mean", of="numbers").numpy(), logits().numpy().mean(0), atol=1e-6
    )


def test_members_hold_equal_weights_once() -> None:
    def model(seed: int) -> Model:
        torch.manual_seed(0)
        trunk = nn.Linear(8, 8)
        torch.manual_seed(seed)
        return Model(trunk, nn.Linear(8, 2), Way(True, 0, ""))

    members = [model(1), model(2), model(3)]
    x = torch.randn(4, 8)
    before = [m.head(m.trunk(x)) for m in members]
    assert share_weights(members) == 2 * (8 * 8 + 8) * 4
    assert members[1].trunk.weight.data_ptr() == members[0].trunk.weight.data_ptr()
    assert members[1].head.weight.data_ptr() != members[0].head.weight.data_ptr()
    for m, was in zip(members, before, strict=True):
        assert torch.equal(m.head(m.trunk(x)), was)
