"""Documents with entities and relations, read into a row for each two entities."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import put
from penjing.data.linked import MOST_PAIRS, NONE
from penjing.data.relations import Related, read
from penjing.data.tagged import read as read_entities
from penjing.errors import DataError
from penjing.records import Rows

TEXT = "😀 Ann works for Reuters in Bonn"
PLACES = {"Ann": (2, 5), "Reuters": (16, 23), "Bonn": (27, 31)}
KINDS = {"Ann": "PER", "Reuters": "ORG", "Bonn": "LOC"}
WANTED = {("Ann", "Reuters"): "for", ("Reuters", "Bonn"): "in"}


def put_rows(folder: Path, *rows: dict[str, Any]) -> Path:
    return put(folder, "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def seen(rows: Rows) -> dict[tuple[str, str], str]:
    """Relations by what they are between, of the pairs that have one."""
    found = {}
    for item, (kind,) in zip(rows.items or (), rows.labels, strict=True):
        assert isinstance(item, Related)
        first, second = (item.text[slice(*place)] for place in (item.first, item.second))
        assert item.types == (KINDS.get(first, ""), KINDS.get(second, ""))
        found |= {(first, second): kind} if kind != NONE else {}
    return found


def entities(shift: int = 0, **more: Any) -> list[dict[str, Any]]:
    spans = enumerate(PLACES.items())
    return [
        {"id": 7 + i, "start_offset": a + shift, "end_offset": b + shift, "label": KINDS[name]}
        | ({"text": name} if more else {})
        for i, (name, (a, b)) in spans
    ]


DOCCANO = [
    {"id": 1, "from_id": 7, "to_id": 8, "type": "for"},
    {"id": 2, "from_id": 8, "to_id": 9, "type": "in"},
]


def test_documents_of_doccano_have_a_row_for_each_two_entities(tmp_path: Path) -> None:
    row = {"id": 1, "text": TEXT, "entities": entities(), "relations": DOCCANO}
    rows = read(put_rows(tmp_path, row, {**row, "entities": [], "relations": []}))
    assert (len(rows), seen(rows)) == (6, WANTED)
    assert rows.lines.tolist() == [1] * 6
    assert any(
        "6 pairs of two entities of a text, of which 4 are `no_relation`" in note for note in rows.notes
    )
    assert any("1 text with fewer than two entities left out" in note for note in rows.notes)
    assert read(put_rows(tmp_path, row), labelled=False).labels == [()] * 6
    assert len(read_entities(put_rows(tmp_path, row)).items[0].entities) == 3  # type: ignore[index]


def test_places_among_tokens_and_in_utf_16_are_read(tmp_path: Path) -> None:
    spans = [{"type": "PER", "start": 0, "end": 1}, {"type": "ORG", "start": 3, "end": 4}]
    relation = {"type": "for", "head": 0, "tail": 1}
    row = {"tokens": ["Ann", "works", "for", "Reuters"], "entities": spans, "relations": [relation]}
    assert seen(read(put_rows(tmp_path, row))) == {("Ann", "Reuters"): "for"}
    units = {"text": TEXT, "entities": entities(1, text=True), "relations": DOCCANO}
    assert seen(read(put_rows(tmp_path, units))) == WANTED


def test_triples_of_texts_are_found_where_their_ends_are_nearest(tmp_path: Path) -> None:
    said = {
        "subject": "王明",
        "predicate": "住",
        "object": {"@value": "北京"},
        "object_type": {"@value": "地"},
    }
    row = {
        "text": "王明说，王明住北京",
        "spo_list": [said, {**said, "object": "上海"}, {**said, "subject": ""}],
    }
    rows = read(put_rows(tmp_path, row))
    assert [(item.first, item.second, item.types) for item in rows.items or ()] == [
        ((4, 6), (7, 9), ("", "地")), ((7, 9), (4, 6), ("地", "")),
    ]  # fmt: skip
    assert rows.labels == [("住",), (NONE,)]
    assert any("2 relations left out, as an end of it stands nowhere" in note for note in rows.notes)


def test_folders_of_brats_and_tasks_of_label_studio_hold_relations(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    marks = [f"T{i}\t{KINDS[n]} {a} {b}\t{n}" for i, (n, (a, b)) in enumerate(PLACES.items())]
    marks += ["R1\tfor Arg1:T0 Arg2:T1", "R2\tin Arg1:T1 Arg2:T2\t"]
    (tmp_path / "a.ann").write_text("\n".join(marks) + "\n", encoding="utf-8")
    rows = read(tmp_path)
    assert (seen(rows), rows.where(0)) == (WANTED, f"{tmp_path / 'a'}.txt, line 1")
    spans = [
        {"id": n, "type": "labels", "from_name": "who",
         "value": {"start": a + 1, "end": b + 1, "text": n, "labels": [KINDS[n]]}}
        for n, (a, b) in PLACES.items()
    ]  # fmt: skip
    drawn = [
        {"type": "relation", "from_id": a, "to_id": b, "labels": [kind]} for (a, b), kind in WANTED.items()
    ]
    task = {"data": {"text": TEXT}, "annotations": [{"result": [*spans, *drawn]}]}
    path = put(tmp_path, "tasks.json", json.dumps([task, {"data": {"text": "x"}, "annotations": []}]))
    rows = read(path)
    assert seen(rows) == WANTED
    assert any("1 row left out, nobody labelled them" in note for note in rows.notes)
    assert len(read_entities(path).items[0].entities) == 3  # type: ignore[index]


def test_of_many_entities_the_nearest_pairs_without_a_relation_stay(tmp_path: Path) -> None:
    text = "a " * 40
    places = [{"id": i, "start": 2 * i, "end": 2 * i + 1, "label": "X"} for i in range(40)]
    far = {"from_id": 0, "to_id": 39, "type": "far"}
    rows = read(
        put_rows(tmp_path, {"text": text, "entities": places, "relations": [far, {**far, "type": "y"}]})
    )
    assert len(rows) == MOST_PAIRS
    assert [labels for labels in rows.labels if labels != (NONE,)] == [("far",)]
    assert any("1,360 pairs without a relation left out" in note for note in rows.notes)
    assert any("1 relation left out, as another stands between the same two" in note for note in rows.notes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"entities": [{"id": 1, "start": 0, "end": 99, "label": "X"}]}, "an entity stands at 0–99, outside"),
        ({"entities": [{"id": 1, "label": "X"}]}, "line 1: entities of"),
        ({"entities": [{"start": 0, "end": 1, "text": "x"}]}, "`x` at 0–1, where '😀' stands"),
        ({"relations": [{"from_id": 7, "to_id": 8}]}, "a relation has no type"),
        ({"relations": ["x"]}, "relations of {from_id, to_id, type} were wanted"),
    ],
)
def test_documents_in_no_known_form_are_told(change: dict[str, Any], text: str, tmp_path: Path) -> None:
    row = {"text": TEXT, "entities": entities(), "relations": DOCCANO, **change}
    with pytest.raises(DataError, match=text):
        read(put_rows(tmp_path, row))
