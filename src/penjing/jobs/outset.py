"""What techniques are shown of a run before its first step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from penjing.bundle import load as load_bundle
from penjing.data import parts
from penjing.device import Machine
from penjing.engine.scoring import each, outputs
from penjing.jobs.news import News, Tell
from penjing.jobs.prepare import READING, Ready, max_length, rows_from
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.records import Outset, Part, Rows
from penjing.spec import Spec
from penjing.task import Task


def begin_techniques(
    made: Ready, spec: Spec, task: Task, names: list[str], machine: Machine, train: Part, tell: Tell
) -> None:
    """Let the techniques of a run that want it look at its start; once, before its optimizer is made."""
    wanting = [one.begin for one in made.techniques if one.begin]
    if not wanting:
        return
    tokens = spec.train.micro_tokens

    def read(source: str | list[str]) -> Part:
        reading = {key: getattr(spec.data, key) for key in READING if key != "label"}
        rows = rows_from(task, source, labelled=False, **reading)
        for note in rows.notes:
            tell(News("note", note))
        return parts.part_of(task, made.base, rows, names, max_length(spec, made.base), labelled=False)

    def answered(bundle: Any, rows: Rows) -> Tensor:
        return outputs(bundle.model, bundle.part(rows, labelled=False).tokens, tokens=tokens)

    outset = Outset(
        model=made.model,
        base=made.base,
        task=task,
        labels=names,
        train=train,
        seed=spec.seed,
        batch=spec.train.batch,
        tokens=tokens,
        grouped=spec.train.group_by_length,
        open=lambda name: _opened(name or spec.base, machine, whole=task.whole),
        read=read,
        outputs=answered,
        each=partial(each, tokens=tokens),
        tell=lambda sentence: tell(News("note", sentence)),
    )
    for begin in wanting:
        begin(outset)


def _opened(name: str, machine: Machine, *, whole: bool) -> Any:
    """A run's or a folder's bundle; a base by its name, as a bundle without task and labels."""
    place = Path(name)
    if place.name == "trunk":
        place = place.parent
    if (place / "card.json").is_file() or (place / "spec.yaml").is_file():
        return load_bundle(place, machine=machine)
    base = load_base(name, device=machine.device, whole=whole)
    model = Model(base.trunk, nn.Identity(), base.way)
    model.requires_grad_(False)
    model.prepare(machine.precision).eval()
    return SimpleNamespace(model=model, base=base, task=None, labels=[])
