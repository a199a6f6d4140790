"""Rows of code: files, completions, HumanEval's and MBPP's fields, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import as_csv, put, told
from penjing.data.code import Problem, asked_code, read_code
from penjing.errors import DataError


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_files_of_code_are_rows(tmp_path: Path) -> None:
    put(tmp_path, "a.py", "x = 1\n")
    put(tmp_path, "deep/b.go", "package b\n")
    put(tmp_path, "deep/__pycache__/c.py", "no")
    put(tmp_path, ".git/d.py", "no")
    put(tmp_path, "notes.txt", "no")
    rows = read_code(tmp_path)
    assert rows.items == [Problem("", "x = 1\n", whole=True), Problem("", "package b\n", whole=True)]
    assert rows.where(0).endswith("a.py")
    assert read_code(tmp_path / "*.py").items == rows.items[:1]  # type: ignore[index]
    assert read_code([tmp_path / "a.py"]).items == rows.items[:1]  # type: ignore[index]


def test_problems_of_humaneval_have_their_tests(tmp_path: Path) -> None:
    row = {"task_id": "HumanEval/0", "prompt": "\ndef one():\n", "entry_point": "one",
           "canonical_solution": "    return 1\n", "test": "def check(f):\n    assert f() == 1"}  # fmt: skip
    (one,) = read_code(put(tmp_path, "h.jsonl", lines(row))).items or ()
    assert (one.prompt, one.completion) == ("\ndef one():\n", "    return 1\n")  # spaces are code
    scope: dict[str, Any] = {}
    exec(one.prompt + one.completion + "\n" + one.tests, scope)
    with pytest.raises(AssertionError):
        exec(one.prompt + "    return 2\n" + one.tests, scope)


def test_problems_of_mbpp_show_a_test(tmp_path: Path) -> None:
    row = {"task_id": 1, "text": "Write one.", "code": "def one():\n    return 1", "test_setup_code": "k = 1",
           "test_list": ["assert one() == k", "assert one() < 2"]}  # fmt: skip
    (one,) = read_code(put(tmp_path, "m.jsonl", lines(row))).items or ()
    assert one.prompt == '"""\nWrite one.\nassert one() == k\n"""\n'
    assert one.completion == row["code"]
    assert one.tests == "k = 1\nassert one() == k\nassert one() < 2"


def test_prompts_and_completions_are_found_and_told(tmp_path: Path) -> None:
    row = {"id": 3, "prompt": "def f():", "suffix": "\nf()", "completion": " pass"}
    rows = read_code(put(tmp_path, "p.jsonl", lines(row)))
    assert rows.items == [Problem("def f():", " pass", "\nf()")]
    assert "`prompt` and `completion` as prompt and completion (guessed)" in rows.notes[-1]
    asked = read_code(put(tmp_path, "q.jsonl", lines({"prompt": "def f():"})), labelled=False)
    assert asked.items == [Problem("def f():", None)]
    named = read_code(put(tmp_path, "r.jsonl", lines({"a": "x", "b": "y"})), text="b", label="a")
    assert named.items == [Problem("y", "x")]


def test_an_instruction_is_never_lost_beside_its_input(tmp_path: Path) -> None:
    alpaca = [{"instruction": "Sum a list.", "input": "", "output": "sum(x)"},
              {"instruction": "Mend it.", "input": "prnt(1)", "output": "print(1)"}]  # fmt: skip
    path = put(tmp_path, "a.jsonl", lines(*alpaca))
    wanted = ["Sum a list.\n", "Mend it.\nprnt(1)\n"]
    rows = read_code(path)
    assert [(one.prompt, one.completion) for one in rows.items or ()] == [
        (wanted[0], "sum(x)"),
        (wanted[1], "print(1)"),
    ]
    assert "`instruction+input` and `output` as prompt and completion (guessed)" in rows.notes[0]
    assert [one.prompt for one in asked_code(alpaca).items or ()] == wanted


def test_several_columns_are_one_prompt_and_never_one_completion(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", lines({"a": "x", "b": "y", "c": "z"}))
    assert read_code(path, text="a+b", label="c").items == [Problem("x\ny", "z")]
    with pytest.raises(DataError, match=r"`label: b\+c` names 2 columns; a completion has one"):
        read_code(path, text="a", label="b+c")


def test_a_column_of_whole_files_is_read_as_such(tmp_path: Path) -> None:
    rows = read_code(put(tmp_path, "s.jsonl", lines({"path": "a.py", "content": "  x\n"})))
    assert rows.items == [Problem("", "  x\n", whole=True)]


def test_code_given_by_hand() -> None:
    rows = asked_code(["def f():\n", {"prompt": "a", "suffix": "b"}])
    assert rows.items == [Problem("def f():\n", None), Problem("a", None, "b")]
    with pytest.raises(DataError) as error:
        asked_code([" "])
    told(error, "takes code to complete", "item 1 of 1", '"suffix"')


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([{"a": "x", "b": "y"}], ["whole files in one column or a prompt", "Columns: a, b", "`text: a`"]),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}], ["line 2", "1 of 2 rows"]),
    ],
)
def test_what_is_no_code_is_refused(tmp_path: Path, rows: list[dict[str, str]], parts: list[str]) -> None:
    path = put(tmp_path, "bad.jsonl", lines(*rows))
    with pytest.raises(DataError) as error:
        read_code(path)
    told(error, *parts)
    if len(rows) == 2:
        assert len(read_code(path, drop_empty=True)) == 1


def test_tests_in_a_cell_are_tests_and_no_text_that_passes(tmp_path: Path) -> None:
    head, first = "text,code,test_list", "assert f() == 1"
    table = as_csv([("say 1", "def f(): return 1", str([first, "assert f()"]))], head=head)
    (one,) = read_code(put(tmp_path, "a.csv", table)).items or ()
    assert one.tests == f"{first}\nassert f()"
    table = as_csv([("say 1", "def f(): return 1", "['assert f()' 'assert f() == 1']")], head=head)
    with pytest.raises(DataError) as error:
        read_code(put(tmp_path, "b.csv", table))
    told(
        error,
        "b.csv, line 2: a program or a list of tests was wanted in `test_list`",
        "Write the list as JSON",
    )
