"""Scaling laws: published values, the balance by brute force, and constants found again in noisy runs."""

import math

import numpy as np
import pytest

from penjing.errors import DataError
from penjing.models.laws import CHINCHILLA, DATA_CONSTRAINED, Law, _miss, fit


@pytest.mark.parametrize(
    ("flops", "parameters", "tokens", "loss"),
    [(1e18, 8.062e7, 2.067e9, 3.489), (1e20, 8.545e8, 1.950e10, 2.553)],
)
def test_the_balance_of_size_and_tokens_is_the_published_one(
    flops: float, parameters: float, tokens: float, loss: float
) -> None:
    found = CHINCHILLA.balanced(flops)
    assert found == pytest.approx((parameters, tokens), rel=1e-3)
    assert CHINCHILLA.loss(*found) == pytest.approx(loss, abs=1e-3)


def test_no_other_share_of_the_operations_gives_a_lower_loss() -> None:
    best, _ = CHINCHILLA.balanced(1e19)
    sizes = np.geomspace(best / 30, best * 30, 4001)
    losses = [CHINCHILLA.loss(n, 1e19 / 6 / n) for n in sizes]
    assert sizes[int(np.argmin(losses))] == pytest.approx(best, rel=2e-3)
    tokens = 1e19 / 6 / best
    assert CHINCHILLA.size_for(tokens) == pytest.approx(best)


@pytest.mark.parametrize(
    ("parameters", "tokens", "loss"),
    [(6.34e9, 242e9, 2.2256440889984477), (8.67e9, 178e9, 2.2269634075087867)],
)
def test_repeated_tokens_count_as_the_authors_of_the_law_say(
    parameters: float, tokens: float, loss: float
) -> None:
    assert DATA_CONSTRAINED.loss(parameters, tokens, 25e9) == pytest.approx(loss, rel=1e-6)


def test_four_passes_are_nearly_new_tokens_and_forty_are_nearly_spent() -> None:
    worth = [DATA_CONSTRAINED.tokens_that_count(n * 1e9, 1e9) / 1e9 for n in (1, 2, 4, 8, 16, 40, 1e6)]
    assert worth == pytest.approx([1, 1.968, 3.726, 6.624, 10.58, 15.17, 16.39], abs=6e-3)


def test_a_law_without_repetition_counts_every_token() -> None:
    assert CHINCHILLA.loss(1e8, 1e10, 1e9) == CHINCHILLA.loss(1e8, 1e10)


def runs(noise: float, n: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, tokens and losses as in the paper: 44 M to 16 B parameters over several budgets."""
    rng = np.random.default_rng(0)
    parameters = np.exp(rng.uniform(math.log(4.4e7), math.log(1.6e10), n))
    tokens = parameters * np.exp(rng.uniform(math.log(3), math.log(200), n))
    told = np.array([CHINCHILLA.loss(*pair) for pair in zip(parameters, tokens, strict=True)])
    return parameters, tokens, told * np.exp(rng.normal(0, noise, n))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 5e-4])
def test_a_fit_finds_the_constants_that_made_the_runs(noise: float) -> None:
    found = fit(*runs(noise))
    assert found.runs == 240
    assert found.law.alpha == pytest.approx(CHINCHILLA.alpha, abs=0.005)
    assert found.law.beta == pytest.approx(CHINCHILLA.beta, abs=0.005)
    assert pytest.approx(CHINCHILLA.E, abs=0.02) == found.law.E
    assert found.error <= 2 * noise + 1e-4


@pytest.mark.slow
def test_runs_that_went_wrong_hardly_move_the_fit() -> None:
    parameters, tokens, losses = runs(0.0)
    losses[::24] *= 1.3
    law = fit(parameters, tokens, losses).law
    assert (law.alpha, law.beta) == pytest.approx((CHINCHILLA.alpha, CHINCHILLA.beta), abs=0.005)


def test_the_gradient_of_the_fit_is_that_of_small_differences() -> None:
    logs = [np.log(x) for x in runs(0.01, 12)]
    point = np.array([6.0, 7.5, 0.5, 0.33, 0.38])
    _, slope = _miss(point, *logs)
    for i in range(5):
        step = np.zeros(5)
        step[i] = 1e-6
        assert slope[i] == pytest.approx(
            (_miss(point + step, *logs)[0] - _miss(point - step, *logs)[0]) / 2e-6, rel=1e-4, abs=1e-4
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"losses": [3.0, 2.9, 0.0, 2.7, 2.6, 2.5]}, "`loss` of run 3 is 0"),
        ({"parameters": [1e8] * 6}, "`parameters` has 1"),
        ({"parameters": [1e8, 2e8, 3e8], "tokens": [1e9, 2e9, 3e9], "losses": [3, 2.9, 2.8]}, "there are 3"),
    ],
)
def test_runs_that_no_law_can_be_fitted_to_are_refused(change: dict[str, list[float]], said: str) -> None:
    usual = {
        "parameters": [1e8, 2e8, 3e8, 4e8, 5e8, 6e8],
        "tokens": [1e9, 4e9, 2e9, 8e9, 3e9, 9e9],
        "losses": [3.0, 2.9, 2.8, 2.7, 2.6, 2.5],
    }
    with pytest.raises(DataError, match=said):
        fit(**{**usual, **change})


def test_a_law_is_a_plain_record() -> None:
    assert Law(1.0, 2.0, 3.0, 1.0, 1.0).loss(2.0, 3.0) == 3.0
