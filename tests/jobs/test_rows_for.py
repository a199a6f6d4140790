"""Later rows are read by the columns that a run was told."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penjing import plugin, spec
from penjing.data.columns import NoColumn
from penjing.errors import DataError
from penjing.jobs.rows_for import rows_for, told

TABLE = "title,body,kind,topic\nhello,my card was charged,a,billing\nhi,the parcel is late,b,delivery\n"


def bundle(**reading: str) -> Any:
    task = plugin.build("tasks", plugin.choice("classify", kind="tasks", key="task"))
    return SimpleNamespace(task=task, card={"reading": reading})


def table(folder: Path, text: str = TABLE) -> str:
    (folder / "rows.csv").write_text(text)
    return str(folder / "rows.csv")


def test_a_card_keeps_what_the_spec_says_and_no_guess() -> None:
    assert told(spec.read(text="body", train="a.csv").data) == {"text": "body"}


def test_rows_are_read_by_the_columns_that_the_run_was_told(tmp_path: Path) -> None:
    rows = rows_for(bundle(text="body", label="kind"), table(tmp_path))
    assert rows.texts == ["my card was charged", "the parcel is late"]
    assert rows.labels == [("a",), ("b",)]
    assert rows.notes == ()


def test_what_is_asked_for_goes_before(tmp_path: Path) -> None:
    rows = rows_for(bundle(text="body", label="kind"), table(tmp_path), text="title")
    assert rows.texts == ["hello", "hi"]
    with pytest.raises(NoColumn, match="asks for a column `bodi`"):
        rows_for(bundle(text="body", label="kind"), table(tmp_path), text="bodi")


def test_a_column_that_a_file_lacks_is_looked_for_and_told(tmp_path: Path) -> None:
    source = table(tmp_path, TABLE.replace("body", "content"))
    rows = rows_for(bundle(text="body", label="kind"), source)
    assert rows.labels == [("a",), ("b",)]  # what is there still counts
    assert f"{source} has no column `body`, which the model learned from (`text: body`)" in rows.notes[0]
    heard: list[str] = []
    rows_for(bundle(text="body"), source, labelled=False, warn=lambda news: heard.append(news.text))
    assert "Say `text:` to be sure" in heard[0]


def test_a_file_of_one_column_leaves_nothing_to_mistake(tmp_path: Path) -> None:
    rows = rows_for(bundle(text="body"), table(tmp_path, "text\nhello there\n"), labelled=False)
    assert (rows.texts, rows.notes) == (["hello there"], ())


def test_other_errors_are_told_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label is empty"):
        rows_for(bundle(text="body", label="topic"), table(tmp_path, TABLE.replace("billing", "")))
