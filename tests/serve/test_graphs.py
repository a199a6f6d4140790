"""Bundles whose trunk is a graph of OpenVINO or ONNX Runtime are served, and refused, as all others are."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressed import held_of, rehearsal_of, reopened, shrink
from penjing.compressors.onnx import onnx
from penjing.compressors.openvino import openvino
from penjing.models import compiled
from penjing.serve.asked import Closing
from penjing.serve.batcher import Batcher
from penjing.serve.models import Models
from serving import TEXTS, alone, made, near, registered

Tiny = Callable[..., Path]
pytestmark = [pytest.mark.slow, pytest.mark.long]  # two graphs are traced
STEPS: dict[str, Any] = {"openvino": lambda: openvino(to="fp32"), "onnxruntime": onnx}


@pytest.fixture(scope="module")
def root(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of a model of each runtime, and a plain one."""
    work = tmp_path_factory.mktemp("graphs")
    for runtime, step in STEPS.items():
        pytest.importorskip(runtime)
        held = held_of(tiny("bert"))
        graph = shrink(step(), held, rehearsal_of(held, TEXTS)).held
        registered(work / "serving", runtime, reopened(graph, work / runtime).folder)
    registered(work / "serving", "plain", made(work / "plain", tiny("bert")))
    return work / "serving"


def test_graphs_answer_in_mixed_traffic_as_they_do_alone(root: Path) -> None:
    models = Models(root, device="cpu")
    batcher = Batcher(models.lanes, tokens=60)
    names = [*STEPS, "plain"] * 4
    asked = [(name, TEXTS[i % 3 : 1 + i % 3 + i % 4]) for i, name in enumerate(names)]
    opened = {name: models.open(models.choose(name).version) for name in {*names}}
    jobs = [batcher.submit(opened[name], "predict", texts, within_s=60) for name, texts in asked]
    batcher.start()
    for (name, texts), job in zip(asked, jobs, strict=True):
        assert near(alone(opened[name], texts), job.future.result(60)[0]), name
    assert batcher.close(within_s=20)


@pytest.mark.parametrize("runtime", STEPS)
def test_a_graph_that_is_another_one_is_refused(root: Path, tmp_path: Path, runtime: str) -> None:
    shutil.copytree(root / runtime, tmp_path / runtime)
    file = compiled.weights_at(tmp_path / runtime / "1" / "trunk")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)
    models = Models(tmp_path, device="cpu")
    with pytest.raises(Closing, match="refused when it was opened") as said:
        models.open(models.choose(runtime).version)
    assert "SHA-256" in str(said.value.__cause__)


@pytest.mark.parametrize(("runtime", "extra"), [("openvino", "fast"), ("onnxruntime", "export")])
def test_without_its_runtime_a_graph_is_refused_with_the_line_that_installs_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    models = Models(root, device="cpu")
    with pytest.raises(Closing) as said:
        models.open(models.choose(runtime).version)
    assert f"pip install 'penjing[{extra}]'" in str(said.value.__cause__)
