"""Which layers suffer most from being held in few bits, and are better held in more: the scan behind `keep`.

Each linear layer is changed alone, and the model's answers are compared with those it gave before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from penjing.compressor import Held, Rehearsal
from penjing.compressors.calibrating import batches_of
from penjing.errors import SpecError, nearest
from penjing.models.modes import evaluating
from penjing.models.word_head import words_of
from penjing.records import Batch

Make = Callable[[str], nn.Module]
ROWS = 64  # that a scan looks at: every layer costs a pass over them


def kept(
    keep: float | Sequence[str], held: Held, rehearsal: Rehearsal, names: Sequence[str], make: Make
) -> tuple[list[str], dict[str, float]]:
    """The layers to hold in higher precision, and how much each hurts, worst first (empty without a scan).

    `keep` is the share of layers, those that hurt most, or names of layers, where `*` stands for anything.

    Raises:
        SpecError: a share outside 0..1, or a name that is no layer's.
    """
    if not isinstance(keep, int | float):
        return _named(keep, names), {}
    if not 0 <= keep < 1:
        raise SpecError(
            f"`keep` is the share of layers to hold in higher precision, 0 to below 1; it is {keep}."
        )
    if not keep:
        return [], {}
    found = scan(held, rehearsal, names, make)
    return list(found)[: round(keep * len(names))], found


def looks(keep: float | Sequence[str]) -> bool:
    """Whether `keep` asks for a scan, which reads texts."""
    return isinstance(keep, int | float) and keep > 0


def scan(held: Held, rehearsal: Rehearsal, names: Sequence[str], make: Make) -> dict[str, float]:
    """How far the model's answers go from what they were when `make(name)` alone stands in a layer's place.

    The squared distance over the answers' own variance: 0 is no change. Worst first.
    """
    trunk, batches = held.model.trunk, batches_of(rehearsal, rows=ROWS)
    before = answers(held, batches)
    spread = float((before - before.mean(0)).square().sum()) or 1.0
    found: dict[str, float] = {}
    for name in names:
        plain = trunk.get_submodule(name)
        trunk.set_submodule(name, make(name))
        try:
            found[name] = float((answers(held, batches) - before).square().sum()) / spread
        finally:
            trunk.set_submodule(name, plain)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def answers(held: Held, batches: Sequence[Batch]) -> Tensor:
    """What a change is seen in: the head's outputs where the task predicts from them, else the last
    states.
    """
    model = held.model
    headed = held.task.infer is None and words_of(model.head) is None and not held.task.speaks
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        found = [
            (model(batch) if headed else model.states(batch)).float()
            for batch in (b.to(device) for b in batches)
        ]
    return torch.cat(found)


def told(found: Mapping[str, float], names: Sequence[str]) -> dict[str, object]:
    """What a report says of a scan: the layers held in higher precision, and how much the worst five hurt."""
    worst = {name: round(value, 6) for name, value in list(found.items())[:5]}
    return {**({"kept": list(names)} if names else {}), **({"sensitivity": worst} if worst else {})}


def _named(keep: Sequence[str], names: Sequence[str]) -> list[str]:
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SpecError(
                f"`keep` names linears to hold in higher precision; `{pattern}` is none of the {len(names)} "
                f"here.{nearest(pattern, names)} They are called such as `{names[0]}`; `*` stands for "
                "anything."
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in keep)]
