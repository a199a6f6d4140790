"""Runners: what cannot be is told before a trial begins; Ray carries the same trials to the same scores."""

import builtins
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import tickets
from penjing.chains.asked import Asked, read
from penjing.chains.runners import on_ray
from penjing.chains.search import search
from penjing.errors import NotSupported, SpecError


@pytest.fixture
def asked() -> Asked:
    return read({"train": {"lr": {"log": [1e-4, 1e-2]}}})


@pytest.mark.slow
def test_an_address_that_is_none_of_rays_is_refused(asked: Asked) -> None:
    with pytest.raises(SpecError, match=r"`--on` takes ray://HOST:PORT .* it is `http://x`"):
        on_ray("http://x", asked)


def test_without_ray_the_line_that_installs_it_is_told(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(
        NotSupported, match=r"needs Ray; it is not installed.*pip install 'penjing\[cluster\]'"
    ):
        on_ray("ray", asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `cluster`)")
def test_ray_gives_the_scores_and_decisions_of_this_process(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    rows = "".join(f'"{text}",{label}\n' for text, label in tickets(60))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    values = {
        "base": str(tiny("bert")),
        "data": {"train": str(tmp_path / "t.csv"), "valid_share": 0.3},
        "train": {"steps": 4, "evals": 2, "lr": {"log": [1e-3, 1e-1]}},
        "method": "bitfit",
        "search": {"trials": 4, "reduction": 2, "first_share": 0.5, "combine": False, "at_once": 2},
        "device": "cpu",
        "precision": "fp32",
        "out": str(tmp_path),
    }
    here, there = search(values, name="here"), search(values, name="there", on="ray")

    def told(run: Any) -> list[Any]:
        timed = ("seconds", "latency_ms")
        lines = run.lines("search.jsonl")
        return [{k: v for k, v in line.get("ended", line).items() if k not in timed} for line in lines]

    assert told(there) == told(here)
