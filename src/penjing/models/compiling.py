"""A trunk made into a graph, traced with batch and length free: of ONNX, as it is, or of OpenVINO, put into
8 bits by NNCF where that is wanted (weights with a scale a row, activations with scales found on calibration
rows, after SmoothQuant)."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.compiled import Compiled, Graph, Kind, library, of_onnx, of_openvino
from penjing.models.layers import bare
from penjing.models.load import Base
from penjing.models.packing import native
from penjing.models.padded import Padded, Ports, ports_of
from penjing.models.tracing import hushed, onnx_of, program_of, told

LARGEST = 2**31 - 2**24  # bytes of weights: a file of protobuf ends at 2 GiB


class _Trunk(nn.Module):
    """The trunk over tables, in the order of its inputs: what is traced."""

    def __init__(self, trunk: nn.Module, ports: Ports) -> None:
        super().__init__()
        self.trunk, self.ports = trunk, ports

    def forward(self, *tables: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.ports.inputs, tables, strict=True))
        return (self.trunk(**given).last_hidden_state,)


def compiled(base: Base, kind: Kind, rows: Iterable[Mapping[str, np.ndarray]]) -> Compiled:
    """The base's trunk as a graph of OpenVINO. `rows`: tables to calibrate `int8` on; `weights`: 8 bits of
    these alone.

    Raises:
        NotSupported: OpenVINO cannot hold the trunk, or a package is missing.
    """
    model = _traced(base)

    def made() -> Any:
        with hushed():
            return library("openvino").convert_model(program_of(model, base.limit))

    graph = told(made, model, "OpenVINO")
    inputs = model.ports.inputs
    for port, name in zip(graph.inputs, inputs, strict=True):
        port.tensor.set_names({name})
    if kind != "fp32":
        graph = _in_8_bits(graph, kind, [{name: one[name] for name in inputs} for one in rows])
    return _held(model, of_openvino(graph), kind)


def compiled_onnx(base: Base) -> Compiled:
    """The base's trunk as an ONNX graph, fp32.

    Raises:
        NotSupported: ONNX cannot hold the trunk, or a package is missing.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise NotSupported(
                f"An ONNX graph was wanted; the package {package} is not installed. `pip install "
                "'penjing[export]'` brings it."
            )
    model = _traced(base)
    if (size := sum(p.numel() * p.element_size() for p in model.parameters())) > LARGEST:
        raise NotSupported(
            f"One file of ONNX holds 2 GiB; the trunk of `{base.name}` has {size / 2**30:.1f}. Take "
            "`openvino`."
        )
    graph = onnx_of(model, base.limit, outputs=("states",))
    return _held(model, of_onnx(graph.model_proto.SerializeToString()), "fp32")


def _traced(base: Base) -> Padded:
    """What is traced of a base: a copy of its trunk, over tables."""
    trunk = copy.deepcopy(bare(base.trunk))
    native(trunk)
    return cast("Padded", _Trunk(trunk, ports_of(base, trunk, None)).eval())


def _held(model: Padded, graph: Graph, kind: Kind) -> Compiled:
    trunk: Any = model.trunk
    n_weights = sum(p.numel() for p in trunk.parameters())
    return Compiled(graph, trunk.config, model.ports.inputs, kind, n_weights)


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
