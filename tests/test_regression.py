"""Scores of numbers against scipy and scikit-learn, and their draws against the drawn rows themselves."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from common import told
from penjing import regression
from penjing.errors import DataError

DRAW = np.random.default_rng(0)
TRUTH = DRAW.integers(0, 6, 120).astype(float)  # many ties, as in graded similarity
FOUND = TRUTH + DRAW.normal(size=120).round(1)


def test_scores_equal_scipy_and_scikit_learn() -> None:
    found = regression.numbers(FOUND, TRUTH, ["score"], 0).values
    assert found == pytest.approx(
        {
            "spearman": stats.spearmanr(FOUND, TRUTH)[0],
            "pearson": stats.pearsonr(FOUND, TRUTH)[0],
            "r2": metrics.r2_score(TRUTH, FOUND),
            "mae": metrics.mean_absolute_error(TRUTH, FOUND),
            "rmse": metrics.root_mean_squared_error(TRUTH, FOUND),
        }
    )


@pytest.mark.parametrize("name", regression.SCORES)
def test_a_score_of_drawn_rows_is_that_of_the_rows_themselves(name: str) -> None:
    rows = DRAW.integers(0, 120, 120)
    counts = np.bincount(rows, minlength=120)[None].astype(float)
    once = np.ones((1, 120))
    score = regression.SCORES[name]
    assert score(FOUND, TRUTH, counts) == pytest.approx(score(FOUND[rows], TRUTH[rows], once))


def test_several_numbers_a_row_are_averaged_and_told_apart() -> None:
    truth, found = np.stack([TRUTH, TRUTH * 100], 1), np.stack([FOUND, TRUTH * 100], 1)
    scores = regression.numbers(found, truth, ["grade", "price"], 0)
    alone = regression.numbers(FOUND, TRUTH, ["grade"], 0)
    assert scores.values["r2"] == pytest.approx((alone.values["r2"] + 1) / 2)
    assert [row["name"] for row in scores.tables["per_number"]] == ["grade", "price"]
    assert scores.tables["per_number"][0]["mae"] == pytest.approx(alone.values["mae"])


@pytest.mark.parametrize("still", [np.full(120, 3.7), np.zeros(120)])
def test_numbers_that_do_not_vary_correlate_with_nothing(still: np.ndarray) -> None:
    values = regression.numbers(still, TRUTH, ["score"], 0).values
    assert (values["pearson"], values["spearman"]) == (0, 0)
    assert regression.numbers(FOUND, still, ["score"], 0).values["r2"] == 0


def test_intervals_hold_the_score_and_narrow_with_rows() -> None:
    few, many = (
        regression.numbers(np.tile(FOUND, n), np.tile(TRUTH, n), ["s"], 0).intervals["spearman"]
        for n in (1, 9)
    )
    assert few[0] < stats.spearmanr(FOUND, TRUTH)[0] < few[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_a_difference_is_drawn_on_the_same_rows() -> None:
    mean, (low, high) = regression.paired_difference(FOUND + 5, FOUND, TRUTH, "pearson", 0)
    assert (mean, low, high) == pytest.approx((0, 0, 0), abs=1e-9)
    mean, (low, high) = regression.paired_difference(TRUTH, FOUND, TRUTH, "spearman", 0)
    assert 0 < low < mean < high


def test_predictions_that_are_not_finite_or_too_few_are_told() -> None:
    with pytest.raises(DataError) as error:
        regression.numbers(np.array([1.0, np.nan]), np.array([1.0, 2.0]), ["s"], 0)
    told(error, "must be finite", "1 of 2 rows", "row 1", "train.lr")
    with pytest.raises(DataError, match="a prediction for every number"):
        regression.numbers(FOUND[:3], TRUTH, ["s"], 0)
