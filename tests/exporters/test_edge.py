"""The program beside an edge folder's graph, without the graph."""

import importlib.util
import io
import json
import types
from typing import Any

import pytest

from penjing.exporters.edge import RUNNER


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """run.py with a model that answers each text by itself."""
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("run", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    echo = types.SimpleNamespace(about={"task": "classify"}, answer=lambda texts: texts)
    monkeypatch.setattr(module, "Model", lambda folder: echo)
    monkeypatch.setattr("sys.argv", ["run.py"])
    return module


def test_lines_of_windows_are_read_as_penjing_predict_reads_them(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff包裹 late\r\n\r\nlost\r\n"))
    program.main()
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ["包裹 late", "lost"]
