"""The contract of a compressor: a tuned model to a smaller one (design, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from penjing.errors import SpecError
from penjing.models.load import Base
from penjing.models.model import Model
from penjing.records import Part, Rows
from penjing.task import Task


@dataclass(frozen=True)
class Held:
    """A model in memory: what a compressor is given, and what it gives back.

    The model is in evaluation mode, its parameters are fp32 and want no gradient, and nothing shares it: a
    compressor may change it in place. `base.trunk` is `model.trunk`; adapters are merged. Where the tokenizer
    or the trunk's shape changes, a new `base` says so.
    """

    model: Model
    base: Base
    task: Task
    labels: Sequence[str]
    max_length: int


@dataclass(frozen=True)
class Rehearsal:
    """Rows that a compressor may look at: train rows, never test rows, as texts and as the model reads them.

    `part` has targets where the rows have labels. `tokens` says how many may be computed at once.
    """

    rows: Rows
    part: Part
    seed: int = 0
    tokens: int = 8192


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, and what is to be told of how it came about: numbers by name, for the report.

    A module of another kind in a linear's place (int8, 4 bits …) is one of `models.stored.KINDS`, so that a
    bundle can say what stands where and put it back. Linears of other sizes, and other numbers of heads in a
    layer, are found and kept by themselves; a config that changed says so on the trunk.
    `exact`: answers to the rehearsal's texts stay what they were; the job refuses the step where they do not.
    """

    held: Held
    facts: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False


@dataclass(frozen=True)
class Compressor:
    """One step that makes a model smaller.

    `shrink(held, rehearsal)` gives the smaller model. `wants` is what it must look at: `nothing`, `texts`
    (calibration) or `labels`, of so many of the train `rows` (None: all). `changes(held, original)` instead
    of `shrink`: this step trains; it gives what differs from the spec of the bundle's own run (`method`,
    `techniques`, `train` …) in a run whose `base` is the bundle at hand; `original` is the folder of the
    bundle that the chain began from.
    """

    name: str
    shrink: Callable[[Held, Rehearsal], Shrunk] | None = None
    wants: Literal["nothing", "texts", "labels"] = "nothing"
    rows: int | None = 256
    changes: Callable[[Held, str], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise SpecError(
                f"`{self.name}.rows` counts rows to look at, 1 or more; it is {self.rows}. 256 is usual."
            )
