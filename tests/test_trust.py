"""Code that a bundle names runs only where the caller allows its package."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing import bundle as bundles
from penjing import load, plugin, trust
from penjing.errors import NotSupported
from penjing.models.heads import ClassHead
from penjing.models.load import load as load_base
from penjing.models.model import Model

IDEAS = """
import pathlib
from penjing.tasks.classify import classify
pathlib.Path(__file__).with_name("ran").touch()
def own():
    return classify()
"""


@pytest.fixture
def strange(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Path]]:
    """A bundle whose task is a function of the package `stranger`, and the file that its import leaves."""
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "__init__.py").write_text(IDEAS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trust, "_allowed", set())
    base = load_base(str(tiny("bert")))
    torch.manual_seed(0)
    model = Model(base.trunk, ClassHead(base.width, 2, pooling="mean", dropout=0.0), base.way)
    about = {"labels": ["a", "b"], "max_length": 32, "precision": "fp32", "method": "full", "chosen": {}}
    card: dict[str, Any] = {"task": "stranger.own", **about}
    bundles.save(tmp_path / "b", model=model, base=base, saves="full", card=card)
    yield tmp_path / "b", tmp_path / "stranger" / "ran"
    sys.modules.pop("stranger", None)


def test_a_strangers_code_is_not_imported_and_the_error_says_how_to_allow_it(
    strange: tuple[Path, Path],
) -> None:
    folder, ran = strange
    with pytest.raises(NotSupported) as error:
        load(folder, device="cpu")
    for part in (str(folder), "`stranger.own` (tasks)", "Nothing was imported", 'trust=["stranger"]'):
        assert part in str(error.value)
    with pytest.raises(NotSupported, match="Nothing was imported"):
        load(folder, device="cpu", trust=["strange", "stranger.other"])
    assert not ran.exists()


def test_a_package_that_the_caller_trusts_is_imported(strange: tuple[Path, Path]) -> None:
    folder, ran = strange
    assert load(folder, device="cpu", trust=["stranger"]).predict(["hello"])
    assert ran.exists()
    with pytest.raises(NotSupported):  # it was for that call
        load(folder, device="cpu")


def test_what_a_spec_of_this_process_named_may_be_named_by_a_bundle(strange: tuple[Path, Path]) -> None:
    folder, _ = strange
    plugin.choice("stranger.own", kind="tasks", key="task")
    assert load(folder, device="cpu").predict(["hello"])


@pytest.mark.slow
def test_the_command_line_takes_the_packages_to_trust(strange: tuple[Path, Path]) -> None:
    folder, ran = strange

    def predicted(*options: str) -> Any:
        start = f"import sys; sys.path.insert(0, {str(ran.parent.parent)!r})"
        code = f"{start}; from penjing.cli import app; app()"
        command = [sys.executable, "-c", code, *options, "predict", str(folder), "hello", "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = predicted()
    assert refused.returncode != 0
    assert "penjing --trust stranger" in refused.stderr
    assert not ran.exists()
    assert json.loads(predicted("--trust", "stranger").stdout)["label"] in ("a", "b")
