"""Which column is text and which label, and what label cells become."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import ROWS, as_csv, complaint, pairs, put
from penjing.data.read import read


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("Ticket Body,queue", ("Ticket Body", "queue")),
        ("内容,类别", ("内容", "类别")),
        ("customerMessage,labelName", ("customerMessage", "labelName")),
        ("用户问题,意图类别", ("用户问题", "意图类别")),
        ("ticket_body,Class Index", ("ticket_body", "Class Index")),
    ],
)  # fmt: skip
def test_usual_column_names_are_guessed_and_told(tmp_path: Path, head: str, names: tuple[str, str]) -> None:
    rows = read(put(tmp_path, "a.csv", as_csv(ROWS, head=head)))
    assert pairs(rows) == ROWS
    assert (
        f"text from column `{names[0]}`, label from column `{names[1]}` (guessed; say `text:` and `label:`"
        in rows.notes[0]
    )


def test_unusual_columns_are_guessed_by_content(tmp_path: Path) -> None:
    body = [(str(i), f"sentence number {i} about things", "abc"[i % 3]) for i in range(30)]
    rows = read(put(tmp_path, "a.csv", as_csv(body, head="nr,foo,bar")))
    assert rows.texts[3] == "sentence number 3 about things"
    assert rows.labels[3] == ("a",)


def test_a_file_sorted_by_label_is_guessed_too(tmp_path: Path) -> None:
    body = [(f"sentence number {i} about things", "low" if i < 9000 else "high") for i in range(10_000)]
    rows = read(put(tmp_path, "a.csv", as_csv(body, head="foo,bar")))
    assert {*rows.labels} == {("low",), ("high",)}


def test_columns_that_cannot_be_guessed_are_shown(tmp_path: Path) -> None:
    body = [(f"one text {i}", f"two text {i}", "ab"[i % 2]) for i in range(20)]
    said = complaint(put(tmp_path, "a.csv", as_csv(body, head="foo,bar,baz")))
    assert "`foo` ('one text 0', 'one text 1')" in said
    assert "Say which" in said


def test_title_and_body_are_joined(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", "title,description,class\nHead,Long text,1\nOther,More,2\n"))
    assert rows.texts == ["Head\nLong text", "Other\nMore"]


def test_named_columns_are_taken_without_a_note(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", "a,b,text\nx,1,n\ny,2,m\n"), text="a", label="b")
    assert pairs(rows) == [("x", "1"), ("y", "2")]
    assert rows.notes == ()


def test_a_missing_column_offers_the_nearest(tmp_path: Path) -> None:
    said = complaint(put(tmp_path, "a.csv", as_csv(ROWS)), label="lable")
    assert "Did you mean `label`?" in said
    assert "Columns: text, label" in said


def test_a_headless_file_has_numbered_columns(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", as_csv(ROWS * 5, head="")), text="1", label="2")
    assert pairs(rows) == ROWS * 5
    assert any("no header" in note for note in rows.notes)


@pytest.mark.parametrize("column", ["1", "1.0", "true"])
def test_label_spellings_of_csv(tmp_path: Path, column: str) -> None:
    rows = read(put(tmp_path, "a.csv", f"text,label\na,{column}\nb,x\n"))
    assert rows.labels[0] == (column.removesuffix(".0"),)


@pytest.mark.parametrize(
    ("value", "labels"),
    [(3, ("3",)), (2.0, ("2",)), (0.5, ("0.5",)), (True, ("True",)), (["a", "b", "a"], ("a", "b"))],
)
def test_label_types_of_json(tmp_path: Path, value: Any, labels: tuple[str, ...]) -> None:
    path = put(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": t, "label": value}) for t in "xy"))
    assert read(path).labels == [labels, labels]


def test_label_tuples_are_shared(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", as_csv(ROWS * 50)))
    assert len({id(labels) for labels in rows.labels}) == 3


MANY = "text,label\none,sport|news\ntwo,news\nthree,sport|home\nfour,home\nfive,sport\n"


def test_the_delimiter_between_labels_is_found_and_told(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", MANY), multi_label=True)
    assert rows.labels[:3] == [("sport", "news"), ("news",), ("sport", "home")]
    assert any("`|`" in note for note in rows.notes)


def test_a_given_delimiter_splits_labels(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", MANY.replace("|", " / ")), delimiter="/")
    assert rows.labels[0] == ("sport", "news")


def test_one_label_a_row_is_not_split_at_its_own_signs(tmp_path: Path) -> None:
    rows = read(
        put(tmp_path, "a.csv", "text,label\na,card payment\nb,top up\nc,card payment\n"), multi_label=True
    )
    assert rows.labels[0] == ("card payment",)


def test_columns_of_zeros_and_ones_name_the_labels(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "text,toxic,insult\na,1,0\nb,1,1\nc,0,0\n")
    rows = read(path, label="toxic+insult", multi_label=True)
    assert rows.labels == [("toxic",), ("toxic", "insult"), ()]


def test_labels_that_come_as_a_list_are_never_taken_apart(tmp_path: Path) -> None:
    names = ("arts, crafts", "arts, music", "crafts, music") * 4
    lines = [json.dumps({"text": f"t{i}", "labels": [name]}) for i, name in enumerate(names)]
    rows = read(put(tmp_path, "a.jsonl", "\n".join(lines)), multi_label=True)
    assert rows.labels == [(name,) for name in names]
    assert not any("split" in note for note in rows.notes)


def test_a_truth_value_and_a_number_are_two_labels(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "t", "label": label}) for label in (True, 1, 0, False, 1.0)]
    rows = read(put(tmp_path, "a.jsonl", "\n".join(lines)))
    assert rows.labels == [("True",), ("1",), ("0",), ("False",), ("1",)]


def test_lists_that_a_cell_holds_as_text_are_read_however_they_are_written(tmp_path: Path) -> None:
    cells = ["['a b', 'c']", '["a b", null]', "['a b' 'c']", "[]", "[c, d]"]
    table = as_csv([(f"t{i}", cell) for i, cell in enumerate(cells)])
    rows = read(put(tmp_path, "a.csv", table), multi_label=True)
    assert rows.labels == [("a b", "c"), ("a b",), ("a b", "c"), (), ("c", "d")]
