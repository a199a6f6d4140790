"""The official score of relations: by hand, and against the official script itself."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from penjing.entities.relations import difference, is_directed, is_other, name_of, scores_of

LABELS = ["Cause(e1,e2)", "Cause(e2,e1)", "Whole(e1,e2)", "Whole(e2,e1)", "Other"]


def sure(answers: list[int], n: int = len(LABELS)) -> np.ndarray:
    return np.eye(n)[answers]


def test_the_score_is_what_one_counts_by_hand() -> None:
    """Cause: 3 rows, 4 answers, 2 right (a wrong direction is no hit, but an answer). Whole: 2, 1, 1."""
    truth = np.array([0, 1, 0, 2, 3, 4])
    answers = [0, 1, 1, 2, 4, 0]
    found = scores_of(sure(answers), truth, LABELS, 0).values["official_f1"]
    cause, whole = 2 * 2 / (3 + 4), 2 * 1 / (2 + 1)
    assert found == pytest.approx((cause + whole) / 2)


def test_other_counts_only_by_what_it_takes_from_others() -> None:
    truth = np.array([0, 4, 4])
    assert scores_of(sure([0, 4, 4]), truth, LABELS, 0).values["official_f1"] == 1
    assert scores_of(sure([0, 0, 4]), truth, LABELS, 0).values["official_f1"] == pytest.approx(2 / 3)


def test_the_interval_and_the_difference_are_of_that_score_too() -> None:
    """Cause is answered and never there: the script's mean is over Whole alone."""
    truth, ours, theirs = np.array([2] * 8), [2] * 6 + [0] * 2, [2] * 8
    found = scores_of(sure(ours), truth, LABELS, 0)
    assert found.values["official_f1"] == pytest.approx(12 / 14)
    low, high = found.intervals["official_f1"]
    assert low < 12 / 14 < high
    assert difference(sure(ours), sure(theirs), truth, LABELS, 0)[0] == pytest.approx(12 / 14 - 1)


def test_labels_without_direction_are_relations_of_their_own() -> None:
    truth = np.array([0, 1, 1, 2])
    found = scores_of(sure([0, 1, 0, 2], 3), truth, ["born", "works", "no_relation"], 0)
    assert found.values["official_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_names_directions_and_other_are_told_apart() -> None:
    assert (name_of("Cause(e2,e1)"), name_of("born in")) == ("Cause", "born in")
    assert (is_directed(LABELS), is_directed(["a", "b"])) == (True, False)
    assert [is_other(x) for x in ("Other", "no_relation", "NA", "Cause(e1,e2)")] == [True, True, True, False]


def test_the_difference_is_that_of_the_scores() -> None:
    truth = np.arange(200) % 5
    draw = np.random.default_rng(0)
    ours, theirs = (np.where(draw.random(200) < p, truth, draw.integers(0, 5, 200)) for p in (0.9, 0.5))
    mean, (low, high) = difference(sure(ours.tolist()), sure(theirs.tolist()), truth, LABELS, 0)
    one, other = (scores_of(sure(x.tolist()), truth, LABELS, 0).values["official_f1"] for x in (ours, theirs))
    assert mean == pytest.approx(one - other)
    assert 0 < low < mean < high


@pytest.mark.data
@pytest.mark.parametrize("right", [0.2, 0.7, 0.95])
def test_the_score_is_the_official_scripts(right: float, shared_data: Path, tmp_path: Path) -> None:
    script = shared_data / "semeval2010_task8" / "semeval2010_task8_scorer-v1.2.pl"
    names = ["Cause-Effect", "Component-Whole", "Message-Topic"]
    labels = [*(f"{name}({way})" for name in names for way in ("e1,e2", "e2,e1")), "Other"]
    draw = np.random.default_rng(int(100 * right))
    truth = draw.integers(0, 7, 300)
    answers = np.where(draw.random(300) < right, truth, draw.integers(0, 7, 300))
    for name, column in (("key", truth), ("proposed", answers)):
        lines = "".join(f"{8001 + i}\t{labels[k]}\n" for i, k in enumerate(column))
        (tmp_path / name).write_text(lines)
    command = ["perl", str(script), str(tmp_path / "proposed"), str(tmp_path / "key")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    official = re.search(r"directionality taken into account: macro-averaged F1 = ([\d.]+)%", said)
    assert official
    found = scores_of(np.eye(7)[answers], truth, labels, 0).values["official_f1"]
    assert 100 * found == pytest.approx(float(official[1]), abs=0.006)
