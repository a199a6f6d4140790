"""JSON in the shapes in which tools write it: nested objects, rows under keys, Label Studio."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import ROWS, complaint, pairs, put
from penjing.data.labels import find_separator
from penjing.data.read import read

OBJECTS = [{"text": t, "label": label} for t, label in ROWS]


def test_fields_of_nested_objects_are_columns_by_their_path(tmp_path: Path) -> None:
    rows = [
        {"id": i, "payload": {"text": t, "lang": "en"}, "meta": {"intent": x}}
        for i, (t, x) in enumerate(ROWS)
    ]
    path = put(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert pairs(read(path)) == pairs(read(path, text="payload.text", label="meta.intent")) == ROWS


def test_one_line_of_json_lines_is_a_row_whatever_it_holds(tmp_path: Path) -> None:
    line = json.dumps({"text": "a", "label": "b", "turns": [{"x": 1}]})
    assert pairs(read(put(tmp_path, "a.jsonl", line + "\n"))) == [("a", "b")]


def test_objects_under_keys_are_rows(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", json.dumps(dict(enumerate(OBJECTS)), indent=1))
    found = read(path)
    assert pairs(found) == ROWS
    assert found.lines[1] == 6


def test_what_label_studio_exports_is_read(tmp_path: Path) -> None:
    def task(text: str, label: str) -> dict[str, Any]:
        chosen = {"type": "choices", "from_name": "mood", "value": {"choices": [label]}}
        old = {"was_cancelled": True, "result": [{**chosen, "value": {"choices": ["wrong"]}}]}
        return {
            "id": 1,
            "data": {"text": text},
            "annotations": [{"result": [chosen]}, old],
            "predictions": [],
        }

    path = put(tmp_path, "project.json", json.dumps([task(*row) for row in ROWS]))
    assert pairs(read(path)) == ROWS


def test_entities_in_the_place_of_labels_name_the_task_for_them(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"text": "Anna went", "label": [[0, 4, "PER"]]}\n' * 2)
    assert "say `task: tag`" in complaint(path)
    row = {
        "id": 7,
        "text": "Anna went",
        "entities": [{"start": 0, "end": 4, "label": "PER"}],
        "relations": [],
    }
    path = put(tmp_path, "b.jsonl", f"{json.dumps(row)}\n" * 2)
    assert "If `entities` holds entities of the text, say `task: tag`" in complaint(path)


def test_a_name_of_the_label_goes_before_its_number(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "text,intent_id,intent_name\na,0,refund\nb,1,parcel\n")
    assert read(path).labels == [("refund",), ("parcel",)]


def test_cells_that_read_like_several_labels_are_told(tmp_path: Path) -> None:
    cells = ["refund;parcel", "refund", "parcel;account", "account;refund"]
    path = put(tmp_path, "a.csv", "text,labels\n" + "".join(f"a text {i},{c}\n" for i, c in enumerate(cells)))
    assert any("`account;refund` read like several" in note for note in read(path).notes)
    path = put(tmp_path, "b.csv", "text,label\na,Sport; leisure\nb,Trade; tax\n")
    assert not any("read like several" in note for note in read(path).notes)


@pytest.mark.parametrize(
    ("cells", "sign"),
    [
        (["a", "b", "a,b", "c,a,b,e"], ","),  # one long list holds labels that stand nowhere else
        (["a", "b", "a;b", "c; a; d"], ";"),
        (["Food, drinks", "Food", "Travel", "Sport", "Art"], None),
        (["lost card", "lost pin", "late card"], None),
        (["Cause(e1,e2)", "Cause(e2,e1)", "Whole(e1,e2)", "Whole(e2,e1)"], None),
    ],
)
def test_the_sign_between_labels_is_the_one_whose_parts_stand_elsewhere_too(
    cells: list[str], sign: str | None
) -> None:
    assert find_separator(cells) == sign


@pytest.mark.parametrize("rows", [OBJECTS, {"data": OBJECTS}, ROWS, dict(enumerate(OBJECTS))])
def test_rows_that_share_a_line_are_told_apart_by_their_number(rows: Any, tmp_path: Path) -> None:
    found = read(put(tmp_path, "a.json", json.dumps(rows, ensure_ascii=False)))
    assert pairs(found) == ROWS
    assert [*found.lines] == [*range(1, len(ROWS) + 1)]
    assert any("a.json: rows share a line: what is called" in note for note in found.notes)
    found = read(put(tmp_path, "b.json", json.dumps(OBJECTS, indent=0)))
    assert [*found.lines[:2]] == [2, 6]
    assert not any("share a line" in note for note in found.notes)


def test_several_labels_that_no_row_has_are_told(tmp_path: Path) -> None:
    cells = "".join(f"a text {i},{'x' if i % 2 else 'y'}\n" for i in range(12))
    found = read(put(tmp_path, "a.csv", f"text,label\n{cells}"), multi_label=True)
    assert any(note.startswith("no row has several labels") for note in found.notes)
    found = read(put(tmp_path, "b.csv", f"text,label\n{cells}c,x|y\n"), multi_label=True)
    assert found.labels[-1] == ("x", "y")
    assert not any(note.startswith("no row has several labels") for note in found.notes)


def test_values_one_behind_the_other_are_all_read(tmp_path: Path) -> None:
    pretty = "".join(json.dumps(one, indent=1) + "\n" for one in OBJECTS)  # as jq writes them
    found = read(put(tmp_path, "a.json", pretty))
    assert pairs(found) == ROWS
    assert [*found.lines[:2]] == [1, 5]
    two = json.dumps(OBJECTS[:2], indent=1) + "\n" + json.dumps(OBJECTS[2:], indent=1)
    assert pairs(read(put(tmp_path, "b.json", two))) == ROWS


def test_a_list_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", json.dumps(OBJECTS, indent=1))
    assert "asks for the list under `test`" in complaint(f"{path}#test")


def test_rows_that_are_all_empty_are_told(tmp_path: Path) -> None:
    assert "all of them are empty objects" in complaint(put(tmp_path, "a.json", "[{}, {}]"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_half_a_character_is_replaced_and_counted(name: str, tmp_path: Path) -> None:
    text = r"half \ud83d, whole \ud83d\ude00, \\ud83d as it stands"
    body = f'{{"text": "{text}", "label": "a"}}\n'
    found = read(put(tmp_path, name, body * 2))
    assert found.texts[0] == "half \ufffd, whole \U0001f600, \\ud83d as it stands"
    assert "2 halves of characters" in found.notes[0]
