"""Versions and pointers on disk."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penjing.cli import app
from penjing.errors import NotSupported, SpecError
from penjing.serve import registry
from penjing.serve.asked import Unknown
from penjing.serve.registry import Share, add, find, names, point, read_route, roll_back, share, versions


def bundle(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps({"is": content}), encoding="utf-8")
    (folder / "head.safetensors").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for content in ("one", "two", "three"):
        add(tmp_path / "serving", "support", bundle(tmp_path / content, content))
    return tmp_path / "serving"


def test_versions_are_numbered_and_the_first_is_live(root: Path) -> None:
    assert [str(v) for v in versions(root, "support")] == ["support@1", "support@2", "support@3"]
    assert names(root) == ["support"]
    assert find(root, "support")[0].number == find(root, "support@live")[0].number == 1
    assert find(root, "support@3")[1] == "pinned"
    assert (find(root, "support@2")[0].folder / "head.safetensors").read_text() == "two"


def test_the_same_bundle_again_is_the_version_it_is(root: Path, tmp_path: Path) -> None:
    again = add(root, "support", tmp_path / "two", live=True)
    assert (again.number, len(versions(root, "support")), read_route(root, "support").live) == (2, 3, 1)
    new = add(root, "support", bundle(tmp_path / "four", "four"), live=True)
    assert (new.number, read_route(root, "support").live) == (4, 4)


def test_a_version_outlives_the_run_it_came_from(root: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "head.safetensors").unlink()
    assert (find(root, "support")[0].folder / "head.safetensors").read_text() == "one"


def test_rolling_back_returns_through_everything_that_was_live(root: Path) -> None:
    for number in (2, 3):
        point(root, "support", number)
    assert roll_back(root, "support").live == 2
    assert roll_back(root, "support").live == 1
    with pytest.raises(Unknown, match="nothing to return to"):
        roll_back(root, "support")
    why = [(turn["version"], turn["why"]) for turn in read_route(root, "support").history]
    assert why == [(1, "added"), (2, "promoted"), (3, "promoted"), (2, "rolled back"), (1, "rolled back")]


def test_a_canary_ends_when_its_version_is_live_or_live_is_rolled_back(root: Path) -> None:
    share(root, "support", "shadow", 3, 1)
    assert share(root, "support", "canary", 2, 0.1).canary == Share(2, 0.1)
    promoted = point(root, "support", 2)
    assert (promoted.canary, promoted.shadow) == (None, Share(3, 1.0))
    share(root, "support", "canary", 3, 0.5)
    assert roll_back(root, "support").canary is None


def test_an_alias_of_ones_own_leaves_live_alone(root: Path) -> None:
    route = point(root, "support", 3, alias="staging")
    assert (route.live, route.before) == (1, ())
    assert find(root, "support@staging")[0].number == 3


@pytest.mark.parametrize(
    "asked", ["suport", "support@9", "support@prod", "../support", "", "support@1@2", "@live"]
)
def test_an_unknown_name_is_unknown_and_never_another(root: Path, asked: str) -> None:
    with pytest.raises(Unknown):
        find(root, asked)


def test_the_nearest_name_is_offered(root: Path) -> None:
    with pytest.raises(Unknown, match="Did you mean `support`"):
        find(root, "suport")


def test_who_works_at_a_registry_is_told_what_it_has(root: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(app, [*words])
        assert done.exit_code == 1
        return done.stderr

    text = said("promote", "suport@1", "--registry", str(root))
    assert f"in the registry {root}; it has support. Did you mean `support`?" in text
    assert "there is no such folder" in said("roll-back", "support", "--registry", str(tmp_path / "none"))


def test_what_cannot_be_proved_is_not_added(root: Path, tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        raise NotSupported("golden inputs give other answers")

    with pytest.raises(NotSupported, match="golden"):
        add(root, "support", bundle(tmp_path / "bad", "bad"), prove=refuse)
    with pytest.raises(NotSupported, match=r"has no card\.json"):
        add(root, "support", tmp_path / "nothing")
    with pytest.raises(SpecError, match="name is letters"):
        add(root, "../up", tmp_path / "one")
    with pytest.raises(SpecError, match="share of 0 to 1"):
        share(root, "support", "canary", 2, 1.5)
    with pytest.raises(SpecError, match="An alias is a word"):
        point(root, "support", 2, alias="7")
    assert len(versions(root, "support")) == 3


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_route(root: Path) -> None:
    code = (
        "import sys, pathlib\nfrom penjing.serve.registry import point\nroot = pathlib.Path(sys.argv[1])\n"
        "print('on', flush=True)\nwhile True:\n    for n in (1, 2, 3): point(root, 'support', n)\n"
    )
    for trial in range(6):
        writer = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.01 + 0.017 * trial)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        route = read_route(root, "support")
        assert route.live in (1, 2, 3)
        assert route.history[-1]["version"] == route.live
        assert point(root, "support", 1).live == 1, "the lock of a killed writer is free"
    assert not [f.name for f in (root / "support").iterdir() if "aside" in f.name]
    assert registry.LIVE in read_route(root, "support").aliases


def test_an_export_is_told_from_a_bundle(root: Path, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    for name in ("parity.json", "labels.json", "model.onnx"):
        (tmp_path / "export" / name).write_text("{}", encoding="utf-8")
    with pytest.raises(NotSupported, match=r"an export, for other libraries: give the bundle .* --with onnx"):
        add(root, "export", tmp_path / "export")
