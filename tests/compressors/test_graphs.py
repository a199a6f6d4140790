"""A trunk as a graph of another runtime answers as it did, alone and in company, and a bundle holds it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressed import answers, held_of, rehearsal_of, reopened, shrink
from conftest import tickets
from penjing.compressors.int8 import int8
from penjing.compressors.onnx import onnx
from penjing.compressors.openvino import openvino
from penjing.engine.scoring import outputs
from penjing.errors import NotSupported

TEXTS = [text for text, _ in tickets(12)]
Tiny = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.parametrize(("to", "off"), [("fp32", 1e-4), ("weights", 0.1), ("int8", 0.3)])
def test_a_graph_answers_as_the_trunk_did_and_a_bundle_holds_it(
    tiny: Tiny, tmp_path: Path, to: Any, off: float
) -> None:
    pytest.importorskip("openvino")
    if to != "fp32":
        pytest.importorskip("nncf")
    held = held_of(tiny("bert"))
    old = answers(held, TEXTS)
    made = shrink(openvino(to=to), held, rehearsal_of(held, TEXTS)).held
    found = answers(made, TEXTS)
    assert float((found - old).abs().max()) <= off * float(old.abs().max())
    alone = torch.cat([answers(made, [text]) for text in TEXTS[:3]])
    torch.testing.assert_close(alone, found[:3], rtol=1e-3, atol=1e-3)
    opened = reopened(made, tmp_path / "bundle")
    assert opened.card["stored"] == {"openvino": to}
    torch.testing.assert_close(outputs(opened.model, opened.tokens(TEXTS)), found, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_an_onnx_graph_answers_as_the_trunk_did_and_a_bundle_holds_it(
    tiny: Tiny, tmp_path: Path, family: str
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    held = held_of(tiny(family))
    old = answers(held, TEXTS)
    made = shrink(onnx(), held, rehearsal_of(held, TEXTS)).held
    found = answers(made, TEXTS)
    torch.testing.assert_close(found, old, rtol=1e-4, atol=1e-4)
    alone = torch.cat([answers(made, [text]) for text in TEXTS[:3]])
    torch.testing.assert_close(alone, found[:3], rtol=1e-4, atol=1e-4)
    opened = reopened(made, tmp_path / "bundle")
    assert opened.card["stored"] == {"onnxruntime": "fp32"}
    assert (tmp_path / "bundle" / "trunk" / "model.onnx").is_file()
    torch.testing.assert_close(outputs(opened.model, opened.tokens(TEXTS)), found, rtol=1e-5, atol=1e-5)


def test_layers_of_few_bits_are_no_graph(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    low = shrink(int8(), held, rehearsal_of(held, TEXTS)).held
    for graph in (openvino(to="fp32"), onnx()):
        with pytest.raises(NotSupported, match="held as int8"):
            shrink(graph, low, rehearsal_of(low, TEXTS))
