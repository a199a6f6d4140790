"""The report of a run whose answers are numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from penjing.jobs.report import report
from penjing.regression import numbers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = numbers(np.array([1.0, 2.0, 2.5, 4.0]), np.array([1.0, 2.0, 3.0, 4.5]), ["score"], 0)
    result = {
        "state": "done",
        "best_name": "spearman",
        "after": {"values": found.values, "intervals": found.intervals, "tables": found.tables},
        "baseline": {"values": {"spearman": 0.5}, "seconds": 2.0},
        "before": {"values": {"spearman": 0.7}},
        "difference": {"name": "spearman", "mean": 0.5, "interval": [0.2, 0.7]},
        "worst": [{"where": "t.csv, line 4", "text": "far", "given": "3", "predicted": "2.5", "error": 0.5}],
    }
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return tmp_path


def test_a_run_of_numbers_is_told_by_its_correlation_and_its_furthest_rows(folder: Path) -> None:
    page = report(folder).read_text(encoding="utf-8").replace("\u00a0", " ")
    for words in (
        "The tuned model reaches 1.000",
        "rank correlation on the test rows; the cheap baseline 0.500: the large model is better by 0.500 "
        "[0.2, 0.7].",
        "+0.300 by tuning",
        "Predicted against true: score",
        "Furthest off",
        "off by 0.5 of its spread",
    ):
        assert words in page, words
    assert "% sure" not in page


def test_numbers_are_told_in_chinese(folder: Path) -> None:
    page = report(folder, language="zh").read_text(encoding="utf-8")
    assert "Spearman 等级相关" in page
    assert "偏差最大的行" in page


def test_a_difference_that_may_be_chance_is_called_so(folder: Path) -> None:
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    result["difference"]["interval"] = [-0.1, 0.7]
    path.write_text(json.dumps(result), encoding="utf-8")
    page = report(folder).read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "the difference of +0.500 [−0.1, +0.7] may be chance" in page
