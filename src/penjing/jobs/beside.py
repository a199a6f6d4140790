"""What techniques hold and run beside the model, in a forecast: teachers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from penjing.bundle_card import read_card
from penjing.device import Machine
from penjing.jobs.expected import work_for
from penjing.jobs.parent import place_of
from penjing.jobs.prepare import Ready, task_of
from penjing.models.calibrate import pace_of
from penjing.models.heads import ClassHead
from penjing.models.load import Base
from penjing.models.load import load as load_base
from penjing.models.miniature import layer_cost
from penjing.models.model import Model
from penjing.models.sizing import Forecast, Work, reading
from penjing.records import Beside, Tokens
from penjing.spec import Spec


def with_teachers(
    expected: Forecast, spec: Spec, machine: Machine, made: Ready, tokens: Tokens, n_rows: int
) -> Forecast:
    """A forecast of the model alone, with what its techniques hold and run beside it. No weight is loaded.

    `tokens` are those of the train rows, or of some of them.

    Raises:
        NotSupported: a teacher is not there.
    """
    work = work_for(spec, made, tokens, n_rows)
    for technique in made.techniques:
        if technique.beside:
            expected = _with(expected, technique.beside, spec, machine, work, n_rows)
    return expected


def _with(
    expected: Forecast, beside: Beside, spec: Spec, machine: Machine, work: Work, n_rows: int
) -> Forecast:
    pace, cpu, task = pace_of(machine), machine.device.type == "cpu", task_of(spec)
    each = []
    for name in beside.names:
        for base in _bases(name or spec.base, whole=task.whole):
            head = ClassHead(base.width, 2, pooling=base.pooling, dropout=0.0)
            layer = layer_cost(Model(base.trunk, head, base.way).prepare(machine.precision), machine.device)
            each.append(
                reading(base.trunk, work, pace=pace, precision=machine.precision, layer=layer, cpu=cpu)
            )
    a_step, held = sum(seconds for seconds, _ in each), sum(mib for _, mib in each)
    if beside.each_step or task.vary:
        seconds = (expected.seconds + a_step * work.steps) * (1 + beside.more)
        return replace(expected, seconds=seconds, mib=expected.mib + held)
    once = a_step * math.ceil(n_rows / min(spec.train.batch, n_rows))
    return replace(expected, seconds=expected.seconds * (1 + beside.more) + once, mib=max(expected.mib, held))


def _bases(name: str, *, whole: bool) -> Iterator[Base]:
    """The shapes of a run, bundle or base; of an ensemble those of each member."""
    place = Path(name)
    place = place_of(place.parent if place.name == "trunk" else place)
    if not (place / "card.json").is_file():
        yield load_base(name, device="meta", whole=whole)
        return
    card = read_card(place)
    for member in card.get("members", ()):
        yield from _bases(str(place / member), whole=whole)
    if card["saves"] != "ensemble":
        own = str(place / "trunk") if card["saves"] == "full" else card["base"]["name"]
        yield load_base(own, device="meta", whole=whole)
