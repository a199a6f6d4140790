"""Entity scores against seqeval itself, and against counting by hand."""

import random
import warnings

import numpy as np
import pytest

from penjing.data.schemes import spans_of
from penjing.entities.scores import Said, Truth, difference, scores_of

LABELS = ["LOC", "ORG", "PER"]


def drawn(n: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Tags of n sentences, and answers that are right more often than not."""
    draw = random.Random(seed)
    names = ["O", *(f"{p}-{label}" for p in "BI" for label in LABELS)]
    truth = [draw.choices(names, [6, 1, 1, 1, 1, 1, 1], k=draw.randint(1, 9)) for _ in range(n)]
    answers = [[tag if draw.random() < 0.8 else draw.choice(names) for tag in tags] for tags in truth]
    return truth, answers


def places(tags: list[str]) -> frozenset[tuple[int, int, int]]:
    return frozenset((a, b, LABELS.index(label)) for a, b, label in spans_of(tags, "bio2")[0])


def as_rows(truth: list[list[str]], answers: list[list[str]]) -> tuple[list[Said], list[Truth]]:
    said = [Said("", tuple((*place, 0.5) for place in sorted(places(tags)))) for tags in answers]
    return said, [Truth(places(tags)) for tags in truth]


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_seqevals(seed: int) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    truth, answers = drawn(60, seed)
    found = scores_of(*as_rows(truth, answers), LABELS, [], 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = metrics.classification_report(truth, answers, output_dict=True)
    assert found.values["micro_f1"] == pytest.approx(metrics.f1_score(truth, answers))
    assert found.values["macro_f1"] == pytest.approx(metrics.f1_score(truth, answers, average="macro"))
    assert found.values["precision"] == pytest.approx(metrics.precision_score(truth, answers))
    assert found.values["recall"] == pytest.approx(metrics.recall_score(truth, answers))
    for line in found.tables["per_class"]:
        wanted = report[line["label"]]
        assert line["f1"] == pytest.approx(wanted["f1-score"])
        assert line["precision"] == pytest.approx(wanted["precision"])
        assert line["recall"] == pytest.approx(wanted["recall"])
        assert line["support"] == wanted["support"]


def test_intervals_hold_the_score_and_narrow_with_more_rows() -> None:
    spans = []
    for n in (60, 600):
        found = scores_of(*as_rows(*drawn(n, 1)), LABELS, [], 0)
        low, high = found.intervals["micro_f1"]
        assert low < found.values["micro_f1"] < high
        spans.append(high - low)
    assert spans[1] < spans[0] / 2


def test_borders_and_labels_must_both_be_right() -> None:
    truth = [Truth(frozenset({(0, 2, 0), (3, 5, 1)})), Truth(frozenset())]
    said = [Said("", ((0, 2, 1, 0.9), (3, 4, 1, 0.8))), Said("", ((0, 1, 2, 0.7),))]
    found = scores_of(said, truth, LABELS, [], 0)
    assert found.values["micro_f1"] == 0
    assert found.tables["confusion"]["labels"] == [*LABELS, "(none)"]
    # LOC was called ORG; an ORG was missed; an ORG and a PER were made up.
    assert found.tables["confusion"]["counts"] == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]]


def test_labels_that_share_a_place_are_confused_with_what_is_wrong_only() -> None:
    truth = [Truth(frozenset({(0, 2, 0), (0, 2, 1), (0, 2, 2)}))]
    found = scores_of([Said("", ((0, 2, 1, 0.9), (0, 2, 2, 0.9)))], truth, LABELS, [], 0)
    assert found.tables["confusion"]["counts"] == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_nothing_there_and_nothing_said_is_no_division_by_zero() -> None:
    found = scores_of([Said("", ())], [Truth(frozenset())], LABELS, [], 0)
    assert found.values == {"micro_f1": 0.0, "macro_f1": 0.0, "precision": 0.0, "recall": 0.0, "ece": 0.0}


def test_a_frame_is_right_where_intent_and_all_slots_are() -> None:
    truth = [Truth(frozenset({(0, 2, 0)}), 0), Truth(frozenset(), 1), Truth(frozenset({(0, 1, 1)}), 1)]
    sure = [np.array([0.9, 0.1]), np.array([0.2, 0.8]), np.array([0.6, 0.4])]
    slots = [(0, 2, 0, 1.0), (0, 2, 0, 1.0), (0, 1, 1, 1.0)]
    said = [Said("", (slot,), share) for slot, share in zip(slots, sure, strict=True)]
    found = scores_of(said, truth, LABELS, ["a", "b"], 0).values
    assert found["intent_accuracy"] == pytest.approx(2 / 3)
    assert found["frame_accuracy"] == pytest.approx(1 / 3)


def test_the_difference_is_that_of_the_scores_on_the_same_rows() -> None:
    truth, answers = drawn(80, 2)
    ours, right = as_rows(truth, answers)
    theirs, _ = as_rows(truth, drawn(80, 3)[1])
    mean, (low, high) = difference(ours, theirs, right, 0)
    scores = [scores_of(one, right, LABELS, [], 0).values["micro_f1"] for one in (ours, theirs)]
    assert mean == pytest.approx(scores[0] - scores[1])
    assert low < mean < high
    assert difference(ours, ours, right, 0) == (0.0, (0.0, 0.0))
