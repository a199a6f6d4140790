"""Plug-ins are found in their folders, and their signatures are their schema."""

import sys
from pathlib import Path

import pytest

from penjing import plugin
from penjing.errors import SpecError
from penjing.plugin import Choice

OWN = '''
"""Mine."""
from typing import Literal
from penjing.records import Method

def warp(*, rank: int = 4, kind: Literal["a", "b"] = "a", need: float) -> Method:
    """Warp it."""
    return Method("warp", lambda trunk: trunk, lr=1e-3, saves="full")

def wrong() -> int:
    return 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "ideas_of_mine.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("ideas_of_mine", None)
    return "ideas_of_mine"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in plugin.KINDS if plugin.found(k)])
def test_every_built_in_plug_in_has_a_summary_and_builds_or_says_what_it_needs(kind: str) -> None:
    for name, plug in plugin.found(kind).items():
        assert plug.summary
        needs = [s for s, one in plugin.signature(kind, name).items() if one.required]
        if not needs:
            assert (
                type(plugin.build(kind, Choice(name, {}))).__name__ == plugin.KINDS[kind].rpartition(".")[2]
            )


def test_listing_imports_nothing() -> None:
    before = set(sys.modules)
    plugin.found("methods")
    plugin.signature("methods", "lora")
    plugin.about("methods", "lora")
    assert not [name for name in set(sys.modules) - before if name.startswith("penjing.methods")]


def test_a_choice_has_every_setting_filled_in() -> None:
    picked = plugin.choice({"lora": {"rank": "8"}}, kind="methods", key="method")
    assert picked.settings["rank"] == 8
    assert picked.settings["targets"] == "all"
    assert plugin.choice(picked.written(), kind="methods", key="method") == picked


def test_numbers_are_welcome_where_names_are_wanted() -> None:
    picked = plugin.choice({"classify": {"labels": [1, 2]}}, kind="tasks", key="task")
    assert picked.settings["labels"] == ["1", "2"]


def test_a_function_of_ones_own_is_reached_and_checked_by_its_signature(own: str) -> None:
    picked = plugin.choice({f"{own}.warp": {"need": "1e-3"}}, kind="methods", key="method")
    assert picked.settings == {"rank": 4, "kind": "a", "need": 1e-3}
    assert plugin.build("methods", picked).name == "warp"
    assert plugin.about("methods", f"{own}.warp").doc == "Warp it."


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({}, "`{}.warp.need` must be given (float)"),
        ({"need": 1, "rnak": 1}, "`{}.warp.rnak` is not a setting of {}.warp. Did you mean `rank`?"),
        ({"need": 1, "kind": "c"}, "`{}.warp.kind` must be Literal['a', 'b']; it is 'c'"),
    ],
)
def test_wrong_settings_of_ones_own_function_are_named(
    own: str, settings: dict[str, object], part: str
) -> None:
    with pytest.raises(SpecError) as error:
        plugin.choice({f"{own}.warp": settings}, kind="methods", key="method")
    assert part.replace("{}", own) in str(error.value)


def test_a_function_that_gives_something_else_is_refused(own: str) -> None:
    with pytest.raises(SpecError, match=r"must give a penjing.records.Method; it gave a int"):
        plugin.build("methods", Choice(f"{own}.wrong", {}))


@pytest.mark.slow
def test_a_plug_in_in_the_present_folder_is_found_by_the_command(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = 'def still(*, strength: float = 0.5):\n    """Do nothing."""\n'
    (tmp_path / "my_own_ideas.py").write_text(code, encoding="utf-8")
    command = Path(sys.executable).with_name("penjing")
    words = [str(command), "show", "techniques", "my_own_ideas.still", "--no-source"]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "strength: float = 0.5" in found.stdout, found.stderr
