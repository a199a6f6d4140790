"""The contract of every technique: at zero strength bit for bit nothing, and an exact resume.

A new file in techniques/ is tested by its name alone, once ZERO says which settings make it nothing.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from common import told
from penjing import plugin
from penjing.data import batches
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.engine.scoring import each, outputs
from penjing.errors import SpecError
from penjing.jobs import keep
from penjing.keys import TrainSpec
from penjing.models.heads import ClassHead
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Outset, Part, Rows, Technique, Tokens
from penjing.run import Run
from penjing.tasks.classify import classify
from penjing.techniques.ema import ema
from penjing.techniques.swa import swa

Tiny = Callable[..., Path]
ZERO: dict[str, dict[str, Any]] = {
    "distill": {"alpha": 0.0},
    "ema": {"decay": 0.0},
    "qat": {"start": 1.0},
    "sparsify": {"share": 0.0},
    "swa": {"start": 1.0},
}
MORE: dict[str, dict[str, Any]] = {  # settings under which a stopped run goes on, too
    "distill": {"unlabelled": "rows", "augment": "swap", "hidden": 1.0, "relations": 1.0},
    "qat": {"to": "round", "bits": 3, "start": 0.5},
}
TECHNIQUES = sorted(plugin.found("techniques"))
WAYS = [(name, {}) for name in TECHNIQUES] + list(MORE.items())
STEPS = 6
LENGTHS = np.random.default_rng(0).integers(2, 12, 24)
TOKENS = Tokens(
    np.random.default_rng(1).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
LABELS = np.arange(24) % 3


def technique_of(name: str, **settings: Any) -> Technique:
    made: Technique = plugin.build("techniques", plugin.Choice(name, settings))
    if made.plan:
        made.plan(STEPS)
    return made


def outset(model: Model, base: Base, folder: Path) -> Outset:
    """What a technique is shown: 24 rows, and a teacher of other random weights."""
    names, task = ["a", "b", "c"], classify()

    def teacher(name: str | None) -> Any:
        own = load(str(folder))
        torch.manual_seed(7)
        made = Model(own.trunk, ClassHead(own.width, 3, pooling="mean", dropout=0.1), own.way)
        made.requires_grad_(False).eval()
        return SimpleNamespace(model=made, base=own, task=task, labels=names, card={})

    rows = Rows([str(i) for i in range(24)], [()] * 24, ("rows",), np.zeros(24, np.int32), np.arange(24))
    return Outset(
        model, base, task, names, Part(rows, TOKENS, LABELS), 0, 8, 8192, True, teacher,
        read=lambda source: Part(rows, TOKENS, np.zeros(24, np.int64)),
        outputs=lambda bundle, rows: outputs(bundle.model, TOKENS),
        each=each, tell=lambda sentence: None,
    )  # fmt: skip


class Bench:
    """A tiny model with its optimizer and techniques, made alike every time."""

    def __init__(self, folder: Path, *techniques: Technique) -> None:
        base = load(str(folder))
        torch.manual_seed(0)
        self.model = Model(base.trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.1), base.way)
        for begin in [t.begin for t in techniques if t.begin]:
            begin(outset(self.model, base, folder))
        self.settings = TrainSpec(warmup=0.0)
        self.optimizer = optim.optimizer(self.model, self.settings, 1e-2)
        self.techniques = techniques

    def train(self, start: int, stop: int) -> list[float]:
        """The losses of steps `start` to `stop`."""

        def stream() -> Any:
            for rows in batches.steps(LENGTHS, batch=8, seed=0, group=True, start=start):
                yield [batches.pack(TOKENS, rows, LABELS)]

        share = optim.schedule(self.settings, STEPS)
        loop = train_steps(
            self.model, stream(), classify().loss, self.optimizer, share,
            start=start, steps=stop, techniques=self.techniques,
        )  # fmt: skip
        return [step.loss for step in loop]

    def saved(self) -> list[bytes]:
        """What would be saved as the best bundle, and then the weights that train, bit for bit."""
        read = lambda: [p.detach().numpy().tobytes() for p in self.model.parameters()]  # noqa: E731
        shown = [t.weights for t in self.techniques if t.weights]
        if not shown:
            return [*read(), *read()]
        with shown[0](self.model):
            inside = read()
        return [*inside, *read()]


def test_every_technique_says_what_makes_it_nothing() -> None:
    assert sorted(ZERO) == TECHNIQUES


@pytest.mark.parametrize("name", TECHNIQUES)
def test_at_zero_strength_a_technique_is_bit_for_bit_none(name: str, tiny: Tiny) -> None:
    none, zero = Bench(tiny("bert")), Bench(tiny("bert"), technique_of(name, **ZERO[name]))
    assert none.train(0, STEPS) == zero.train(0, STEPS)
    assert none.saved() == zero.saved()


@pytest.mark.parametrize("name", TECHNIQUES)
@pytest.mark.slow
def test_with_its_defaults_a_technique_does_something(name: str, tiny: Tiny) -> None:
    none, some = Bench(tiny("bert")), Bench(tiny("bert"), technique_of(name))
    none.train(0, STEPS)
    some.train(0, STEPS)
    assert none.saved() != some.saved()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), WAYS)
@pytest.mark.parametrize("stop", [2, 5])
def test_a_stopped_run_goes_on_bit_for_bit(
    name: str, settings: dict[str, Any], stop: int, tiny: Tiny, tmp_path: Path
) -> None:
    whole = Bench(tiny("bert"), technique_of(name, **settings))
    losses = whole.train(0, STEPS)
    half = Bench(tiny("bert"), technique_of(name, **settings))
    first = half.train(0, stop)
    keep.save(Run(tmp_path), half.model, half.optimizer, half.techniques, {"step": stop})
    again = Bench(tiny("bert"), technique_of(name, **settings))
    assert keep.restore(Run(tmp_path), again.model, again.optimizer, again.techniques) == {"step": stop}
    assert [*first, *again.train(stop, STEPS)] == losses
    assert again.saved() == whole.saved()


@pytest.mark.parametrize(
    ("technique", "every"), [(ema(every=9), "`ema.every` is 9"), (swa(every=3), "`swa.every` is 3")]
)
def test_an_average_of_no_step_is_refused(technique: Technique, every: str) -> None:
    assert technique.plan
    with pytest.raises(SpecError) as error:
        technique.plan(8)
    told(error, every, "nothing would be averaged", "Lower")
