"""Weighing: what is asked of the process whose memory is measured."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penjing.chains import weighed
from penjing.data.parts import rows_of


@pytest.mark.parametrize(("saves", "wanted"), [("peft", "/moved/base"), ("full", None), ("ensemble", None)])
def test_memory_is_measured_over_a_base_that_has_moved_too(
    saves: str, wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def run(command: list[str], **how: Any) -> None:
        asked.update(json.loads(Path(command[-2]).read_text("utf-8")))
        Path(command[-1]).write_text('{"mib": 12.5}')

    monkeypatch.setattr(weighed.subprocess, "run", run)
    bundle: Any = SimpleNamespace(
        folder=Path("/runs/a/best"),
        card={"saves": saves},
        base=SimpleNamespace(name="/moved/base"),
        task=SimpleNamespace(sees=False),
    )
    assert weighed.peak_of(bundle, rows_of(["late"])) == 12.5
    assert asked == {"bundle": "/runs/a/best", "base": wanted, "texts": ["late"]}
