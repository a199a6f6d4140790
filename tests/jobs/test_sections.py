"""Parts of the report by themselves."""

from pathlib import Path

import pytest

from penjing.jobs.reading import Facts
from penjing.jobs.sections import how, per_class
from penjing.jobs.words import speaker


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_f1_of_a_class_is_not_called_that_of_answers(tmp_path: Path, language: str) -> None:
    row = {"label": "a", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3}
    _, table = per_class(
        Facts(tmp_path, result={"after": {"tables": {"per_class": [row]}}}), speaker(language)
    )
    assert table is not None
    assert "F1" in table.head


def test_a_class_without_scored_rows_is_not_said_to_be_missed(tmp_path: Path) -> None:
    none = {"label": "rare", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    some = {"label": "a", "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4}
    facts = Facts(tmp_path, result={"after": {"tables": {"per_class": [none, some]}}})
    _, table = per_class(facts, speaker("en"))
    assert table is not None
    assert [row[0] for row in table.rows] == ["a", "rare"]
    assert table.rows[1][2:4] == ("–", "–")


@pytest.mark.parametrize("task", ["translate", "summarize", "generate", "answer_in_words", "code"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_task_of_texts_says_how_its_own_numbers_are_made(tmp_path: Path, task: str, language: str) -> None:
    said = how(Facts(tmp_path, result={"task": task}), speaker(language))
    assert "linear model" not in said
    assert said != f"how_{task}"
