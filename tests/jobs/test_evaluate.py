"""Scoring a bundle on labelled rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing import evaluate
from penjing.errors import DataError, SpecError

Tuned = Callable[..., Any]


@pytest.mark.slow
def test_a_run_its_folder_and_its_bundle_score_the_same(tuned: Tuned, tiny_csv: Path) -> None:
    run = tuned()
    by_run, by_folder, by_bundle = (evaluate(x, tiny_csv) for x in (run, run.folder, run.bundle))
    assert by_run["values"] == by_folder["values"] == by_bundle["values"]
    assert by_run["rows"] == 90
    low, high = by_run["intervals"]["accuracy"]
    assert low <= by_run["values"]["accuracy"] <= high


def test_the_worst_answers_name_their_lines(tuned: Tuned, tiny_csv: Path) -> None:
    found = evaluate(tuned(), tiny_csv)
    wrong = round(90 * (1 - found["values"]["accuracy"]))
    assert len(found["worst"]) == min(25, wrong)
    assert all("tickets.csv, line " in row["where"] for row in found["worst"])


def test_a_label_unseen_in_training_is_named_with_its_line(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("text,label\nlate,delivery\ncharged,biling\n")
    with pytest.raises(DataError) as error:
        evaluate(tuned(), path)
    parts = ("new.csv, line 3", "`biling`", "3 labels of training", "Did you mean `billing`?", "1 of 2 rows")
    assert [p for p in parts if p not in str(error.value)] == []


def test_rows_that_are_cut_are_told(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text(f"text,label\nlate,delivery\n{'late ' * 20_000},delivery\n")
    assert "1 row is longer than 128 tokens; its end is cut" in evaluate(tuned(), path)["notes"]


def test_an_unknown_way_to_read_is_named(tuned: Tuned, tiny_csv: Path) -> None:
    with pytest.raises(SpecError, match=r"`lable` is not a way to read rows. Did you mean `label`\?"):
        evaluate(tuned(), tiny_csv, lable="label")
