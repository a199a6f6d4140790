"""Questions read from SQuAD's, CMRC's and flat forms; answers that do not stand where they should."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import put, told
from penjing.data.questions import Answer, asked, read
from penjing.errors import DataError

CONTEXT = "The parcel came to Bonn, not to Rome. Bonn is far."


def squad(*qas: dict[str, Any], **paragraph: Any) -> str:
    one = {"context": CONTEXT, "qas": list(qas), **paragraph}
    return json.dumps({"version": "v2.0", "data": [{"title": "x", "paragraphs": [one]}]})


def ask(*answers: tuple[str, int], name: str = "q1", **more: Any) -> dict[str, Any]:
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"question": "Where to?", "id": name, "answers": given, **more}


def test_squads_form_is_read_as_it_is(tmp_path: Path) -> None:
    none = ask(
        ("Rome", 32), name="q2", is_impossible=True, plausible_answers=[{"text": "x", "answer_start": 0}]
    )
    rows = read(put(tmp_path, "a.json", squad(ask(("Bonn", 19), ("to Bonn", 16)), none)))
    first, second = rows.items or []
    assert first.answers == (Answer("Bonn", 19, 23), Answer("to Bonn", 16, 23))
    assert (first.name, first.question, first.context) == ("q1", "Where to?", CONTEXT)
    assert second.answers == ()
    assert any("1 of 2 questions have no answer" in note for note in rows.notes)


def test_cmrcs_own_form_is_read_and_places_are_found(tmp_path: Path) -> None:
    row = {
        "context_id": "D0",
        "context_text": CONTEXT,
        "qas": [{"query_text": "Where?", "query_id": "Q", "answers": ["Bonn"]}],
    }
    rows = read(put(tmp_path, "a.json", json.dumps([row])))
    assert (rows.items or [])[0].answers == (Answer("Bonn", 19, 23),)
    assert any("1 answers came without a place" in note for note in rows.notes)


@pytest.mark.parametrize(
    "cell",
    [
        {"answers": {"text": ["Bonn"], "answer_start": [19]}},
        {"answers": [{"text": "Bonn", "answer_start": 19}]},
        {"answers": ["Bonn"]},
        {"answer": "Bonn"},
        {"answer": "Bonn", "answer_start": 38},
        {"answers": '{"text": ["Bonn"], "answer_start": [19]}'},
        {"answers": "{'text': ['Bonn'], 'answer_start': [19]}"},  # as pandas writes it into a CSV
    ],
)
def test_flat_rows_hold_answers_in_any_usual_form(cell: dict[str, Any], tmp_path: Path) -> None:
    lines = [{"question": "Where to?", "context": CONTEXT, **cell}] * 2
    rows = read(put(tmp_path, "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    start = 38 if "answer_start" in cell else 19
    assert [one.answers for one in rows.items or []] == [(Answer("Bonn", start, start + 4),)] * 2


@pytest.mark.parametrize(
    ("text", "start", "place"),
    [
        ("Bonn", 36, (38, 42)),
        ("Bonn", 20, (19, 23)),
        ("Bonn", -1, (19, 23)),
        ("Bonn not to Rome", 0, (19, 36)),  # but for the comma
        ("Oslo", 3, (-1, -1)),
    ],
)
def test_an_answer_goes_to_the_nearest_place_where_it_stands(
    text: str, start: int, place: tuple[int, int], tmp_path: Path
) -> None:
    rows = read(put(tmp_path, "a.json", squad(ask((text, start)))))
    assert (rows.items or [])[0].answers == (Answer(text, *place),)
    wanted = "1 answers stand nowhere" if place[0] < 0 else "1 answers do not stand where they are said to"
    assert any(wanted in note and "question q1" in note and repr(text) in note for note in rows.notes)


def test_an_object_that_cannot_be_read_is_no_answer(tmp_path: Path) -> None:
    cell = "{'text': array(['Bonn'], dtype=object)}"
    path = put(tmp_path, "a.csv", f'question,context,answers\nWhere?,to Bonn,"{cell}"\n')
    with pytest.raises(DataError, match=r"a.csv, line 2: answers were wanted as .*neither JSON nor Python"):
        read(path)


def test_columns_of_a_csv_that_are_named_are_its_header(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "frage,stelle,wort\nwho?,Anna ran.,Anna\nwho?,Bo ran.,Bo\n")
    assert len(read(path, text="frage+stelle", label="wort")) == 2


def test_a_question_that_is_empty_is_told_and_can_be_left_out(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", squad({**ask(name="q7"), "question": " "}, ask(("Bonn", 19))))
    with pytest.raises(DataError) as error:
        read(path)
    told(error, "question q7", "the question is empty", "`drop_empty: true`")
    rows = read(path, drop_empty=True)
    assert len(rows) == 1
    assert any("1 rows left out" in note for note in rows.notes)


def test_columns_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"query": "x", "body": "y"}\n' * 2)
    with pytest.raises(DataError) as error:
        read(path)
    told(
        error,
        "a question and the text that it is about were wanted",
        "query, body",
        "`text: question+context`",
    )
    assert len(read(path, text="query+body", labelled=False)) == 2
    with pytest.raises(DataError, match=r"right answers were wanted.*Name it with `label:`"):
        read(path, text="query+body")


def test_keys_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", squad(ask(("Bonn", 19))))
    with pytest.raises(DataError, match=r"`data.text` would be ignored"):
        read(path, text="question+context")
    with pytest.raises(DataError, match=r"`data.delimiter`.*ignored"):
        read(path, delimiter=";")


def test_answers_of_no_known_form_are_told_with_their_place(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"question": "x", "context": "y", "answers": true}\n' * 2)
    with pytest.raises(DataError, match=r"line 1: answers were wanted as .*'True' stands"):
        read(path)


def test_what_is_asked_is_a_question_and_a_text() -> None:
    rows = asked([{"question": "Where?", "context": CONTEXT}, ["Where?", "x"], "Where?\tx"])
    assert [one.context for one in rows.items or []] == [CONTEXT, "x", "x"]
    with pytest.raises(DataError, match=r"item 1 of 1 is 'Where\?'"):
        asked(["Where?"])
    with pytest.raises(DataError, match=r"the context is empty"):
        asked([["Where?", " "]])


@pytest.mark.data
def test_answers_of_cmrc_that_are_displaced_are_found(shared_data: Path) -> None:
    rows = read(shared_data / "cmrc2018" / "cmrc2018_dev.json.gz")
    placed = [one for item in rows.items or [] for one in item.answers]
    assert len(placed) == 9657
    assert sum(one.start < 0 for one in placed) == 32
    assert any("168 answers do not stand" in note for note in rows.notes)


@pytest.mark.data
def test_xquads_answers_all_stand_where_they_should(shared_data: Path) -> None:
    for language in ("en", "zh"):
        rows = read(shared_data / "xquad_en_zh" / f"xquad.{language}.json.gz")
        assert len(rows) == 1190
        assert not any("do not stand" in note or "nowhere" in note for note in rows.notes)


def test_a_number_is_an_answer_as_it_is_written(tmp_path: Path) -> None:
    rows = [
        {"question": "when", "context": "in 1990", "answer": 1990},
        {"question": "when", "context": "in 1990", "answer": {"text": 1990, "answer_start": 3}},
        {"question": "when", "context": "in May", "answer": " "},
    ]
    found = read(put(tmp_path, "q.jsonl", "\n".join(map(json.dumps, rows))))
    assert [one.answers for one in found.items or ()] == [(Answer("1990", 3, 7),)] * 2 + [()]


def test_places_written_as_pandas_does_are_read(tmp_path: Path) -> None:
    table = "who?,Is Ann Ann?,Ann,7.0\nwhere?,It is so,,\nwho?,It is so,,-1\n"
    path = put(tmp_path, "a.csv", f"question,context,answer,answer_start\n{table}")
    found = read(path).items or []
    assert [one.answers for one in found] == [(Answer("Ann", 7, 10),), (), ()]
    row = {"question": "who?", "context": "Ann", "answer": float("nan"), "answer_start": float("nan")}
    assert (read(put(tmp_path, "a.jsonl", json.dumps(row))).items or [])[0].answers == ()
    with pytest.raises(DataError, match=r"0.5 is no place"):
        read(put(tmp_path, "b.jsonl", json.dumps(row | {"answer": "A", "answer_start": 0.5})))
