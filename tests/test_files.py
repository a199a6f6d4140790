"""Writing is whole or not at all, and reading never sees a mixture."""

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing import files
from penjing.errors import SpecError
from penjing.files import CannotWrite, alone
from penjing.jobs.export import export
from penjing.jobs.index import index
from penjing.jobs.merge import merge
from penjing.jobs.sentences import sentences
from penjing.jobs.vocabulary import extend_tokenizer, train_tokenizer


def no_room(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_replaces_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": "盆"})
    assert "盆" in path.read_text("utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_numbers_of_a_list_share_a_line_and_all_values_come_back(tmp_path: Path) -> None:
    value = {
        "counts": [[1, 2], [3, -4.5e-7]],
        "mixed": [1, "two"],
        "text": "[\n1,\n2]",
        "empty": [],
        "deep": {"a": [7]},
    }
    files.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == value
    lines = [line.strip() for line in text.splitlines()]
    assert {"[1, 2],", "[3, -4.5e-07]", '"a": [7]'} <= {*lines}


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_write_without_room_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    monkeypatch.setattr(os, call, no_room)
    with pytest.raises(CannotWrite) as error:
        files.write_text(path, "new")
    text = str(error.value)
    assert all(part in text for part in (str(path), "No space left", "MiB free", "whole", "Make room")), text
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_library_that_only_quotes_the_system_is_told_the_same_way(tmp_path: Path) -> None:
    def write(aside: Path) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(CannotWrite, match="No space left on device"):
        files.write_with(tmp_path / "a", write)


def test_other_errors_of_a_writer_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), files.new_folder(tmp_path / "best"):
        raise ValueError("mine")
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_without_room_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "best"
    with files.new_folder(target) as aside:
        (aside / "a").write_text("old")
    real = os.rename

    def second_fails(source: Any, goal: Any) -> None:
        if Path(goal) == target and ".aside" in str(source):
            no_room()
        real(source, goal)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(CannotWrite), files.new_folder(target) as aside:
        (aside / "a").write_text("new")
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "best"
    (tmp_path / ".best.old").mkdir()
    (tmp_path / ".best.old" / "a").write_text("old")
    (tmp_path / ".best.aside").mkdir()
    assert (files.standing(target) / "a").read_text() == "old"  # a reader changes nothing
    assert not target.exists()
    with files.new_folder(target) as aside:
        (aside / "a").write_text("new")
    assert (target / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize(
    "job",
    [
        lambda out: merge("runs/none", out),
        lambda out: index("runs/none", "corpus.txt", out),
        lambda out: sentences("runs/none", out),
        lambda out: export("runs/none", out, to="hf"),
        lambda out: train_tokenizer("corpus.txt", out),
        lambda out: extend_tokenizer("none", "corpus.txt", out),
    ],
    ids=["merge", "index", "sentences", "export", "train_tokenizer", "extend_tokenizer"],
)
def test_a_job_that_makes_a_folder_never_replaces_one_of_other_files(
    job: Callable[[Path], Any], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SpecError, match=r"something else is there, such as thesis\.txt\. Give a new folder"):
        job(tmp_path)
    with pytest.raises(SpecError, match="something else is there"):
        job(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_was_made_in_a_folder_before_may_be_replaced(tmp_path: Path) -> None:
    files.refuse_taken(tmp_path / "none", "card.json")
    files.refuse_taken(tmp_path)
    (tmp_path / "card.json").write_text("{}")
    files.refuse_taken(tmp_path, "card.json")
    with pytest.raises(SpecError, match="something else is there"):
        files.refuse_taken(tmp_path)


def test_sweep_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".state.safetensors.123.aside").write_text("x")
    (tmp_path / ".best.aside").mkdir()
    (tmp_path / "keep").write_text("x")
    files.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["keep"]


def test_a_hash_is_of_what_the_file_holds_now(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    first = files.sha256(path)
    files.write_text(path, "two")
    assert files.sha256(path) != first


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")
def test_a_really_full_disk_leaves_the_last_good_state(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("no right to mount here")
    try:
        small, large = {"a": np.zeros(100)}, {"a": np.zeros(100_000)}
        files.write_with(disk / "s.safetensors", lambda aside: save_file(small, aside))
        before = (disk / "s.safetensors").read_bytes()
        with pytest.raises(CannotWrite, match="No space left"):
            files.write_with(disk / "s.safetensors", lambda aside: save_file(large, aside))
        assert (disk / "s.safetensors").read_bytes() == before
        assert [p.name for p in disk.iterdir()] == ["s.safetensors"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_unwritable_cache_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "file" / "cache"))
    assert files.cache_folder() is None


def test_a_missing_home_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PENJING_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert files.cache_folder() is None


def test_a_lock_that_is_made_anew_has_the_rights_that_were_asked_for(tmp_path: Path) -> None:
    with alone(tmp_path / "below" / ".lock", rights=0o600) as held:
        assert held
    assert (tmp_path / "below" / ".lock").stat().st_mode & 0o777 == 0o600
