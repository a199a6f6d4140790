"""OpenVINO's own form (IR): the fastest way here on a CPU of Intel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.exporter import Exporter, Sent, wanted
from penjing.exporters.onnx import graph_fits, model_of, save_inputs
from penjing.models.padded import Run, Tables, ports_of
from penjing.models.tracing import hushed, program_of, told

FILE = "model.xml"


def openvino(*, half: bool = False) -> Exporter:
    """model.xml and model.bin, which OpenVINO's `read_model` opens.

    half: keep the weights in fp16, half the size; they are computed with in fp32. Takes `penjing[fast]`.
    """

    def fits(sent: Sent) -> Sequence[str]:
        wanted("openvino", "fast", "OpenVINO's form")
        return graph_fits(sent, "openvino")

    def write(sent: Sent, folder: Path) -> None:
        library: Any = wanted("openvino", "fast", "OpenVINO's form")
        model = model_of(sent)

        def made() -> Any:
            with hushed():
                return library.convert_model(program_of(model, sent.held.base.limit))

        graph = told(made, model, "OpenVINO")
        for port, name in zip(graph.inputs, model.ports.inputs, strict=True):
            port.tensor.set_names({name})
        for port, name in zip(graph.outputs, model.ports.outputs, strict=True):
            port.tensor.set_names({name})
        library.save_model(graph, str(folder / FILE), compress_to_fp16=half)
        save_inputs(sent, folder)

    return Exporter(
        "openvino",
        fits,
        write,
        _opened,
        lambda sent: f"openvino.Core().compile_model('{{folder}}/{FILE}', 'CPU')",
        needs=("openvino",),
    )


def _opened(sent: Sent, folder: Path) -> Run:
    import torch

    library: Any = wanted("openvino", "fast", "OpenVINO's form")
    held = sent.held
    ports = ports_of(held.base, held.model.trunk, held.model.head)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = library.Core().compile_model(str(folder / FILE), "CPU", settings)

    def run(tables: Tables) -> list[np.ndarray]:
        found = compiled(dict(tables))
        return [np.array(found[name]) for name in ports.outputs]

    return run
