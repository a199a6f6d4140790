"""Five promises, tried on the user's own spec with a few of its rows: a table of differences.

Dropout is off and precision fp32 where a promise is about numbers; the two about repeating keep the spec's
own.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penjing import spec as specs
from penjing.bundle import load as load_bundle
from penjing.bundle import save as save_bundle
from penjing.data import batches
from penjing.device import Machine, choose
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.engine.scaling import LossScale
from penjing.errors import NotSupported
from penjing.jobs import keep
from penjing.jobs.feeding import between, corpus_of, texts_of
from penjing.jobs.news import News, Tell, silent
from penjing.jobs.outset import begin_techniques
from penjing.jobs.prepare import (
    NO_DATA,
    Data,
    Ready,
    bound,
    card_of,
    load_base,
    part_of,
    ready,
    rows_of,
    stream,
    task_of,
)
from penjing.models.modes import evaluating
from penjing.models.packing import NATIVE, Way, run
from penjing.records import Batch, Part
from penjing.run import Run
from penjing.spec import Spec
from penjing.task import Task

ROWS, STEPS = 64, 6


@dataclass(frozen=True)
class Difference:
    """One promise: the largest difference found, what is allowed, and whether it held."""

    promise: str
    found: float
    allowed: float
    note: str = ""

    @property
    def held(self) -> bool:
        return self.found <= self.allowed


@dataclass(frozen=True)
class _Bench:
    spec: Spec
    plain: Task  # as no base has bound it
    task: Task
    machine: Machine
    data: Data
    part: Part

    def ready(self, *, plain: bool, machine: Machine | None = None) -> Ready:
        """A fresh model; `plain`: no dropout anywhere."""
        changes: dict[str, Any] = {
            "train": self.spec.train.model_copy(update={"dropout": 0.0} if plain else {})
        }
        spec = self.spec.model_copy(update=changes)
        place = machine or self.machine
        base, used = load_base(spec, place), np.unique(self.part.tokens.ids)
        task = bound(self.plain, base, self.data)  # a head may share weights with its base
        made = ready(spec, task, self.data.names, base, place, None if task.feed else used, steps=STEPS)
        if plain:
            for module in made.model.head.modules():
                if isinstance(getattr(module, "dropout", None), float):
                    module.dropout = 0.0  # type: ignore[assignment]
        begin_techniques(made, spec, task, self.data.names, place, self.part, silent)
        return made

    def train(self, made: Ready, optimizer: Any, *, start: int, stop: int, micro: int | None = None) -> None:
        settings = self.spec.train
        size = min(settings.batch, max(2, ROWS // 4))

        steps = stream(self.spec, self.task, self.part, start=start, batch=size, micro_tokens=micro)
        share = optim.schedule(settings, STEPS)
        for _ in train_steps(
            made.model,
            steps,
            self.task.loss,
            optimizer,
            share,
            steps=stop,
            start=start,
            clip=settings.clip,
            seed=self.spec.seed,
            techniques=made.techniques,
            scale=LossScale(2.0**10) if self.machine.precision == "fp16" else None,  # too low to change
        ):
            pass

    def optimizer(self, made: Ready) -> Any:
        return optim.optimizer(made.model, self.spec.train, made.lr)


def selfcheck(
    source: str | Path | Mapping[str, Any] | Spec | None = None,
    *,
    sets: tuple[str, ...] = (),
    tell: Tell = silent,
    **keywords: Any,
) -> list[Difference]:
    """Try the five promises on this spec; under two minutes for a small base."""
    spec = specs.read(source, sets=sets, **keywords)
    task = task_of(spec)
    machine = choose(spec.device, spec.precision)
    precise = Machine(machine.device, "fp32", machine.threads)
    base = load_base(spec, precise, tell)
    if task.feed:
        whole = bound(task, base, NO_DATA)
        data, (train, _) = corpus_of(spec, whole, texts_of(spec), base, tell)
        part = between(train, 0, min(ROWS, len(train)))
    else:
        data = rows_of(spec, task, tell)
        whole = bound(task, base, data)
        rows = data.train.take(_spread(task.encode(data.train, data.names), len(data.train)))
        part = part_of(spec, whole, rows, data.names, base, weigh=True)
    if not whole.learns:
        raise NotSupported(
            f"Selfcheck tries what training promises; `{task.name}` as set makes no step. Try it on a spec "
            "that learns, such as `task: few_shot`."
        )
    bench = _Bench(spec, task, whole, machine, NO_DATA if task.feed else data, part)
    found = []
    for text, job in (
        ("accumulated micro-batches = one big batch", lambda: _accumulation(bench, precise)),
        ("packed = padded", lambda: _packing(bench, precise)),
        ("resumed = uninterrupted", lambda: _resuming(bench)),
        ("same seed = same run", lambda: _repeating(bench)),
        ("saved and loaded = before", lambda: _saving(bench)),
    ):
        tell(News("stage", text))
        found.append(job())
    return found


def _spread(targets: np.ndarray, n_rows: int) -> np.ndarray:
    """Rows of as many classes as fit; of the whole range where they have none."""
    order = np.arange(n_rows)
    if targets.dtype != object:
        order = np.argsort(targets if targets.ndim == 1 else targets.argmax(1), kind="stable")
    return np.sort(order[np.linspace(0, len(order) - 1, min(ROWS, len(order))).astype(int)])


def _trained(made: Ready) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in made.model.named_parameters() if p.requires_grad}


def _gap(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[n].float() - b[n].float()).abs().max()) for n in a)


def _accumulation(bench: _Bench, precise: Machine) -> Difference:
    """One plain gradient step at rate 1e-2: Adam would turn rounding near zero into a difference."""
    results = []
    for micro in (10**9, 1):
        made = bench.ready(plain=True, machine=precise)
        trained = [p for p in made.model.parameters() if p.requires_grad]
        sgd = torch.optim.SGD([{"params": trained, "lr": 1e-2, "weight_decay": 0.0, "peak": 1e-2}], lr=1e-2)
        bench.train(made, sgd, start=STEPS // 2, stop=STEPS // 2 + 1, micro=micro)
        results.append(_trained(made))
    return Difference(
        "accumulated micro-batches = one big batch",
        _gap(*results),
        1e-6,
        "largest difference of a weight after a step",
    )


def _packing(bench: _Bench, precise: Machine) -> Difference:
    base = load_base(bench.spec, precise)
    promise = "packed = padded"
    if not base.way.packed:
        why = base.way.reason if base.way.sight else f"this base runs padded: {base.way.reason}"
        return Difference(promise, 0.0, 1e-5, why)
    batch = batches.pack(bench.part.tokens, np.arange(min(16, len(bench.part.tokens)))).to(precise.device)
    base.trunk.eval()
    with torch.no_grad():
        packed = run(base.trunk, base.way, batch.ids, batch.lengths.tolist())
        trunk: Any = copy.deepcopy(base.trunk)
        trunk.set_attn_implementation(NATIVE)
        padded = run(trunk, Way(False), batch.ids, batch.lengths.tolist())
    return Difference(
        promise,
        float((packed - padded).abs().max()),
        1e-5 * max(1.0, float(padded.abs().max())),
        "hidden states",
    )


def _resuming(bench: _Bench) -> Difference:
    whole = bench.ready(plain=False)
    bench.train(whole, bench.optimizer(whole), start=0, stop=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        place = Run(Path(folder))
        half = bench.ready(plain=False)
        optimizer = bench.optimizer(half)
        bench.train(half, optimizer, start=0, stop=STEPS // 2)
        keep.save(place, half.model, optimizer, half.techniques, {"step": STEPS // 2})
        again = bench.ready(plain=False)
        optimizer = bench.optimizer(again)
        keep.restore(place, again.model, optimizer, again.techniques)
        bench.train(again, optimizer, start=STEPS // 2, stop=STEPS)
    return Difference(
        "resumed = uninterrupted",
        _gap(_trained(whole), _trained(again)),
        0.0,
        f"weights after {STEPS} steps, bit for bit",
    )


def _repeating(bench: _Bench) -> Difference:
    results = []
    for _ in range(2):
        made = bench.ready(plain=False)
        bench.train(made, bench.optimizer(made), start=0, stop=STEPS // 2)
        results.append(_trained(made))
    allowed = 0.0 if bench.machine.device.type == "cpu" else 1e-6
    return Difference("same seed = same run", _gap(*results), allowed, f"weights after {STEPS // 2} steps")


def _saving(bench: _Bench) -> Difference:
    made = bench.ready(plain=False)
    bench.train(made, bench.optimizer(made), start=0, stop=STEPS // 2)
    before = _answered(bench, made.model)
    card = {**card_of(bench.spec, bench.task, bench.machine, bench.data.names, made), "chosen": {}}
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(
            Path(folder) / "best", model=made.model, base=made.base, saves=made.method.saves, card=card
        )
        loaded = load_bundle(Path(folder) / "best", machine=bench.machine)
        after = _answered(bench, loaded.model)
    return Difference(
        "saved and loaded = before", float((before - after).abs().max()), 0.0, "outputs, bit for bit"
    )


def _answered(bench: _Bench, model: Any) -> torch.Tensor:
    """What the model gives of the part: its loss and, where the task keeps them, its outputs."""
    with evaluating(model), torch.no_grad():
        found = bench.task.loss(model, next(iter(_batches(bench))))
    mean = found.mean.reshape(1).float()
    return mean if found.outputs is None else torch.cat([mean, found.outputs.float().flatten()])


def _batches(bench: _Bench) -> list[Batch]:
    """All rows of the bench in one batch, as the loop would hand them over."""
    size = len(bench.part)
    step = next(stream(bench.spec, bench.task, bench.part, batch=size, micro_tokens=10**9))
    return [batch.to(bench.machine.device) for batch in step]
