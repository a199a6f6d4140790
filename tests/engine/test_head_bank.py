"""Heads trained together on pooled states equal each by the ordinary loop."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.data import batches
from penjing.engine import optim
from penjing.engine.head_bank import HeadBank, HeadTrial
from penjing.engine.loop import train_steps
from penjing.errors import NotSupported
from penjing.keys import TrainSpec
from penjing.models.heads import ClassHead
from penjing.records import Batch, Step
from penjing.tasks.classify import classify

N, WIDTH = 30, 8
STATES = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(0))
LABELS = np.arange(N) % 3
MARKS = (np.random.default_rng(0).random((N, 3)) < 0.4).astype(np.float32)
WEIGHTS = np.array([0.3, 1.0, 2.5], dtype=np.float32)[LABELS]
LENGTHS = np.ones(N, dtype=np.int64)
MANY: dict[str, dict[str, Any]] = {
    "a": {"lr": 0.1, "batch": 8, "seed": 1},
    "b": {"lr": 0.02, "batch": 5, "seed": 2, "weight_decay": 0.3, "clip": 0.05},
    "c": {"lr": 0.05, "batch": 16, "seed": 3, "optimizer": "sgd", "schedule": "cosine", "steps": 3},
}


class Pooled(nn.Module):
    """The ordinary model over stored states: each row is one token of its own."""

    def __init__(self, head: ClassHead) -> None:
        super().__init__()
        self.trunk, self.head = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)])}), head
        self.trunk.requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(STATES[list(batch.rows)], batch.lengths)  # type: ignore[no-any-return]


def head(seed: int, *, dense: bool, dropout: float = 0.2) -> ClassHead:
    torch.manual_seed(seed)
    own = nn.Linear(WIDTH, WIDTH) if dense else None
    return ClassHead(WIDTH, 3, pooling="cls", dropout=dropout, dense=own)


def parts(name: str, dense: bool) -> tuple[Pooled, TrainSpec, Any]:
    given = {**MANY[name]}
    seed, steps = given.pop("seed"), given.pop("steps", 5)
    settings = TrainSpec(steps=steps, **given)
    model = Pooled(head(seed, dense=dense))
    optimizer = optim.optimizer(model, settings, settings.lr or 0.0)
    return model, settings, (seed, steps, optimizer, optim.schedule(settings, steps))


def rows_of(settings: TrainSpec, seed: int, start: int = 0) -> Iterator[list[np.ndarray]]:
    """Each step's rows in micro-batches of at most 6."""
    for rows in batches.steps(LENGTHS, batch=settings.batch, seed=seed, group=False, start=start):
        yield batches.cut(rows, LENGTHS, tokens=6)


def trial(name: str, dense: bool = False, loss: Any = None) -> HeadTrial:
    model, settings, (seed, steps, optimizer, share) = parts(name, dense)
    return HeadTrial(
        name,
        model,
        lambda start: rows_of(settings, seed, start),
        loss or classify().loss,
        optimizer,
        share,
        steps,
        clip=settings.clip,
        seed=seed,
    )


def alone(name: str, dense: bool, targets: np.ndarray, loss: Any, weights: np.ndarray | None) -> Any:
    model, settings, (seed, steps, optimizer, share) = parts(name, dense)

    def stream() -> Iterator[list[Batch]]:
        def packed(rows: np.ndarray) -> Batch:
            own = None if weights is None else torch.from_numpy(weights[rows])
            labels = torch.from_numpy(targets[rows])
            n_targets = batches.count_targets(len(rows), labels, own)
            one = torch.ones(len(rows), dtype=torch.int64)
            return Batch(one[:0], one, labels, n_targets, tuple(rows.tolist()), weights=own)

        for pieces in rows_of(settings, seed):
            yield [packed(rows) for rows in pieces]

    found = train_steps(model, stream(), loss, optimizer, share, steps=steps, clip=settings.clip, seed=seed)
    return list(found), model.head


@pytest.mark.parametrize("kind", ["labels", "several labels", "weights", "dense"])
def test_heads_together_equal_each_alone(kind: str) -> None:
    task = classify(multi_label=kind == "several labels", label_smoothing=0.1)
    targets = MARKS if kind == "several labels" else LABELS
    weights = WEIGHTS if kind == "weights" else None
    trials = [trial(name, kind == "dense", task.loss) for name in MANY]
    bank = HeadBank(trials, STATES, targets, weights=weights)
    together: dict[str, list[Step]] = {}
    for steps in bank.steps():
        for name, step in steps.items():
            together.setdefault(name, []).append(step)
    for one in trials:
        wanted, own = alone(one.name, kind == "dense", targets, task.loss, weights)
        assert len(wanted) == len(together[one.name]) == one.steps
        for ours, theirs in zip(together[one.name], wanted, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)
            same = {"loss": 0, "grad_norm": 0, "seconds": 0, "n_targets": 0}
            assert replace(ours, **same) == replace(theirs, **same)
            assert ours.n_targets == pytest.approx(theirs.n_targets)
        for mine, theirs_too in zip(one.model.head.parameters(), own.parameters(), strict=True):
            assert torch.allclose(mine, theirs_too, atol=1e-5)


def test_a_step_without_a_target_leaves_a_head_as_it_was() -> None:
    weights, task = WEIGHTS.copy(), classify()
    settings = parts("b", False)[1]
    weights[np.concatenate(next(rows_of(settings, MANY["b"]["seed"], start=1)))] = 0
    trials = [trial(name) for name in MANY]
    steps = [found["b"] for found in HeadBank(trials, STATES, LABELS, weights=weights).steps()]
    wanted, own = alone("b", False, LABELS, task.loss, weights)
    assert [one.n_targets > 0 for one in steps] == [True, False, True, True, True]
    assert [one.loss for one in steps] == pytest.approx([one.loss for one in wanted], abs=1e-6)
    for mine, theirs in zip(trials[1].model.head.parameters(), own.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_head_that_leaves_or_fails_leaves_the_others_as_they_were() -> None:
    plain = [trial("a"), trial("b")]
    list(HeadBank(plain, STATES, LABELS).steps())
    others = [trial("a"), trial("b"), trial("c")]
    sick = replace(trial("a"), name="sick")
    torch.nn.init.constant_(sick.model.head.out.weight, float("nan"))
    bank = HeadBank([*others, sick], STATES, LABELS)
    for number, steps in enumerate(bank.steps()):
        assert "sick" not in steps
        if number == 1:
            bank.drop("c")
    assert "Lower `train.lr`" in str(bank.failed["sick"])
    for one, other in zip(plain, others, strict=False):
        for mine, theirs in zip(one.model.head.parameters(), other.model.head.parameters(), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-6)


def test_heads_of_another_shape_or_name_are_refused() -> None:
    bank = HeadBank([trial("a")], STATES, LABELS)
    with pytest.raises(NotSupported, match="Drop it first"):
        bank.add(trial("a"))
    with pytest.raises(NotSupported, match="one shape"):
        bank.add(trial("b", dense=True))
