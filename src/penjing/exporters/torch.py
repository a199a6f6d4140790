"""A program of torch.export: one file that torch runs without transformers and without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.exporter import Exporter, Sent
from penjing.exporters.onnx import graph_fits, model_of, save_inputs
from penjing.models.padded import Run, Tables, ports_of
from penjing.models.tracing import hushed, program_of

FILE = "model.pt2"


def torch() -> Exporter:
    """model.pt2, which `torch.export.load` opens, with free batch and length."""
    return Exporter(
        "torch", _fits, _write, _opened, lambda sent: f"torch.export.load('{{folder}}/{FILE}').module()"
    )


def _fits(sent: Sent) -> Sequence[str]:
    return graph_fits(sent, "torch")


def _write(sent: Sent, folder: Path) -> None:
    import torch as library

    program = program_of(model_of(sent), sent.held.base.limit)
    with hushed():
        library.export.save(program, str(folder / FILE))
    save_inputs(sent, folder)


def _opened(sent: Sent, folder: Path) -> Run:
    import torch as library

    held = sent.held
    names = ports_of(held.base, held.model.trunk, held.model.head).inputs
    with hushed():
        module: Any = library.export.load(str(folder / FILE)).module()

    def run(tables: Tables) -> list[np.ndarray]:
        with library.no_grad():
            found = module(*(library.from_numpy(tables[name]) for name in names))
        return [one.numpy() for one in found]

    return run
