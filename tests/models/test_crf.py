"""The linear-chain CRF against every path written out."""

import itertools

import pytest
import torch
from torch import Tensor

from penjing.models import crf

LENGTHS = torch.tensor([4, 1, 3])
N_TAGS = 3


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    """Emissions of three padded chains, and transitions, in float64."""
    generator = torch.Generator().manual_seed(1)
    emissions = 2 * torch.randn((3, 4, 3), generator=generator, dtype=torch.float64)
    return emissions, 2 * torch.randn((3, 3), generator=generator, dtype=torch.float64)


def every_path(emissions: Tensor, n: int, transitions: Tensor) -> dict[tuple[int, ...], float]:
    """Each path of a chain and its score."""
    found = {}
    for path in itertools.product(range(N_TAGS), repeat=n):
        score = sum(float(emissions[i, tag]) for i, tag in enumerate(path))
        score += sum(float(transitions[a, b]) for a, b in itertools.pairwise(path))
        found[path] = score
    return found


def test_the_partition_is_the_sum_over_every_path(scores: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = scores
    found = crf.log_partition(emissions, LENGTHS, transitions)
    for row, n in enumerate(LENGTHS.tolist()):
        paths = every_path(emissions[row], n, transitions)
        assert float(found[row]) == pytest.approx(
            float(torch.tensor([*paths.values()]).double().logsumexp(0))
        )


def test_the_loss_is_minus_the_log_of_the_paths_share(scores: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = scores
    tags = torch.tensor([[0, 2, 1, 1], [2, 0, 0, 0], [1, 1, 0, 2]])
    found = crf.negative_log_likelihood(emissions, tags, LENGTHS, transitions)
    for row, n in enumerate(LENGTHS.tolist()):
        paths = every_path(emissions[row], n, transitions)
        whole = float(torch.tensor([*paths.values()]).double().logsumexp(0))
        assert float(found[row]) == pytest.approx(whole - paths[tuple(tags[row, :n].tolist())])


def test_the_best_path_is_the_best_of_every_path(scores: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = scores
    found = crf.best_paths(emissions, LENGTHS, transitions)
    for row, n in enumerate(LENGTHS.tolist()):
        paths = every_path(emissions[row], n, transitions)
        assert tuple(found[row, :n].tolist()) == max(paths, key=lambda path: paths[path])


@pytest.mark.parametrize("seed", range(5))
def test_under_rules_the_best_path_is_the_best_of_those_that_keep_them(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    emissions, transitions = (torch.randn(s, generator=generator) for s in ((3, 4, 3), (3, 3)))
    begin = torch.tensor([True, True, False])
    follow = torch.tensor([[True, True, False], [False, False, True], [True, False, True]])
    end = torch.tensor([True, False, True])
    lengths = torch.tensor([4, 1, 3])
    found = crf.best_paths(emissions, lengths, transitions, begin_C=begin, follow_CC=follow, end_C=end)
    for row, n in enumerate(lengths.tolist()):
        paths = every_path(emissions[row], n, transitions)
        legal = {
            path: score
            for path, score in paths.items()
            if begin[path[0]] and end[path[-1]] and all(follow[a, b] for a, b in itertools.pairwise(path))
        }
        assert tuple(found[row, :n].tolist()) == max(legal, key=lambda path: legal[path])


def test_marginals_are_shares_of_paths_with_the_tag_there(scores: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = scores
    found = crf.marginals(emissions, LENGTHS, transitions)
    for row, n in enumerate(LENGTHS.tolist()):
        paths = every_path(emissions[row], n, transitions)
        weights = {path: float(torch.tensor(score).double().exp()) for path, score in paths.items()}
        total = sum(weights.values())
        for place, tag in itertools.product(range(n), range(N_TAGS)):
            wanted = sum(weight for path, weight in weights.items() if path[place] == tag) / total
            assert float(found[row, place, tag]) == pytest.approx(wanted)


def test_what_stands_in_the_padding_changes_nothing(scores: tuple[Tensor, Tensor]) -> None:
    emissions, transitions = scores
    other = emissions.clone()
    for row, n in enumerate(LENGTHS.tolist()):
        other[row, n:] = 1e4
    for work in (crf.log_partition, crf.marginals):
        first, second = work(emissions, LENGTHS, transitions), work(other, LENGTHS, transitions)
        assert torch.equal(first, second)
    first, second = (crf.best_paths(e, LENGTHS, transitions) for e in (emissions, other))
    assert all(torch.equal(a[:n], b[:n]) for a, b, n in zip(first, second, LENGTHS.tolist(), strict=True))


def test_chains_of_values_end_to_end_are_padded_and_empty_ones_left_out() -> None:
    values, lengths = crf.chains(torch.arange(6.0)[:, None], [2, 0, 3, 1])
    assert lengths.tolist() == [2, 3, 1]
    assert values[:, :, 0].tolist() == [[0, 1, 0], [2, 3, 4], [5, 0, 0]]
