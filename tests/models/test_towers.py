"""Heads over texts read apart, against their formulas."""

import torch
from torch.nn import functional as F

from penjing.models.towers import Nearness, Towers, Vectors

STATES = torch.randn(11, 6, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([2, 3, 1, 5])
MEANS = torch.stack([part.mean(0) for part in STATES.split(LENGTHS.tolist())])


def test_vectors_have_length_one_and_as_many_dimensions_as_asked() -> None:
    assert torch.allclose(Vectors("mean")(STATES, LENGTHS), F.normalize(MEANS, dim=1))
    short = Vectors("mean", 4)(STATES, LENGTHS)
    assert torch.allclose(short, F.normalize(MEANS[:, :4], dim=1))


def test_nearness_is_the_cosine_of_neighbours() -> None:
    wanted = F.cosine_similarity(MEANS[0::2], MEANS[1::2])
    assert torch.allclose(Nearness("mean")(STATES, LENGTHS), wanted, atol=1e-6)


def test_towers_see_both_vectors_and_their_distance() -> None:
    head = Towers(6, 3, pooling="mean", dropout=0.0)
    u, v = MEANS[0::2], MEANS[1::2]
    assert torch.allclose(head(STATES, LENGTHS), head.out(torch.cat([u, v, (u - v).abs()], 1)), atol=1e-6)
