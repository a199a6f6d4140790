"""Requests go out to label tools and their labels come back."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from common import told
from penjing.cli import app
from penjing.errors import DataError, SpecError
from penjing.serve.label_tools import read_labels, write_rows
from penjing.serve.traffic import Traffic


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "t.db")
    with Traffic(path) as traffic:
        for i, sure in enumerate((0.9, 0.2, 0.5)):
            traffic.record(f"r{i}", f"text {i}", {"label": "a", "confidence": sure}, model="m", version=1)
    return path


def test_the_least_sure_go_out_and_come_back_labelled(store: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = CliRunner().invoke(app, ["traffic", "export", store, "-o", str(out), "--uncertain", "2"])
    assert done.output == f"2 requests in {out}\n", done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["r1", "r2"]
    rows[0]["label"] = "b"
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert CliRunner().invoke(app, ["traffic", "import", store, str(out)]).output == "1 labels kept\n"
    assert CliRunner().invoke(app, ["traffic", "count", store]).output == "3 requests, 1 with feedback\n"
    assert (
        CliRunner().invoke(app, ["traffic", "forget", store, "--days", "0"]).output.startswith("3 requests")
    )


def test_label_studio_reads_tasks_and_its_export_is_read(store: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    with Traffic(store) as traffic:
        assert write_rows(traffic.rows(), path, form="label-studio") == 3
    tasks = json.loads(path.read_text())
    assert tasks[1]["data"] == {"text": "text 1", "request": "r1"}
    assert tasks[1]["predictions"][0]["result"][0]["value"] == {"choices": ["a"]}
    # as Label Studio's JSON export has it
    value = {"from_name": "label", "to_name": "text", "type": "choices"}
    made = [
        {"data": tasks[0]["data"], "annotations": [{"result": [{**value, "value": {"choices": ["b"]}}]}]},
        {
            "data": tasks[1]["data"],
            "annotations": [{"result": [{**value, "value": {"choices": ["a", "b"]}}]}],
        },
        {"data": tasks[2]["data"], "annotations": [{"was_cancelled": True, "result": []}]},
    ]
    path.write_text(json.dumps(made))
    assert read_labels(path) == {"r0": "b", "r1": ["a", "b"]}


SPAN = {"start": 3, "end": 7, "label": "thing", "text": "card"}
ANSWERS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "tag": ("my card", {"entities": [{**SPAN, "confidence": 0.3}]}, [SPAN]),
    "intent": ("x", {"entities": [], "intent": "pay", "confidence": 0.4}, {"entities": [], "intent": "pay"}),
    "regress": ("a text", {"stars": 4.5}, 4.5),
    "answer": ({"question": "q", "context": "c"}, {"answer": "c", "confidence": 0.9}, "c"),
    "choose": ({"question": "q", "choices": ["a", "b"]}, {"choice": "b", "index": 1, "confidence": 0.6}, "b"),
    "chat": ("hello", {"reply": "hi", "ended": True, "confidence": 0.5}, "hi"),
}  # fmt: skip


@pytest.mark.parametrize("task", ANSWERS)
def test_an_answer_that_a_person_finds_right_comes_back_as_the_truth(task: str, tmp_path: Path) -> None:
    asked, answer, truth = ANSWERS[task]
    lines, tasks = tmp_path / "out.jsonl", tmp_path / "out.json"
    with Traffic(str(tmp_path / "t.db")) as traffic:
        traffic.record("sure", "other", {"label": "a", "confidence": 0.99}, model="m")
        traffic.record("r", asked, answer, model="m")
        kept = traffic.rows(uncertain=2)
    assert [row.id for row in kept] == (["sure", "r"] if task == "regress" else ["r", "sure"])
    (one,) = [row for row in kept if row.id == "r"]
    write_rows([one], lines)
    line = json.loads(lines.read_text())
    lines.write_text(json.dumps({**line, "label": line["answer"]}))
    assert read_labels(lines) == {"r": truth}
    write_rows([one], tasks, form="label-studio")
    (made,) = json.loads(tasks.read_text())
    results = [result for guess in made["predictions"] for result in guess["result"]]
    tasks.write_text(json.dumps([{**made, "annotations": [{"result": results}]}]))
    bare = [{key: SPAN[key] for key in ("start", "end", "label")}] if task == "tag" else truth
    assert read_labels(tasks) == {"r": bare}


@pytest.mark.parametrize("given", [("--days", "-1"), ("--most", "-3")])
def test_less_than_nothing_forgets_nothing(given: tuple[str, str], store: str) -> None:
    done = CliRunner().invoke(app, ["traffic", "forget", store, *given])
    assert done.exit_code == 1
    assert "must be at least 0" in done.output
    assert CliRunner().invoke(app, ["traffic", "count", store]).output.startswith("3 requests")


def test_labels_of_requests_that_are_gone_keep_no_others_out(store: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"id": id, "label": "b"}) + "\n" for id in ("gone", "r0", "r1")))
    done = CliRunner().invoke(app, ["traffic", "import", store, str(path)])
    assert done.stdout == "2 labels kept\n"
    assert done.stderr == "· 1 of requests that the store does not hold, such as gone\n"
    path.write_text('{"id": "gone", "label": "b"}\n')
    none = CliRunner().invoke(app, ["traffic", "import", store, str(path)])
    assert none.exit_code == 1
    assert "the store keeps none of that id" in none.stderr


def test_nothing_is_a_word_on_entities_and_texts_only(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "form": "labels", "answer": [SPAN], "label": []},
        {"id": "b", "form": "textarea", "answer": "x", "label": ""},
        {"id": "c", "form": "choices", "answer": "x", "label": ""},
        {"id": "d", "form": "labels", "answer": [], "label": None},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_labels(tmp_path / "rows.jsonl") == {"a": [], "b": ""}


def test_bad_files_and_forms_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "a", "label": "b"}\n{"id": 1}\n')
    with pytest.raises(DataError) as line:
        read_labels(path)
    told(line, "x.jsonl, line 2", "`id` and `label`", "penjing traffic export")
    path.write_text('[{"data": {}}]')
    with pytest.raises(DataError, match="what Label Studio exports as JSON"):
        read_labels(path)
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "none")
    path.write_bytes('{"id": "a", "label": "退款"}'.encode("gb18030"))
    with pytest.raises(DataError, match=r"UTF-8 were wanted in .*x\.jsonl; byte 23 is 0xcd"):
        read_labels(path)
    with pytest.raises(SpecError, match="`form` is `csv`"):
        write_rows([], path, form="csv")
