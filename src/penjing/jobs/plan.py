"""What a spec will take here before it runs, and the cheaper ways to do it where that does not fit.

No weight is loaded. A question without rows of one's own is answered by `advise`; how right forecasts were is
told by `audit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing import spec as specs
from penjing.device import Machine, choose, free_mib, resident_mib
from penjing.errors import NotSupported, SpecError, WontFit
from penjing.jobs.bases import base_of
from penjing.jobs.beside import with_teachers
from penjing.jobs.expected import forecast_of
from penjing.jobs.feeding import Texts, refuse_unused, texts_of
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.prepare import NO_DATA, Data, bound, n_steps, ready, rows_of, span, task_of
from penjing.jobs.sampled import Sample, of_corpus, of_rows
from penjing.models.load import Base
from penjing.models.sizing import MARGIN_MIB, MARGIN_S, Forecast
from penjing.plural import counted
from penjing.spec import Spec
from penjing.task import Task

HEAPS = 0.6  # different words grow as this power of text

# From what costs least: keys, and what is said of them. Those that a spec refuses are passed over.
CHEAPER = (
    (("train.micro_tokens=2048",), "less at once, with the same result"),
    (("train.micro_tokens=512",), "much less at once, with the same result"),
    (("train.checkpointing=true", "train.micro_tokens=2048"), "activations are computed twice"),
    (("method=lora",), "few weights train"),
    (("method=lora", "train.micro_tokens=1024"), "few weights train, less at once"),
    (("method=top", "method.layers=2"), "two layers train; the rest runs once, and is kept"),
    (("method=top",), "the head trains alone; the base runs once, and is kept"),
    (("data.max_length=128",), "ends of long rows are cut"),
    (("base=minilm", "tokenizer=null"), "a small base"),
)


@dataclass(frozen=True)
class Way:
    """One way to do a job. `sets` are the keys that differ from the spec; memory is beyond this process, and
    `mib` and `seconds` are the forecast, `most_mib` and `most_s` what it should not pass.
    """

    sets: tuple[str, ...]
    why: str
    parameters: int
    trainable: int
    seconds: float
    most_s: float
    mib: float
    most_mib: float
    fits: bool


@dataclass(frozen=True)
class Plan:
    """What a spec takes: `way` as asked, and `cheaper` ones where that does not fit."""

    machine: str
    free_mib: float
    process_mib: float  # what Python and libraries hold already
    rows: int
    unit: str  # what `rows` are: rows, or pieces of a corpus
    steps: int
    tokens: float
    way: Way
    cheaper: tuple[Way, ...]

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def refuse(self) -> None:
        """Raise where the spec does not fit.

        Raises:
            WontFit: with the choices that do.
        """
        if self.way.fits:
            return
        fitting = [way for way in self.cheaper if way.fits]
        choices = "; or ".join(
            f"`--set {' --set '.join(way.sets)}` (about {way.mib:,.0f} MiB, {span(way.seconds)}: {way.why})"
            for way in fitting[:4]
        )
        raise WontFit(
            f"This job takes about {self.way.mib:,.0f} MiB, at most {self.way.most_mib:,.0f}; "
            f"{self.machine} has {self.free_mib:,.0f} MiB free. "
            + (f"Try {choices}." if fitting else "Take a smaller base, or a machine with more memory.")
        )


def plan(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    memory_gib: float | None = None,
    tell: Tell = silent,
    **keywords: Any,
) -> Plan:
    """Forecast what a spec takes here. `memory_gib`: as if so much were free.

    Raises:
        SpecError, DataError, NotSupported: what would stop the job itself.
    """
    spec = specs.read(source, sets=sets, **keywords)
    task, machine = task_of(spec), choose(spec.device, spec.precision)
    if task.feed:
        refuse_unused(spec, task)
    fed: Data | Texts = texts_of(spec) if task.feed else rows_of(spec, task, tell)
    base_of(spec, "meta")  # its libraries are part of what the process holds
    own = resident_mib(machine.device)
    tell(News("stage", "trying a layer of the base"))
    free = free_mib(machine.device) if memory_gib is None else 1024 * memory_gib
    found, rows = _forecast(spec, task, machine, fed)
    asked = _way((), "as asked", found, free)
    cheaper: list[Way] = []
    for changes, why in () if asked.fits else CHEAPER:
        try:
            other = specs.read(spec, sets=changes)
            if other != spec:
                cheaper.append(_way(changes, why, _forecast(other, task_of(other), machine, fed)[0], free))
        except (SpecError, NotSupported):
            continue
    steps = n_steps(spec, rows)
    place = f"{machine.device}, {machine.precision}, {counted(machine.threads, 'thread')}"
    unit = "pieces" if task.feed else "rows"
    return Plan(place, free, own, rows, unit, steps, found.tokens, asked, tuple(cheaper))


def _forecast(spec: Spec, task: Task, machine: Machine, fed: Data | Texts) -> tuple[Forecast, int]:
    """What this spec takes, by its base's shapes and a sample of what it is fed; and how many rows, or pieces
    of a corpus, that is."""
    base = base_of(spec, "meta")
    data = NO_DATA if isinstance(fed, Texts) else fed
    own = bound(task, base, data)
    seen = of_corpus(spec, own, base, fed) if isinstance(fed, Texts) else of_rows(spec, own, base, fed)
    used = None if base.way.sight or own.speaks or own.feed else _words_in_use(seen, base)
    made = ready(spec, own, data.names, base, machine, used, steps=n_steps(spec, seen.n_rows))
    alone = forecast_of(spec, machine, made, seen.tokens, seen.n_rows, asked=seen.asked)
    return with_teachers(alone, spec, machine, made, seen.tokens, seen.n_rows), seen.n_rows


def _words_in_use(seen: Sample, base: Base) -> np.ndarray:
    """As many ids as all rows should hold; whichever they are."""
    words = len(np.unique(seen.tokens.ids)) * (seen.n_rows / len(seen.tokens)) ** HEAPS
    return np.arange(min(int(words), len(base.tokenizer)))


def _way(sets: tuple[str, ...], why: str, found: Forecast, free: float) -> Way:
    """A forecast with its margins, weights included."""
    weights = 4 * found.parameters / 2**20
    mib, most = weights + found.mib, weights + found.mib * MARGIN_MIB
    return Way(
        sets,
        why,
        found.parameters,
        found.trainable,
        found.seconds,
        found.seconds * MARGIN_S,
        mib,
        most,
        most <= free,
    )
