"""What code is worth: pass@k against counting, edits against the definition."""

from functools import cache
from itertools import combinations

import pytest

from penjing.coding import exact, pass_at_k, similarity

DRAWS = [(5, 0, 1), (5, 2, 1), (5, 2, 3), (6, 1, 4), (4, 4, 2), (7, 3, 5)]
PAIRS = [("kitten", "sitting"), ("", "abc"), ("a = 1", "a = 1"), ("flaw", "lawn"), ("我的", "你的x")]


@pytest.mark.parametrize(("n", "passed", "k"), DRAWS)
def test_pass_at_k_is_the_share_of_draws_with_one_that_passes(n: int, passed: int, k: int) -> None:
    draws = [min(some) < passed for some in combinations(range(n), k)]
    assert pass_at_k(n, passed, k) == pytest.approx(sum(draws) / len(draws))


def edits(one: str, other: str) -> int:
    @cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (one[i - 1] != other[j - 1]))

    return of(len(one), len(other))


@pytest.mark.parametrize("pair", PAIRS)
def test_similarity_is_one_less_the_edits_over_the_longer(pair: tuple[str, str]) -> None:
    assert similarity(*pair) == pytest.approx(1 - edits(*pair) / max(map(len, pair)))
    assert similarity("", "") == 1


def test_spaces_at_the_ends_do_not_count() -> None:
    assert exact("  return a  \n\n", "  return a")
    assert not exact("return a", "  return a")
