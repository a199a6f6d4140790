"""A trunk made into a graph of OpenVINO: traced with batch and length free, and put into 8 bits by NNCF where
that is wanted (weights with a scale a row, activations with scales found on calibration rows, after
SmoothQuant)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.compiled import Compiled, Kind, library
from penjing.models.layers import bare
from penjing.models.load import Base
from penjing.models.packing import native
from penjing.models.padded import Padded, Ports, ports_of
from penjing.models.tracing import hushed, program_of, told


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
