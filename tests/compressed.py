"""What compressors are given in tests: a tuned model in memory, and rows to look at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing import bundle as bundles
from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.data.parts import part_of
from penjing.device import Machine
from penjing.engine.scoring import outputs
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Rows
from penjing.task import Task
from penjing.tasks.classify import classify

CPU = Machine(torch.device("cpu"), "fp32", 1)
LABELS = ["billing", "delivery", "account"]


def rows_of(texts: list[str], labels: list[str] | None = None) -> Rows:
    """Rows of a file that never was."""
    names = [(name,) for name in labels] if labels else [()] * len(texts)
    return Rows(texts, names, ("t.csv",), np.zeros(len(texts), np.int32), np.arange(len(texts)) + 2)


def held_of(folder: Path, task: Task | None = None, labels: list[str] | None = None) -> Held:
    """A base with a random head of the task (classify), as the job hands it to a compressor."""
    torch.manual_seed(0)
    names = LABELS if labels is None else labels
    base, task = load(str(folder), whole=bool(task and task.whole)), task or classify()
    if task.bind:
        task = task.bind(base, names)
    head: nn.Module = task.head(base.width, names, base.pooling, base.pooler)
    with torch.no_grad():  # a fresh head's biases of 0 would hide their absence
        for parameter in head.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model = Model(base.trunk, head, base.way)
    model.requires_grad_(False)
    return Held(model.prepare("fp32").eval(), base, task, names, min(base.limit, 64))


def rehearsal_of(held: Held, texts: list[str], labels: list[str] | None = None) -> Rehearsal:
    """These rows, as the model reads them."""
    rows = rows_of(texts, labels)
    part = part_of(
        held.task, held.base, rows, list(held.labels), held.max_length, labelled=labels is not None
    )
    return Rehearsal(rows, part)


def shrink(step: Compressor, held: Held, rehearsal: Rehearsal) -> Shrunk:
    """The step made; a step that trains has none."""
    assert step.shrink is not None
    return step.shrink(held, rehearsal)


def answers(held: Held, texts: list[str]) -> torch.Tensor:
    """(S, C) outputs of a model in memory for texts."""
    part = part_of(held.task, held.base, rows_of(texts), list(held.labels), held.max_length, labelled=False)
    return outputs(held.model, part.tokens)


def reopened(held: Held, folder: Path, task: Any = "classify") -> bundles.Bundle:
    """The model after a bundle was saved and opened."""
    card = {"task": task, "method": "full", "labels": list(held.labels), "max_length": held.max_length}
    card |= {"precision": "fp32", "dense": getattr(held.model.head, "dense", None) is not None, "chosen": {}}
    bundles.save(folder, model=held.model, base=held.base, saves="full", card=card)
    return bundles.load(folder, machine=CPU)
