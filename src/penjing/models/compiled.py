"""A trunk as a graph compiled by OpenVINO, in the trunk's place: padded tables in, states out.

The graph is traced from the trunk (batch and length free), put into 8 bits by NNCF where that is wanted
(weights with a scale a row, activations with scales found on calibration rows, as SmoothQuant has them), and
kept as model.xml and model.bin beside the config. `Compiled` answers as the trunk of a padded base does, so
every task runs on it; it has no weights that torch could train.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.files import write_json
from penjing.models.layers import bare
from penjing.models.packing import Way, native

if TYPE_CHECKING:  # both open bases, and a base may be a graph
    from penjing.models.load import Base
    from penjing.models.padded import Padded, Ports

GRAPH, WEIGHTS, ABOUT = "model.xml", "model.bin", "compiled.json"
REASON = "it runs in OpenVINO, which wants tables"
Kind = Literal["int8", "weights", "fp32"]


@dataclass(frozen=True)
class States:
    """What comes of a pass, as transformers gives it."""

    last_hidden_state: Tensor


class Compiled(nn.Module):
    """`trunk(input_ids, attention_mask, token_type_ids)` by a compiled graph; the graph is compiled when it
    is first asked."""

    def __init__(self, graph: Any, config: Any, inputs: tuple[str, ...], kind: str, n_weights: int) -> None:
        super().__init__()
        self.graph, self.config, self.inputs, self.made = graph, config, inputs, kind
        self.n_weights = n_weights
        self.here = nn.Parameter(torch.zeros(()))  # so that it is known where and in which type it works
        self._local = threading.local()  # a request a thread: two must not share one
        self._program: Any = None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> States:
        """(S, L) ids -> states (S, L, D), fp32."""
        if token_type_ids is None and "token_type_ids" in self.inputs:
            token_type_ids = torch.zeros_like(input_ids)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        tables = {name: given[name].cpu().numpy() for name in self.inputs}  # type: ignore[union-attr]
        found = self._request().infer(tables, share_inputs=True, share_outputs=False)
        return States(torch.from_numpy(np.array(found[0])).to(input_ids.device))

    def _request(self) -> Any:
        if getattr(self._local, "request", None) is None:
            if self._program is None:
                threads = torch.get_num_threads()
                settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
                self._program = library().Core().compile_model(self.graph, "CPU", settings)
            self._local.request = self._program.create_infer_request()
        return self._local.request

    def save(self, folder: Path) -> None:
        """Write graph, config and what it takes."""
        folder.mkdir(parents=True)
        library().save_model(self.graph, str(folder / GRAPH), compress_to_fp16=False)
        self.config.save_pretrained(folder)
        about = {"inputs": list(self.inputs), "kind": self.made, "n_weights": self.n_weights}
        write_json(folder / ABOUT, {**about, "openvino": library().__version__})


def library() -> Any:
    """OpenVINO.

    Raises:
        NotSupported: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise NotSupported(
            "A graph compiled by OpenVINO was wanted; the package openvino is not installed. `pip install "
            "'penjing[fast]'` brings it."
        ) from error
    return openvino


def is_at(folder: Path) -> bool:
    """Whether a folder holds such a trunk."""
    return (folder / ABOUT).is_file()


def opened(folder: Path, config: Any) -> Compiled:
    """The trunk that lies in a folder.

    Raises:
        NotSupported: OpenVINO is not installed, or the graph cannot be read.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        graph = library().Core().read_model(str(folder / GRAPH))
        return Compiled(graph, config, tuple(about["inputs"]), str(about["kind"]), int(about["n_weights"]))
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise NotSupported(
            f"{folder / GRAPH} was to be a graph of OpenVINO; it cannot be read "
            f"({str(error).splitlines()[0]}). The bundle is damaged, or made by a newer openvino: copy it "
            "again, or update."
        ) from error


class _Trunk(nn.Module):
    """The trunk over tables, in the order of its inputs: what is traced."""

    def __init__(self, trunk: nn.Module, ports: Ports) -> None:
        super().__init__()
        self.trunk, self.ports = trunk, ports

    def forward(self, *tables: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.ports.inputs, tables, strict=True))
        return (self.trunk(**given).last_hidden_state,)


def compiled(base: Base, kind: Kind, rows: Iterable[Mapping[str, np.ndarray]]) -> Compiled:
    """The base's trunk as a graph. `rows`: tables to calibrate `int8` on; `weights`: 8 bits of these alone.

    Raises:
        NotSupported: OpenVINO cannot hold the trunk, or a package is missing.
    """
    import copy

    from penjing.models.padded import ports_of
    from penjing.models.tracing import hushed, program_of, told

    trunk = copy.deepcopy(bare(base.trunk))
    native(trunk)
    ports = ports_of(base, trunk, None)
    model = cast("Padded", _Trunk(trunk, ports).eval())

    def made() -> Any:
        with hushed():
            return library().convert_model(program_of(model, base.limit))

    graph = told(made, model, "OpenVINO")
    for port, name in zip(graph.inputs, ports.inputs, strict=True):
        port.tensor.set_names({name})
    if kind != "fp32":
        graph = _in_8_bits(graph, kind, [{name: one[name] for name in ports.inputs} for one in rows])
    n_weights = sum(p.numel() for p in trunk.parameters())
    return Compiled(graph, trunk.config, ports.inputs, kind, n_weights)


def _in_8_bits(graph: Any, kind: Kind, seen: Sequence[Mapping[str, np.ndarray]]) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise NotSupported(
            "8 bits by NNCF were wanted; the package nncf is not installed. `pip install 'penjing[fast]'` "
            'brings it, or take `openvino(weights="fp32")`.'
        ) from error
    nncf.set_log_level(40)
    if kind == "weights":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    found = nncf.Dataset(seen, lambda tables: dict(tables))
    return nncf.quantize(graph, found, subset_size=len(seen), model_type=nncf.ModelType.TRANSFORMER)


def way() -> Way:
    """How such a trunk is run."""
    return Way(False, 0, REASON)
