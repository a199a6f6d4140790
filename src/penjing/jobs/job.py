"""What a run is made of, opened: a spec, and all that it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penjing.device import Machine
from penjing.engine.ranks import ALONE, Ranks
from penjing.jobs.news import Tell
from penjing.jobs.prepare import Data
from penjing.models.load import Base
from penjing.records import Part
from penjing.run import Run
from penjing.spec import Spec
from penjing.task import Task


@dataclass(frozen=True)
class Job:
    """A spec and all that it names, opened. `begin` uses the base up: a second run needs a copy."""

    spec: Spec
    task: Task
    machine: Machine
    data: Data
    base: Base
    tell: Tell
    parts: tuple[Part, Part] | None = None  # train and validation, where they were tokenized before
    end: Callable[[Run, Job, dict[str, Any], dict[str, Any]], None] | None = None  # in place of `conclude`
    probe: Callable[[Any], dict[str, float]] | None = None  # more scores of the model, at each validation
    ranks: Ranks = ALONE  # the processes that carry it together
