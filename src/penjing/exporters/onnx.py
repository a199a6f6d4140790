"""An ONNX graph with free batch and length, and the tokenizer's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import SpecError
from penjing.exporter import Exporter, Sent, refuse_stored, wanted
from penjing.exporters.hf import save_words
from penjing.files import write_json
from penjing.models.padded import Padded, Run, Tables, padded, ports_of
from penjing.models.tracing import hushed, onnx_of

FILE = "model.onnx"
LEAST, MOST = 18, 23  # what torch's exporter and today's ONNX Runtime have in common


def onnx(*, opset: int = 18) -> Exporter:
    """model.onnx, for ONNX Runtime and all that reads ONNX (browser, C#, Java).

    opset: version of ONNX's operators. Takes `penjing[export]`.
    """
    if not LEAST <= opset <= MOST:
        raise SpecError(f"`onnx.opset` must be {LEAST} to {MOST}; it is {opset}. {LEAST} runs everywhere.")

    def fits(sent: Sent) -> Sequence[str]:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            wanted(package, "export", "An ONNX graph")
        return graph_fits(sent, "onnx")

    def write(sent: Sent, folder: Path) -> None:
        write_graph(sent, folder, opset)
        save_inputs(sent, folder)

    return Exporter(
        "onnx",
        fits,
        write,
        opened,
        lambda sent: f"onnxruntime.InferenceSession('{{folder}}/{FILE}')",
        needs=("onnx", "onnxscript", "onnxruntime"),
    )


def graph_fits(sent: Sent, target: str) -> Sequence[str]:
    """What a graph holds, and what it does not, in words."""
    refuse_stored(sent, target)
    ports = ports_of(sent.held.base, sent.held.model.trunk, sent.held.model.head)
    if ports.speaks:
        return ("the graph scores next words of whole rows; it has no cache and writes nothing by itself",)
    return ()


def model_of(sent: Sent) -> Padded:
    """The padded model that is traced."""
    held = sent.held
    return padded(held.base, held.model.trunk, held.model.head)


def write_graph(sent: Sent, folder: Path, opset: int) -> None:
    """Write model.onnx."""
    model = model_of(sent)
    graph = onnx_of(model, sent.held.base.limit, outputs=model.ports.outputs, opset=opset)
    with hushed():
        _named(graph.model.graph, model.ports.outputs)
        graph.save(str(folder / FILE))


def _named(graph: Any, outputs: tuple[str, ...]) -> None:
    """Call the free axes what they are: batch, length, answer."""
    names: dict[str, str] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            word = "batch" if axis == 0 else "answer" if value.name.startswith("decoder") else "length"
            if not isinstance(size, int):
                names.setdefault(str(size), word)
    import onnx_ir as ir

    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                [size if isinstance(size, int) else names.get(str(size), str(size)) for size in value.shape]
            )


def save_inputs(sent: Sent, folder: Path) -> None:
    """Write beside a graph what turns texts into its inputs and its outputs into words: tokenizer or image
    processor, and labels.json."""
    held = sent.held
    if held.base.way.sight is not None:
        held.base.way.sight.save(folder)
    else:
        save_words(sent, folder)
    write_json(folder / "labels.json", labels_of(sent))


def labels_of(sent: Sent) -> dict[str, Any]:
    """What the numbers of a graph stand for, as JSON."""
    held = sent.held
    ports = ports_of(held.base, held.model.trunk, held.model.head)
    settings = sent.card["task"].get(held.task.name, {}) if isinstance(sent.card["task"], dict) else {}
    moves = getattr(held.model.head, "transitions", None)
    return {
        "task": held.task.name,
        "settings": {**settings},
        "labels": list(held.labels),
        "multi_label": held.task.multi_label,
        "chosen": dict(sent.card["chosen"]),
        "max_length": held.max_length,
        "pad": ports.pad,
        "inputs": list(ports.inputs),
        "outputs": list(ports.outputs),
        **({"transitions": moves.tolist()} if moves is not None else {}),
    }


def opened(sent: Sent, folder: Path) -> Run:
    """ONNX Runtime on one thread a core, as the file is."""
    runtime = wanted("onnxruntime", "export", "ONNX Runtime")
    import torch

    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])

    def run(tables: Tables) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(tables))
        return found

    return run
