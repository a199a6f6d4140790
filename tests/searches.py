"""A search of seconds, for the tests of what a search is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import tickets
from penjing import Run

SPACE: dict[str, Any] = {
    "choose": [{"lora": {"rank": {"choose": [2, 4]}}}, {"top": {"layers": {"int": [0, 2]}}}]
}


def asked(tiny: Callable[..., Path], folder: Path, **changes: Any) -> dict[str, Any]:
    """A search of seconds: trials of four steps, halved once."""
    for name, seed in (("train", 0), ("test", 7)):
        rows = "".join(f'"{text}",{label}\n' for text, label in tickets(60, seed=seed))
        (folder / f"{name}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    return {
        "base": str(tiny("bert")),
        "data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "valid_share": 0.3},
        "train": {"steps": 4, "batch": 16, "evals": 2, "lr": {"log": [1e-3, 1e-1]}},
        "method": SPACE,
        "search": {"trials": 4, "reduction": 2, "first_share": 0.5, "combine": False},
        "device": "cpu",
        "precision": "fp32",
        "out": str(folder / "runs"),
        **changes,
    }


def lines(run: Run) -> list[dict[str, Any]]:
    return run.lines("search.jsonl")


def decisions(run: Run) -> list[Any]:
    """What was begun and what came of it, without times."""
    timed = ("seconds", "latency_ms")
    return [{k: v for k, v in line.get("ended", line).items() if k not in timed} for line in lines(run)]
