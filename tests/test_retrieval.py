"""Rankings against definitions worked out by hand."""

import math

import numpy as np
import pytest

from penjing.baselines.search import K1, B, bm25
from penjing.errors import DataError
from penjing.retrieval import of_queries, paired_difference, rankings, ranks_of

RANKS = [np.array([1]), np.array([3, 12]), np.array([20])]


def test_scores_are_as_defined() -> None:
    found = of_queries(RANKS)
    ideal = 1 + 1 / math.log2(3)
    assert found["ndcg_10"] == pytest.approx([1, 0.5 / ideal, 0])
    assert found["mrr"] == pytest.approx([1, 1 / 3, 1 / 20])
    assert found["recall_5"] == pytest.approx([1, 0.5, 0])
    assert found["recall_100"] == pytest.approx([1, 1, 1])


def test_graded_texts_gain_by_their_grade_as_in_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    generator = np.random.default_rng(0)
    grades = generator.integers(0, 4, (5, 30))
    scores = generator.permuted(np.tile(np.arange(30.0), (5, 1)), axis=1)
    right = [np.flatnonzero(own) for own in grades]
    ranks = [ranks_of(own.astype(np.float32), places) for own, places in zip(scores, right, strict=True)]
    found = of_queries(ranks, [own[places] for own, places in zip(grades.astype(float), right, strict=True)])
    wanted = [ndcg_score(grades[i : i + 1], scores[i : i + 1], k=10) for i in range(5)]
    assert found["ndcg_10"] == pytest.approx(wanted, rel=1e-12)


def test_means_are_over_queries_with_intervals() -> None:
    scores = rankings(RANKS * 20, 0)
    assert scores.values["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 20) / 3)
    low, high = scores.intervals["mrr"]
    assert low < scores.values["mrr"] < high
    mean, (low, high) = paired_difference(RANKS * 20, [own + 1 for own in RANKS * 20], "mrr", 0)
    assert 0 < low < mean < high


def test_equally_similar_texts_stand_in_their_order() -> None:
    similar = np.array([0.5, 0.9, 0.5, 0.1], np.float32)
    assert ranks_of(similar, np.array([1, 0, 2, 3])).tolist() == [1, 2, 3, 4]


def test_a_query_that_nothing_belongs_to_is_told() -> None:
    with pytest.raises(DataError, match=r"1 of 2 have nothing"):
        rankings([np.array([1]), np.array([], np.int64)], 0)


def test_bm25_of_texts_without_a_word_finds_nothing() -> None:
    assert bm25(["😀", "!!"])(["red", "!", "?"]).tolist() == [[0, 0]] * 3


def test_bm25_is_its_formula() -> None:
    texts = ["red fox", "red red dog runs", "blue cat"]
    found = bm25(texts)(["red cat", "none"])
    mean = (2 + 4 + 2) / 3

    def score(count: int, length: int, in_texts: int) -> float:
        rarity = math.log(1 + (3 - in_texts + 0.5) / (in_texts + 0.5))
        return rarity * count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))

    wanted = [[score(1, 2, 2), score(2, 4, 2), score(1, 2, 1)], [0, 0, 0]]
    assert found == pytest.approx(np.array(wanted), rel=1e-5)
