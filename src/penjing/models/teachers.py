"""Teachers: whether they can teach a student, and what their heads give of its rows.

A teacher is a bundle: `model`, `task`, `labels`, `base`. Where a row is one sequence it reads it for itself,
so its tokenizer is its own affair; else it runs on the very tokens that the student reads.

Legend: n rows, N outputs (of rows, or of sites in them), C classes or numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.distilling import tokens_of
from penjing.records import Batch, Outset, Part


@dataclass(frozen=True)
class Table:
    """Outputs of every row of a part: row i's are `values[starts[i]:starts[i + 1]]`."""

    values: Tensor  # (M, C), on the CPU
    starts: np.ndarray  # (n + 1,)

    def of(self, rows: Sequence[int]) -> Tensor:
        """(N, C) outputs of these rows, in their order."""
        return torch.cat([self.values[self.starts[r] : self.starts[r + 1]] for r in rows])


def identity(teachers: Sequence[Any]) -> str:
    """SHA-256 over the files of all teachers."""
    files = [getattr(one, "card", {}).get("files") or one.base.sha256 for one in teachers]
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def refuse_unlike(name: str, teacher: Any, outset: Outset, *, answers: bool, packs: bool) -> None:
    """`answers`: its outputs are learned. `packs`: it runs on the very tokens that the student reads.

    Raises:
        NotSupported: it answers otherwise than the student, or reads other tokens.
    """
    if answers:
        _refuse_other_answers(name, teacher, outset, packs=packs)
    if packs and not _same_words(teacher.base, outset.base):
        raise NotSupported(
            f"A teacher with the student's tokenizer was wanted, as both read the same tokens (`hidden`, "
            f"`relations`, `augment`, or a label a token); {name} has other words than `{outset.base.name}`. "
            "Take a student of the teacher's family, or learn outputs of whole rows alone, which each reads "
            "for itself."
        )


def _refuse_other_answers(name: str, teacher: Any, outset: Outset, *, packs: bool) -> None:
    task, said, ours = teacher.task, list(teacher.labels), list(outset.labels)
    head = type(outset.model.head)
    unlike = packs and task is not None and not isinstance(teacher.model.head, head)
    if task is None or task.outputs != outset.task.outputs or unlike:
        what = "is a base without a task"
        if task is not None:
            what = f"learned `{task.name}`, which gives {task.outputs or 'none'} as it was set"
        raise NotSupported(
            f"A teacher that gives {outset.task.outputs} as `task: {outset.task.name}` does was wanted; "
            f"{name} {what}. Name a run of that task, or set `distill.alpha: 0` and learn from its layers."
        )
    if task.outputs == "numbers":
        same = len(said) == len(ours)
    else:
        same = said == ours if task.infer else sorted(said) == sorted(ours)
    if not same:
        strange = sorted({*said} ^ {*ours})[:3]
        raise NotSupported(
            f"A teacher of the student's {len(ours)} labels was wanted; {name} has {len(said)}: "
            f"{', '.join(f'`{one}`' for one in strange) or 'their order'} is not in both. Name the labels in "
            "the spec as the teacher has them, or take another teacher."
        )


def _same_words(theirs: Any, ours: Any) -> bool:
    if theirs.tokenizer is None or ours.tokenizer is None:
        return theirs.tokenizer is ours.tokenizer
    probe = "The 2 cats didn't sit; 今天天气很好。 Übung!"
    same = theirs.tokenizer.get_vocab() == ours.tokenizer.get_vocab()
    return same and bool(theirs.tokenizer(probe)["input_ids"] == ours.tokenizer(probe)["input_ids"])


def stand_in(part: Part, train: Part) -> Part:
    """Rows without labels, with targets of the shape that the task's loss takes; they mean nothing."""
    if part.tokens.labels is not None or train.targets.dtype == object:
        return part
    return replace(part, targets=np.zeros((len(part), *train.targets.shape[1:]), train.targets.dtype))


def asked_once(teachers: Sequence[Any], part: Part, outset: Outset) -> Table:
    """The mean of the teachers' outputs of every row (softened, it stands for their geometric mean)."""
    tables = [_outputs_of(one, part, outset) for one in teachers]
    return Table(torch.stack([one.values for one in tables]).mean(0), tables[0].starts)


def _outputs_of(teacher: Any, part: Part, outset: Outset) -> Table:
    if outset.task.infer is None and part.owners is None and len(part.rows) == len(part):
        values = as_ours(outset.outputs(teacher, part.rows), teacher, outset)
        return Table(values, np.arange(len(part) + 1))

    def compute(batch: Batch) -> list[Tensor]:
        found = raw(outset.task, teacher.model, batch)
        counts = [1] * len(batch.rows) if len(found) == len(batch.rows) else _sites(batch)
        return [*found.cpu().split(counts)]

    each = outset.each(teacher.model, part, compute)
    return Table(as_ours(torch.cat(each), teacher, outset), np.cumsum([0, *map(len, each)]))


def as_ours(values: Tensor, teacher: Any, outset: Outset) -> Tensor:
    """A teacher's outputs (N, C) in the student's order of labels, or on the scale of its numbers."""
    values = values.reshape(len(values), -1)
    if outset.task.outputs != "numbers":
        order = [list(teacher.labels).index(name) for name in outset.labels]
        return values[:, order] if len(order) == values.shape[1] else values
    real, width = teacher.task.probabilities(values), values.shape[1]
    zero, one = (outset.task.probabilities(torch.full((1, width), x)) for x in (0.0, 1.0))
    return torch.from_numpy(np.asarray((real - zero) / (one - zero))).float()


def raw(task: Any, model: nn.Module, batch: Batch) -> Tensor:
    """(N, C) outputs that a model gives of a batch for a task, fp32."""
    found = task.loss(model, replace(batch, states=None, vectors=None)).outputs.float()
    return chosen(found, batch)


def chosen(outputs: Tensor, batch: Batch) -> Tensor:
    """(N, C): one of each row, or one of each token that is learned."""
    flat = outputs.reshape(len(outputs), -1)
    if len(flat) == len(batch.rows) or batch.labels is None:
        return flat
    return flat[batch.labels != -100]


def _sites(batch: Batch) -> list[int]:
    """Tokens of each row that are learned."""
    assert batch.labels is not None
    return [int((own != -100).sum()) for own in batch.labels.split(tokens_of(batch))]
