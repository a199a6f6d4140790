"""A run's folder: made once, held by one process, read even when a kill tore it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penjing import run as runs
from penjing import spec as specs
from penjing.errors import NotSupported, SpecError
from penjing.files import CannotWrite, write_json
from penjing.jobs.train import resume
from penjing.run import Run

HOLD = """import fcntl, sys, time
stream = open(sys.argv[1], "a")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def make(out: Path, name: str | None = None, state: str = "open") -> Run:
    run = runs.new(specs.read(out=str(out), name=name, train="t.csv"))
    if state == "done":
        run.write("result.json", {"state": "done"})
    if state == "died":
        (run.folder / "error.txt").write_text("no room")
    return run


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Run]:
    run = make(tmp_path, "busy")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, run.folder / ".lock"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        yield run
        other.kill()


def test_the_spec_in_the_folder_repeats_the_run_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make(tmp_path, "a")
    assert run.spec.data.train == str(tmp_path / "t.csv")
    assert run.spec.train == specs.read().train


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a")
    with pytest.raises(SpecError, match=r"`name: a` was asked for; .*/a is there already.*--resume"):
        make(tmp_path, "a")


def test_a_command_in_an_error_can_be_copied_where_a_folder_has_a_blank(tmp_path: Path) -> None:
    make(tmp_path / "my runs", "盆 景")
    with pytest.raises(SpecError, match=f"`penjing tune --resume '{tmp_path}/my runs/盆 景'`"):
        make(tmp_path / "my runs", "盆 景")


def test_a_name_whose_folder_a_kill_left_empty_is_free(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".spec.yaml.123.aside").write_text("base: mini")
    assert make(tmp_path, "a").folder == tmp_path / "a"
    with pytest.raises(SpecError, match="is there already"):
        make(tmp_path, "a")


def test_a_name_whose_run_died_before_it_learned_anything_is_free(tmp_path: Path) -> None:
    run = make(tmp_path, "a", "died")
    run.write("lineage.json", {"data": {}})
    again = make(tmp_path, "a")
    assert (again.state, again.read("lineage.json")) == ("open", {})
    make(tmp_path, "b", "died").append("log.jsonl", {"step": 1})
    with pytest.raises(SpecError, match="is there already"):
        make(tmp_path, "b")


def test_of_a_run_that_died_it_is_told_why_it_has_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=r"it has none, as the run died: no room.*--resume"):
        _ = make(tmp_path, "a", "died").bundle


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    assert len({make(tmp_path).folder for _ in range(4)}) == 4


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(CannotWrite, match=r"runs/a was to be written"):
        make(tmp_path / "runs", "a")


@pytest.mark.parametrize("state", ["open", "died", "done"])
def test_the_state_is_read_from_the_folder(tmp_path: Path, state: str) -> None:
    assert make(tmp_path, state=state).state == state


def test_a_torn_last_line_is_left_out_and_a_line_separator_is_none(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.append("log.jsonl", {"step": 1, "note": "a\u2028b"})
    with (run.folder / "log.jsonl").open("a") as stream:
        stream.write('{"step": 2, "no')
    assert [line["step"] for line in run.lines("log.jsonl")] == [1]


def test_lines_after_a_step_are_forgotten(tmp_path: Path) -> None:
    run = make(tmp_path)
    for step in (1, 2, 3):
        run.append("log.jsonl", {"step": step})
    run.forget_after(2)
    assert [line["step"] for line in run.lines("log.jsonl")] == [1, 2]


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.folder / "result.json").write_text("{")
    with pytest.raises(NotSupported, match=r"result.json was to hold a JSON object"):
        _ = run.result


def test_two_processes_cannot_hold_one_run(busy: Run) -> None:
    assert busy.busy
    with pytest.raises(NotSupported, match="another process is writing it"), busy.held():
        pass


def test_a_run_is_free_again_when_its_process_is_gone(tmp_path: Path) -> None:
    run = make(tmp_path)
    with run.held():
        assert run.busy
    assert not run.busy


def test_holding_sweeps_what_a_killed_writer_left(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.folder / "last").mkdir()
    left = run.folder / "last" / ".state.safetensors.1.aside"
    left.write_text("x")
    with run.held():
        assert not left.exists()


def test_errors_inside_a_held_run_stay_what_they_are(tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(FileNotFoundError), run.held():
        raise FileNotFoundError("mine")


def test_the_newest_run_that_can_go_on_is_found(tmp_path: Path, busy: Run) -> None:
    for name, state in (("a", "open"), ("b", "died"), ("c", "done")):
        time.sleep(0.01)
        make(tmp_path, name, state)
    assert runs.newest(tmp_path, states=("open", "died")).folder.name == "b"
    assert runs.newest(tmp_path).folder.name == "c"


def test_a_search_that_was_killed_with_its_winner_is_no_run_to_go_on_with(tmp_path: Path) -> None:
    make(tmp_path, "a", "open")
    searched = make(tmp_path, "b", "open")
    (searched.folder / runs.SEARCH).write_text("space: {}")
    assert runs.newest(tmp_path, states=("open", "died")).folder.name == "a"
    with pytest.raises(NotSupported, match=r"search --resume .*b`"):
        resume(searched.folder)
    write_json(searched.folder / "result.json", {})
    assert runs.newest(tmp_path).folder.name == "b"


def test_when_no_run_can_go_on_those_there_are_named(tmp_path: Path) -> None:
    make(tmp_path, "c", "done")
    with pytest.raises(NotSupported, match=r"open or died was wanted below .*; there are 1: c \(done\)"):
        runs.newest(tmp_path, states=("open", "died"))


def test_a_folder_that_is_no_run_names_runs_inside(tmp_path: Path) -> None:
    make(tmp_path, "a")
    with pytest.raises(NotSupported, match=r"it has no spec.yaml. Runs inside it: .*/a"):
        runs.open_run(tmp_path)


@pytest.mark.slow
def test_a_search_without_a_winner_says_how_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").touch()
    with pytest.raises(NotSupported, match=f"`penjing search --resume {tmp_path}` goes on"):
        runs.open_run(tmp_path)


def test_a_run_says_what_it_is(tuned: Callable[..., Any], tmp_path: Path) -> None:
    assert repr(make(tmp_path, "a")) == f"Run('{tmp_path}/a': open)"
    assert repr(tuned()).endswith(" on valid rows)")
    assert ": done, accuracy 0." in repr(tuned()) or ": done, accuracy 1." in repr(tuned())
