"""Every number against scikit-learn, scipy or a value worked by hand."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from sklearn import metrics

from penjing.errors import DataError
from penjing.intervals import bootstrap, of_counts, one_hot, paired_difference
from penjing.measures import LENT, best_thresholds, calibration, language_scores, multi_label, single_label


def made_rows(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, C) that are right more often than not, and targets (n,)."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 2.5 * np.eye(n_classes)[targets]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), targets


def names(n: int) -> list[str]:
    return [f"label {i}" for i in range(n)]


def test_single_label_scores_equal_scikit_learn() -> None:
    p, y = made_rows(500, 7)
    found = single_label(p, y, names(7), seed=0)
    answers = p.argmax(1)
    assert found.values["accuracy"] == pytest.approx(metrics.accuracy_score(y, answers))
    assert found.values["macro_f1"] == pytest.approx(metrics.f1_score(y, answers, average="macro"))
    assert found.values["micro_f1"] == pytest.approx(metrics.f1_score(y, answers, average="micro"))
    assert found.values["nll"] == pytest.approx(metrics.log_loss(y, p))
    assert found.values["brier"] == pytest.approx(
        metrics.brier_score_loss(y, p, labels=range(7), scale_by_half=False)
    )


def test_the_class_table_and_the_confusion_equal_scikit_learn() -> None:
    p, y = made_rows(300, 5, seed=1)
    tables = single_label(p, y, names(5), seed=0).tables
    wanted = metrics.precision_recall_fscore_support(y, p.argmax(1))
    for key, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        assert [row[key] for row in tables["per_class"]] == pytest.approx(values)
    assert tables["confusion"]["counts"] == metrics.confusion_matrix(y, p.argmax(1)).tolist()
    assert tables["confusion"]["labels"] == names(5)


def test_macro_f1_leaves_out_classes_that_appear_nowhere_as_scikit_learn_does() -> None:
    p = np.array([[0.8, 0.1, 0.1, 0.0], [0.2, 0.7, 0.1, 0.0], [0.6, 0.3, 0.1, 0.0]])
    y = np.array([0, 1, 1])
    assert single_label(p, y, names(4), seed=0).values["macro_f1"] == pytest.approx(
        metrics.f1_score(y, [0, 1, 0], average="macro")
    )


def test_multi_label_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((400, 6)) < 0.3
    p = np.clip(truth * 0.4 + rng.random((400, 6)) * 0.6, 0, 1)
    thresholds = np.linspace(0.3, 0.6, 6)
    found = multi_label(p, truth, names(6), thresholds, seed=0)
    answers = p >= thresholds
    assert found.values["micro_f1"] == pytest.approx(metrics.f1_score(truth, answers, average="micro"))
    assert found.values["macro_f1"] == pytest.approx(metrics.f1_score(truth, answers, average="macro"))
    assert found.values["subset_accuracy"] == pytest.approx(metrics.accuracy_score(truth, answers))
    wanted = metrics.precision_recall_fscore_support(truth, answers)
    assert [row["recall"] for row in found.tables["per_class"]] == pytest.approx(wanted[1])
    for name in ("micro_f1", "macro_f1", "subset_accuracy"):
        low, high = found.intervals[name]
        assert low < found.values[name] < high


def test_the_calibration_error_is_the_hand_worked_one() -> None:
    # bins of 1/15: 0.95 and 0.97 share the last one (1 of 2 right), 0.60 ends bin 9, 0.61 begins bin 10
    ece, bins = calibration(np.array([0.95, 0.97, 0.60, 0.61]), np.array([True, False, True, False]))
    assert ece == pytest.approx((abs(1 - 1.92) + abs(1 - 0.60) + abs(0 - 0.61)) / 4)
    assert [row["count"] for row in bins] == [1, 1, 2]
    assert bins[2] == {"confidence": pytest.approx(0.96), "accuracy": 0.5, "count": 2}


def test_certain_and_right_answers_are_perfectly_calibrated() -> None:
    found = single_label(np.eye(4), np.arange(4), names(4), seed=0)
    assert [found.values[name] for name in ("ece", "brier", "nll")] == [0, 0, 0]


def test_a_certain_and_wrong_answer_costs_much_but_not_infinity() -> None:
    assert single_label(np.eye(2), np.array([1, 0]), names(2), seed=0).values["nll"] == pytest.approx(
        27.63, abs=0.01
    )


def test_the_accuracy_interval_agrees_with_the_normal_one() -> None:
    p, y = made_rows(2000, 5)
    found = single_label(p, y, names(5), seed=0)
    accuracy = found.values["accuracy"]
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000)
    assert found.intervals["accuracy"] == pytest.approx((accuracy - half, accuracy + half), abs=0.004)


def test_the_macro_f1_interval_agrees_with_drawing_rows_one_by_one() -> None:
    p, y = made_rows(300, 4, seed=2)
    answers = p.argmax(1)
    rng = np.random.default_rng(9)
    draws = []
    for _ in range(1000):
        rows = rng.integers(0, 300, 300)
        table = np.bincount(y[rows] * 4 + answers[rows], minlength=16).reshape(4, 4)
        draws.append(np.mean(2 * np.diag(table) / (table.sum(0) + table.sum(1))))
    wanted = np.percentile(draws, [2.5, 97.5])
    assert single_label(p, y, names(4), seed=0).intervals["macro_f1"] == pytest.approx(wanted, abs=0.012)


def test_all_rows_right_still_leaves_doubt_about_few_rows() -> None:
    low, high = single_label(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]), names(3), seed=0).intervals[
        "accuracy"
    ]
    assert (low, high) == (pytest.approx(0.3976, abs=1e-4), 1.0)  # Clopper-Pearson for 4 of 4


def test_all_entities_found_still_leave_doubt_about_few_rows() -> None:
    things = np.array([[1, 0], [2, 1], [0, 1], [1, 1]])
    found = of_counts(things, things, things, seed=0)
    assert found["micro_f1"] == found["macro_f1"] == (pytest.approx(0.3976, abs=1e-4), 1.0)
    none = of_counts(0 * things, things, 0 * things, seed=0)["micro_f1"]
    assert none == (0.0, pytest.approx(0.6024, abs=1e-4))


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    p, y = made_rows(200, 3)
    first, again, other = (single_label(p, y, names(3), seed=s).intervals for s in (5, 5, 6))
    assert first == again
    assert first["macro_f1"] != other["macro_f1"]


def test_a_system_differs_from_itself_by_nothing() -> None:
    p, y = made_rows(200, 3)
    truth, answers = one_hot(y, 3), one_hot(p.argmax(1), 3)
    assert paired_difference(truth, answers, answers, "macro_f1", seed=0) == (0.0, (0.0, 0.0))


def test_the_paired_interval_is_the_hand_worked_one_and_narrower_than_unpaired() -> None:
    y = np.zeros(1000, dtype=int)
    first, second = y.copy(), y.copy()
    first[:100], second[:150] = 1, 1  # the second errs wherever the first does, and on 50 rows more
    truth, a, b = (one_hot(x, 2) for x in (y, first, second))
    mean, (low, high) = paired_difference(truth, a, b, "accuracy", seed=0)
    half = 1.96 * np.sqrt(0.05 * 0.95 / 1000)
    assert mean == pytest.approx(0.05)
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.002)


def test_ten_thousand_rows_of_150_classes_take_about_a_second() -> None:
    p, y = made_rows(10_000, 150)
    took = []
    for _ in range(2):  # the first may import torch, and this machine may be shared
        start = time.process_time()
        single_label(p, y, names(150), seed=0)
        took.append(time.process_time() - start)
    assert min(took) < 3  # 0.9 s measured where little else ran


def test_the_loss_of_one_document_is_drawn_over_its_pieces() -> None:
    rng = np.random.default_rng(0)
    found = np.stack([rng.normal(64, 8, 200), np.full(200, 32.0), np.zeros(200)], 1)
    targets = np.zeros((200, 4), dtype=np.int64)  # all of one source and document
    low, high = language_scores(found, targets, ["a"], {}).intervals["loss"]
    deviation = found[:, 0].std() / 32 / np.sqrt(200)  # of the mean
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert language_scores(found[:1], targets[:1], ["a"], {}).intervals == {}
    targets[:, 1] = np.arange(200) // 20  # ten documents
    wide = language_scores(found, targets, ["a"], {}).intervals["loss"]
    assert wide[0] < low + deviation
    assert wide[1] > high - deviation


def drawn(seed: int, n_labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((80, n_labels)) < 0.4
    p = np.clip(truth * 0.3 + rng.random((80, n_labels)) * 0.7, 0, 1)
    return np.round(p, 2), truth  # rounding makes ties


@pytest.mark.parametrize("n_labels", [1, 3])
def test_thresholds_reach_the_best_f1_of_an_exhaustive_search(n_labels: int) -> None:
    p, truth = drawn(4, n_labels)
    thresholds = best_thresholds(p, truth, lent=0 if n_labels > 1 else LENT)  # one label lends to itself
    for label in range(n_labels):
        reached = metrics.f1_score(truth[:, label], p[:, label] >= thresholds[label])
        best = max(
            metrics.f1_score(truth[:, label], p[:, label] >= t, zero_division=0)
            for t in np.unique(p[:, label])
        )
        assert reached == pytest.approx(best)


@pytest.mark.parametrize("lent", [0.5, 3.0, 20.0])
def test_a_lent_row_weighs_as_rows_like_those_of_all_labels_would(lent: float) -> None:
    p, truth = drawn(5)
    truth[:, 0] &= np.arange(80) < 10  # few true rows
    thresholds = best_thresholds(p, truth, lent=lent)
    weight = lent / truth.sum()
    for label in range(3):
        rows = np.concatenate([p[:, label], p.ravel()])
        marks = np.concatenate([truth[:, label], truth.ravel()])
        weights = np.concatenate([np.ones(80), np.full(p.size, weight)])

        def scored(t: float) -> float:
            return float(metrics.f1_score(marks, rows >= t, sample_weight=weights, zero_division=0))  # noqa: B023

        values = np.unique(np.append(p[:, label], 0))
        assert scored(thresholds[label]) >= max(map(scored, (values[1:] + values[:-1]) / 2)) - 1e-9


def test_a_label_of_one_row_is_not_answered_at_a_probability_near_none() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((50, 20), dtype=bool)
    truth[:20, 0] = truth[20, 1] = True
    p = 0.02 + rng.random((50, 20)) * 0.001
    p[:, 0] += np.where(truth[:, 0], 0.8, 0.2)
    p[:, 1] = 0.004
    p[20, 1] = 0.006  # a hair above the others
    assert 0.2 < best_thresholds(p, truth)[1] < 0.8
    assert best_thresholds(p, truth, lent=0)[1] < 0.006


def test_without_positives_or_without_any_difference_a_threshold_is_that_of_all_or_one_half() -> None:
    p = np.array([[0.9, 0.0], [0.2, 0.0]])
    assert best_thresholds(p, np.zeros((2, 2), dtype=bool)).tolist() == [0.5, 0.5]
    assert best_thresholds(p, np.array([[True, False], [False, False]])).tolist() == [0.55, 0.55]
    assert best_thresholds(np.full((2, 2), 0.3), np.array([[True, False]] * 2)).tolist() == [0.15, 0.15]


def test_of_equally_good_thresholds_the_nearest_to_one_half_is_taken() -> None:
    p = np.array([[0.9], [0.6], [0.4], [0.1]])
    assert best_thresholds(p, np.array([[True], [True], [False], [False]])).tolist() == [0.5]


@pytest.mark.parametrize(
    ("p", "y", "word"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "at least one row"),
        (np.ones((2, 3)) / 3, np.array([0, 1]), r"\(2, 2\)"),
        (np.ones((2, 2)) / 2, np.array([0, 2]), "from 0 to 2"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), np.array([0, 1]), "row 1"),
    ],
)
def test_input_that_cannot_be_scored_is_refused_with_what_is_wrong(
    p: np.ndarray, y: np.ndarray, word: str
) -> None:
    with pytest.raises(DataError, match=word):
        single_label(p, y, names(2), seed=0)


def test_an_unknown_score_is_refused_and_the_nearest_named() -> None:
    rows = one_hot(np.array([0, 1]), 2)
    with pytest.raises(DataError, match="Did you mean `macro_f1`"):
        bootstrap(rows, rows, ("macro_f2",), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bootstrap(rows, rows, ("macro_f1",), seed=0)["macro_f1"] == pytest.approx(
            (0.158, 1.0), abs=0.001
        )
