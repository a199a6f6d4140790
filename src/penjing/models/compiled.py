"""A trunk as a graph compiled by OpenVINO, in the trunk's place: padded tables in, states out.

The graph (`models.compiling` makes it) is kept as model.xml and model.bin beside the config. `Compiled`
answers as the trunk of a padded base does, so every task runs on it; it has no weights that torch could
train.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.files import write_json
from penjing.models.packing import Way

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


def way() -> Way:
    """How such a trunk is run."""
    return Way(False, 0, REASON)
