"""The five promises hold on tiny bases, and a broken one is seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing.jobs import selfcheck as checks
from penjing.jobs.selfcheck import selfcheck


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), [("bert", "full"), ("gpt2", "lora"), ("t5", "top")])
def test_all_five_promises_hold(
    small: dict[str, Any], tiny: Callable[..., Path], family: str, method: str
) -> None:
    settings = {"top": {"layers": 1}} if method == "top" else method
    found = selfcheck(small, base=str(tiny(family)), method=settings)
    assert len(found) == 5
    assert [d for d in found if not d.held] == []


@pytest.mark.slow
def test_a_broken_promise_is_seen(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks.keep.restore

    def forgets(run: Any, model: Any, optimizer: Any, techniques: Any) -> Any:
        counters = real(run, model, optimizer, techniques)
        for state in optimizer.state.values():
            state["exp_avg"] = torch.zeros_like(state["exp_avg"])
        return counters

    monkeypatch.setattr(checks.keep, "restore", forgets)
    assert [d.promise for d in selfcheck(small) if not d.held] == ["resumed = uninterrupted"]
