"""A trunk as a graph of another runtime, in the trunk's place: padded tables in, states out.

The graph (`models.compiling` makes it) is kept beside the config: model.xml and model.bin for OpenVINO,
model.onnx for ONNX Runtime. `Compiled` answers as the trunk of a padded base does, so every task runs on it;
it has no weights that torch could train.
"""

from __future__ import annotations

import importlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.files import write_json
from penjing.models.packing import Way

XML, BIN, ONNX, ABOUT = "model.xml", "model.bin", "model.onnx", "compiled.json"
REASON = "it runs in another runtime, which wants tables"
Kind = Literal["int8", "weights", "fp32"]
Ask = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Graph:
    """A trunk in a runtime's own form. `write(folder)` leaves its files there; `start(threads)` compiles it,
    and gives what makes a function of tables for each thread that asks."""

    runtime: Literal["openvino", "onnxruntime"]
    write: Callable[[Path], None]
    start: Callable[[int], Callable[[], Ask]]


@dataclass(frozen=True)
class States:
    """What comes of a pass, as transformers gives it."""

    last_hidden_state: Tensor


class Compiled(nn.Module):
    """`trunk(input_ids, attention_mask, token_type_ids)` by a compiled graph; the graph is compiled when it
    is first asked."""

    def __init__(self, graph: Graph, config: Any, inputs: tuple[str, ...], kind: str, n_weights: int) -> None:
        super().__init__()
        self.graph, self.config, self.inputs, self.made = graph, config, inputs, kind
        self.n_weights = n_weights
        self.here = nn.Parameter(torch.zeros(()))  # so that it is known where and in which type it works
        self._local = threading.local()  # OpenVINO's requests are one thread's each
        self._started: Callable[[], Ask] | None = None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> States:
        """(S, L) ids -> states (S, L, D), fp32."""
        if token_type_ids is None and "token_type_ids" in self.inputs:
            token_type_ids = torch.zeros_like(input_ids)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        tables = {name: given[name].cpu().numpy() for name in self.inputs}  # type: ignore[union-attr]
        return States(torch.from_numpy(self._ask()(tables)).to(input_ids.device))

    def _ask(self) -> Ask:
        if getattr(self._local, "ask", None) is None:
            if self._started is None:
                self._started = self.graph.start(torch.get_num_threads())
            self._local.ask = self._started()
        ask: Ask = self._local.ask
        return ask

    def save(self, folder: Path) -> None:
        """Write graph, config and what it takes."""
        folder.mkdir(parents=True)
        self.graph.write(folder)
        self.config.save_pretrained(folder)
        about = {"runtime": self.graph.runtime, "inputs": list(self.inputs), "kind": self.made}
        release = library(self.graph.runtime).__version__
        write_json(folder / ABOUT, {**about, "n_weights": self.n_weights, self.graph.runtime: release})


def of_openvino(model: Any) -> Graph:
    """A model of OpenVINO as a graph."""

    def write(folder: Path) -> None:
        library("openvino").save_model(model, str(folder / XML), compress_to_fp16=False)

    def start(threads: int) -> Callable[[], Ask]:
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        program = library("openvino").Core().compile_model(model, "CPU", settings)

        def asker() -> Ask:
            request = program.create_infer_request()
            return lambda tables: np.array(request.infer(tables, share_inputs=True, share_outputs=False)[0])

        return asker

    return Graph("openvino", write, start)


def of_onnx(model: bytes | Path) -> Graph:
    """An ONNX model, in memory or in a file, as a graph."""

    def write(folder: Path) -> None:
        if isinstance(model, Path):
            shutil.copyfile(model, folder / ONNX)
        else:
            (folder / ONNX).write_bytes(model)

    def start(threads: int) -> Callable[[], Ask]:
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        given = str(model) if isinstance(model, Path) else model
        session = runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])

        def ask(tables: Mapping[str, np.ndarray]) -> np.ndarray:
            states: np.ndarray = session.run(None, dict(tables))[0]
            return states

        return lambda: ask  # a session may be asked by several threads

    return Graph("onnxruntime", write, start)


def library(runtime: str) -> Any:
    """The package that runs a graph.

    Raises:
        NotSupported: it is not installed.
    """
    extra = {"openvino": "fast", "onnxruntime": "export"}[runtime]
    try:
        return importlib.import_module(runtime)
    except ImportError as error:
        raise NotSupported(
            f"A graph that {runtime} runs was wanted; the package {runtime} is not installed. `pip install "
            f"'penjing[{extra}]'` brings it."
        ) from error


def is_at(folder: Path) -> bool:
    """Whether a folder holds such a trunk."""
    return (folder / ABOUT).is_file()


def weights_at(folder: Path) -> Path:
    """The file of such a trunk that holds its weights."""
    return folder / (ONNX if (folder / ONNX).is_file() else BIN)


def opened(folder: Path, config: Any) -> Compiled:
    """The trunk that lies in a folder.

    Raises:
        NotSupported: its runtime is not installed, or the graph cannot be read.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about.get("runtime", "openvino") == "onnxruntime":
            graph = of_onnx(folder / ONNX)
            graph.start(1)  # a file that is none is told now
        else:
            graph = of_openvino(library("openvino").Core().read_model(str(folder / XML)))
        return Compiled(graph, config, tuple(about["inputs"]), str(about["kind"]), int(about["n_weights"]))
    except NotSupported:
        raise
    except Exception as error:  # runtimes raise kinds of their own
        raise NotSupported(
            f"{folder} was to hold the graph of a trunk; it cannot be read "
            f"({str(error).splitlines()[0][:200]}). The bundle is damaged, or made by a newer runtime: copy "
            "it again, or update."
        ) from error


def way() -> Way:
    """How such a trunk is run."""
    return Way(False, 0, REASON)
