"""Every verb runs, speaks JSON where it promises to, and ends bad input with one text and exit code 1."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from penjing.cli import app
from penjing.errors import SpecError
from penjing.screen import print_result, print_table

Tuned = Callable[..., Any]
VERBS = ["tune", "evaluate", "predict", "report", "list", "show", "check", "selfcheck", "demo"]


def penjing(*words: Any, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def good(*words: Any, stdin: str | bytes | None = None) -> Result:
    done = penjing(*words, stdin=stdin)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def bad(*words: Any, stdin: str | bytes | None = None) -> str:
    done = penjing(*words, stdin=stdin)
    assert done.exit_code == 1, (done.output, done.exception)
    assert "Traceback" not in done.output
    return done.stderr


@pytest.fixture
def file(small: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(small))
    return path


def test_help_names_every_verb() -> None:
    text = good("--help").stdout
    assert [verb for verb in VERBS if verb not in text] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    assert f"penjing {verb}" in good(verb, "--help").stdout.replace("root", "penjing")


def test_version() -> None:
    import penjing as package

    assert good("--version").stdout.strip() == package.__version__


@pytest.mark.slow
def test_tune_shows_scores_and_what_to_do_next(file: Path) -> None:
    done = good("tune", file, "--name", "a", "--method", "lora", "--set", "method.rank=2")
    assert all(
        word in done.stdout for word in ("untuned", "baseline", "tuned", "95 % interval", "penjing predict")
    )
    assert "training 6 steps" in done.stderr


@pytest.mark.slow
def test_tune_says_what_its_scores_come_to(file: Path) -> None:
    text = good("tune", file, "--name", "told").stdout
    assert "The tuned model answers" in text
    assert "; the cheap baseline" in text


@pytest.mark.slow
@pytest.mark.parametrize(("task", "asked"), [("pair", "one text\\tanother text"), ("classify", "your text")])
def test_what_to_try_next_is_what_the_task_takes(
    tuned: Tuned, capsys: pytest.CaptureFixture[str], task: str, asked: str
) -> None:
    run = tuned()
    print_result(run.folder, {**run.result, "task": task})
    assert asked in capsys.readouterr().out


def test_columns_are_named_by_options(file: Path) -> None:
    said = penjing("check", file, "--text", "text", "--label", "lable").stdout
    assert "`label: lable` asks for a column `lable`; there is none. Did you mean `label`?" in said


def test_verbs_stand_in_the_order_of_a_models_life() -> None:
    shown = [line.split()[0] for line in good("--help").stdout.partition("Commands:")[2].splitlines() if line]
    picked = [verb for verb in shown if verb in ("check", "tune", "evaluate", "compress", "serve", "update")]
    assert picked == ["check", "tune", "evaluate", "compress", "serve", "update"]


def test_columns_of_a_table_stand_under_each_other_in_chinese_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["标签", "n"], [["物流", "12"], ["cafe\u0301", "7"]])
    assert capsys.readouterr().out.splitlines() == ["标签  n", "----  --", "物流  12", "cafe\u0301  7"]


def test_tune_as_json_is_one_object(file: Path) -> None:
    found = json.loads(good("tune", file, "--set", "train.steps=1", "--json").stdout)
    assert {"run", "before", "after", "baseline"} <= set(found)


@pytest.mark.slow
def test_tune_without_train_rows_says_what_to_give() -> None:
    text = bad("tune", "--base", "minilm")
    assert "`data.train` must name the rows to learn from" in text
    assert "--train tickets.csv" in text


@pytest.mark.slow
def test_a_dry_run_prints_the_spec_and_trains_nothing(file: Path, small: dict[str, Any]) -> None:
    text = good("tune", file, "--dry-run").stdout
    assert "weight_decay: 0.01" in text
    assert "ok    rows:" in text
    assert not Path(small["out"]).exists()
    found = json.loads(good("tune", file, "--dry-run", "--json").stdout)
    assert found["spec"]["train"]["steps"] == 6


def test_a_dry_run_of_a_pretraining_as_json_is_one_object(tiny: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("where is my parcel\n" * 20)
    given = ["pretrain", "--base", tiny("bert"), "--train", tmp_path / "words.txt", "--dry-run", "--json"]
    assert json.loads(good(*given).stdout)["data"]["train"] == str(tmp_path / "words.txt")


def test_a_dry_run_of_a_bad_spec_fails(file: Path) -> None:
    assert penjing("tune", file, "--dry-run", "--base", "/nowhere").exit_code == 1


def test_options_that_a_resume_would_ignore_are_refused(file: Path) -> None:
    text = bad("tune", "--resume", "runs/a", "--base", "minilm", "--set", "train.lr=1")
    assert "--base, --set would be ignored" in text
    assert "--shots would be ignored" in bad("tune", "--resume", "runs/a", "--shots", "4")
    for verb in ("search", "pretrain"):  # which would train
        assert "--dry-run would be ignored" in bad(verb, "--resume", "runs/a", "--dry-run")


@pytest.mark.slow
def test_resume_of_a_finished_run_says_so(tuned: Tuned) -> None:
    assert "it is done" in bad("tune", "--resume", tuned().folder)


def test_resume_without_any_run_says_so(tmp_path: Path) -> None:
    assert "A run that is open or died was wanted" in bad("tune", "--resume", "--out", tmp_path)


def test_an_error_is_json_too_when_json_was_asked_for() -> None:
    done = penjing("tune", "--base", "/nowhere", "--train", "x.csv", "--json")
    assert done.exit_code == 1
    assert "x.csv" in json.loads(done.stdout)["error"]


def test_an_error_among_lines_of_json_is_a_line(tuned: Tuned) -> None:
    done = penjing("predict", tuned().folder, "--json", stdin=b"late\n\xff\n")
    assert done.exit_code == 1
    assert "error" in json.loads(done.stdout.splitlines()[-1])


def test_ctrl_c_is_told_and_ends_with_130(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penjing.jobs import training

    def stopped(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "rows_of", stopped)
    done = penjing("tune", file)
    assert done.exit_code == 130
    assert "penjing: stopped" in done.stderr


@pytest.mark.slow
def test_evaluate_as_table_and_as_json(tuned: Tuned, tiny_csv: Path) -> None:
    table = good("evaluate", tuned().folder, "--data", tiny_csv).stdout
    assert "90 rows" in table
    assert "accuracy" in table
    found = json.loads(good("evaluate", tuned().folder, "--data", tiny_csv, "--json").stdout)
    assert found["rows"] == 90
    assert set(found["intervals"]["accuracy"]) <= {x for x in found["intervals"]["accuracy"] if 0 <= x <= 1}


@pytest.mark.slow
def test_predict_answers_texts_files_and_standard_input(tuned: Tuned, tiny_csv: Path) -> None:
    folder = tuned().folder
    assert len(good("predict", folder, "my parcel is late", "card").stdout.splitlines()) == 2
    assert len(good("predict", folder, tiny_csv).stdout.splitlines()) == 90
    assert len(good("predict", folder, stdin="late\n\nlost\n").stdout.splitlines()) == 2


@pytest.mark.slow
def test_predict_as_json_is_an_object_a_line(tuned: Tuned) -> None:
    lines = good("predict", tuned().folder, "--json", "--scores", stdin="a\n快递\n").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["text"] for one in found] == ["a", "快递"]
    assert set(found[0]) == {"text", "label", "confidence", "scores"}
    assert "scores" not in json.loads(good("predict", tuned().folder, "a", "--json").stdout)


def test_a_form_of_answers_is_read_and_refused_where_it_is_none(tuned: Tuned, tmp_path: Path) -> None:
    from penjing.cli_options import form_given

    path = tmp_path / "schema.json"
    path.write_text('{"type": "integer"}', encoding="utf-8")
    assert form_given(path, None, None) == {"schema": {"type": "integer"}}
    assert form_given(None, None, "yes, no") == {"choices": ["yes", "no"]}
    assert form_given(None, None, None) is None
    with pytest.raises(SpecError, match="--regex and --choices are given"):
        form_given(None, "a", "b")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SpecError, match="must be a JSON file with a schema"):
        form_given(path, None, None)
    assert "answers by no text that its model says" in bad("predict", tuned().folder, "a", "--regex", "x")


def test_predict_keeps_a_text_of_two_lines_on_one(tuned: Tuned) -> None:
    assert len(good("predict", tuned().folder, "two\nlines").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "stdin", "part"),
    [
        ([], "", "standard input, a line a text; it was empty"),
        ([], b"\xff\n", "line 1: UTF-8 was wanted"),
        (["nowhere.csv"], None, "looks like a file of texts"),
        (["-"], "", "standard input, a line a text; it was empty"),
        (["a", "--scores"], None, "`--json` is not given"),
    ],
)
def test_predict_of_nothing_usable_says_so(tuned: Tuned, words: list[str], stdin: Any, part: str) -> None:
    assert part in bad("predict", tuned().folder, *words, stdin=stdin)


def test_columns_of_rows_that_an_export_is_not_given_are_refused(tuned: Tuned, tmp_path: Path) -> None:
    said = bad("export", tuned("lora").folder, "--to", "hf", "-o", tmp_path / "x", "--text", "nothing")
    assert "`text` would be ignored" in said
    assert "--rows FILE" in said


def test_report_writes_its_page(tuned: Tuned) -> None:
    path = Path(good("report", tuned().folder, "--language", "zh", "--no-open").stdout.strip())
    assert '<html lang="zh' in path.read_text("utf-8")


@pytest.mark.slow
def test_list_knows_every_kind_in_singular_and_plural() -> None:
    whole = json.loads(good("list", "--json").stdout)
    assert {"full", "lora", "top", "bitfit"} <= set(whole["methods"])
    assert "classify" in whole["tasks"]
    assert "minilm" in whole["presets"]
    assert good("list", "method").stdout == good("list", "methods").stdout
    lines = good("list", "tasks").stdout.splitlines()[1:]
    starts = [line.index(said) for line, said in zip(lines, whole["tasks"].values(), strict=True)]
    assert len(set(starts)) == 1
    assert "Did you mean `methods`?" in bad("list", "metods")


def test_show_prints_settings_documentation_and_code() -> None:
    text = good("show", "methods", "lora").stdout
    assert "rank: int = 16" in text
    assert "Train low-rank updates" in text
    assert "def lora(" in text
    assert "def lora(" not in good("show", "method", "lora", "--no-source").stdout
    assert "It has no settings" in good("show", "methods", "full").stdout
    assert "SHA-256" in good("show", "preset", "minilm").stdout
    assert "Did you mean `lora`?" in bad("show", "methods", "loar")
    assert "Did you mean `lora`?" in bad("show", "loar")


@pytest.mark.slow
def test_show_needs_no_kind_where_the_name_says_it() -> None:
    assert "methods / lora" in good("show", "lora", "--no-source").stdout
    assert "lora" in good("show", "methods").stdout
    assert "`penjing show techniques distill` or `penjing show compressors distill`" in bad("show", "distill")
    assert "`nope` is neither a kind of plug-in" in bad("show", "nope")


def test_check_shows_findings_and_a_batch(file: Path) -> None:
    text = good("check", file, "--show-batch").stdout
    assert "ok    cost:" in text
    assert "[CLS]" in text
    assert "learned  the row's label:" in text
    found = json.loads(good("check", file, "--show-batch", "--json").stdout)
    assert found["batch"][0]["learned"] in ("billing", "delivery", "account")


def test_check_of_a_bad_spec_fails_and_names_it(file: Path) -> None:
    done = penjing("check", file, "--base", "/nowhere", "--show-batch")
    assert done.exit_code == 1
    assert "ERROR base: A base was wanted in the folder /nowhere" in done.stdout


@pytest.mark.slow
def test_selfcheck_shows_five_promises(file: Path) -> None:
    found = json.loads(good("selfcheck", file, "--json").stdout)
    assert [one["held"] for one in found] == [True] * 5


@pytest.mark.slow
def test_demo_compares_its_systems(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penjing.jobs import demo

    real, small = demo.tune, {"base": str(tiny("bert")), "steps": 1, "device": "cpu", "precision": "fp32"}
    monkeypatch.setattr(demo, "tune", lambda *, epochs, **given: real(**{**given, **small}))
    text = good("demo", "--out", tmp_path).stdout
    assert all(
        word in text for word in ("untuned base", "TF-IDF", "lora", "full", "Report:", "penjing predict")
    )


CALM = """
import socket, sys
def none(*args, **kwargs):
    print("NETWORK", args, file=sys.stderr)
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = none
socket.getaddrinfo = none
from penjing.cli import main
sys.argv = ["penjing", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_with_a_local_base_it_needs_neither_network_nor_home(file: Path, tmp_path: Path) -> None:
    away = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "PENJING_CACHE", "XDG_CACHE_HOME", "HF_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in away} | {"HOME": "/dev/null/nonexistent"}
    command = [sys.executable, "-c", CALM, "tune", str(file), "--method", "lora", "--set", "train.steps=1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    assert "Warning" not in done.stderr
    assert "tuned" in done.stdout


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path, tiny_csv: Path) -> None:
    environment = {**os.environ, "HOME": "/dev/null/nonexistent", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", CALM, "tune", "--base", "bert-base-chinese", "--train", str(tiny_csv)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("penjing: ")]
    assert len(told) == 1
    assert "the hub cannot be reached" in told[0]
    assert "give its path, or take a preset: minilm" in told[0]
    assert "Traceback" not in done.stderr
