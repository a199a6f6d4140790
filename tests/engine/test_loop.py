"""The loop: micro-batches, techniques, failures, memory, clipping, seeds, going on from a step."""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.data import batches
from penjing.engine.loop import train_steps
from penjing.errors import SpecError, TrainingFailed
from penjing.models.dropout import set_dropout
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Batch, Loss, Step, Technique, Tokens
from penjing.tasks.classify import classify

Tiny = Callable[..., Path]
N = 24
LENGTHS = np.random.default_rng(0).integers(1, 20, N)
TOKENS = Tokens(
    np.random.default_rng(1).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
LABELS = np.arange(N) % 3
WEIGHTS = np.array([0.3, 1.0, 2.5], dtype=np.float32)[LABELS]
TASK = classify()


@pytest.fixture
def model(tiny: Tiny) -> Model:
    """A tiny BERT with a head of three classes and no dropout."""
    return made(tiny("bert"), 0.0)


def made(folder: Path, dropout: float) -> Model:
    base = load(str(folder))
    set_dropout(base.trunk, dropout)
    torch.manual_seed(0)
    head = ClassHead(base.width, 3, pooling="mean", dropout=dropout)
    return Model(base.trunk, head, base.way).prepare("fp32")


def stream(
    *, tokens: int = 10_000, weights: np.ndarray | None = None, start: int = 0
) -> Iterator[list[Batch]]:
    for rows in batches.steps(LENGTHS, batch=8, seed=0, group=True, start=start):
        pieces = batches.cut(rows, LENGTHS, tokens=tokens)
        yield [batches.pack(TOKENS, piece, LABELS, weights) for piece in pieces]


def run(model: nn.Module, *, steps: int = 3, lr: float = 0.1, **settings: Any) -> list[Step]:
    """Train with plain SGD, whose update shows the gradient as it is."""
    made = settings.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr=lr)
    for group in made.param_groups:
        group["peak"] = group["lr"]
    source = settings.pop("source", None) or stream()
    return list(train_steps(model, source, TASK.loss, made, lambda step: 1.0, steps=steps, **settings))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def gap(one: nn.Module, other: nn.Module) -> float:
    return float((weights(one) - weights(other)).abs().max())


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("tokens", [1, 21, 60])
def test_the_size_of_micro_batches_changes_nothing(tokens: int, weighted: bool, model: Model) -> None:
    own = WEIGHTS if weighted else None
    other = copy.deepcopy(model)
    before = weights(model)
    whole = run(model, source=stream(weights=own))
    small = run(other, source=stream(tokens=tokens, weights=own))
    assert float((weights(model) - before).abs().max()) > 1e-3
    assert gap(model, other) < 1e-6
    for a, b in zip(whole, small, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-6)
        assert (a.n_tokens, a.n_rows, a.step) == (b.n_tokens, b.n_rows, b.step)
        assert a.n_targets == pytest.approx(b.n_targets)


def test_a_step_tells_what_was_before_the_update(model: Model) -> None:
    batch = next(stream())[0]
    with torch.no_grad():
        wanted = nn.functional.cross_entropy(model.train()(batch), batch.labels)
    step = run(model, steps=1, lr=0.3)[0]
    assert step.loss == pytest.approx(float(wanted), abs=1e-6)
    assert (step.step, step.lr, step.n_rows, step.n_targets) == (1, 0.3, 8, 8.0)
    assert (step.n_tokens, step.notes) == (batch.n_tokens, ())


def test_the_loss_is_the_mean_over_all_rows_of_the_update(model: Model) -> None:
    """A mean of micro-batches' means would weigh rows of small ones more."""
    own = next(stream(tokens=30, weights=WEIGHTS))
    assert len({len(b.lengths) for b in own}) > 1
    with torch.no_grad():
        rows = [nn.functional.cross_entropy(model.train()(b), b.labels, reduction="none") for b in own]
    share = torch.cat([b.weights for b in own if b.weights is not None])
    wanted = float((torch.cat(rows) * share).sum() / share.sum())
    assert run(model, steps=1, source=iter([own]))[0].loss == pytest.approx(wanted, abs=1e-6)


# ---- techniques: five places


def same(name: str = "same") -> Technique:
    """Fills every place and changes nothing."""

    def backward(model: nn.Module, batch: Batch, loss: Callable[[Batch], Loss], share: float) -> Loss:
        found = loss(batch)
        (found.mean * share).backward()
        return found

    return Technique(
        name,
        stream=lambda source: source,
        loss=lambda model, batch, found: found,
        backward=backward,
        edit_grads=lambda model: None,
        after_update=lambda model, step: None,
        finish=lambda model, run: None,
    )


@pytest.mark.parametrize("place", ["stream", "loss", "backward", "edit_grads", "after_update", "all"])
def test_a_technique_at_no_strength_is_none_bit_for_bit(place: str, tiny: Tiny) -> None:
    plain, other = made(tiny("bert"), 0.2), made(tiny("bert"), 0.2)
    technique = same() if place == "all" else Technique("one", **{place: getattr(same(), place)})
    found = run(other, techniques=[technique])
    assert [replace(s, seconds=0) for s in run(plain)] == [replace(s, seconds=0) for s in found]
    assert torch.equal(weights(plain), weights(other))


def test_the_five_places_are_called_in_order(model: Model) -> None:
    calls: list[str] = []

    def noting(technique: Technique, place: str) -> Any:
        inner = getattr(technique, place)

        def called(*args: Any) -> Any:
            calls.append(f"{technique.name}.{place}")
            return inner(*args)

        return called

    places = ("stream", "loss", "backward", "edit_grads", "after_update", "finish")
    first = replace(same("a"), **{p: noting(same("a"), p) for p in places})
    second = replace(same("b"), backward=None, **{p: noting(same("b"), p) for p in places if p != "backward"})
    run(model, steps=2, techniques=[first, second])
    step = [
        "a.backward",
        "a.loss",
        "b.loss",
        "a.edit_grads",
        "b.edit_grads",
        "a.after_update",
        "b.after_update",
    ]
    assert calls == ["a.stream", "b.stream", *step, *step]  # finish is the job's to call


def test_terms_of_a_loss_add_up_in_the_order_given(model: Model) -> None:
    add = Technique("add", loss=lambda m, b, f: Loss(f.mean + 1, {**f.parts, "add": 1.0}, f.outputs))
    double = Technique("double", loss=lambda m, b, f: Loss(f.mean * 2, f.parts, f.outputs))
    other = copy.deepcopy(model)
    plain = run(model, steps=1)[0]
    found = run(other, steps=1, techniques=[add, double], source=stream(tokens=21))[0]
    assert found.loss == pytest.approx(2 * (plain.loss + 1), abs=1e-5)
    assert found.parts == {"add": pytest.approx(1.0)}


def test_a_backward_gets_the_share_of_its_micro_batch(model: Model) -> None:
    shares: list[float] = []

    def backward(model: nn.Module, batch: Batch, loss: Callable[[Batch], Loss], share: float) -> Loss:
        shares.append(share)
        found = loss(batch)
        (found.mean * share).backward()
        return found

    other = copy.deepcopy(model)
    run(model, steps=1)
    run(other, steps=1, source=stream(tokens=21), techniques=[Technique("own", backward=backward)])
    assert len(shares) > 1
    assert sum(shares) == pytest.approx(1.0)
    assert gap(model, other) < 1e-6


def test_gradients_are_edited_before_they_are_clipped(model: Model) -> None:
    def louder(model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= 1000

    before = weights(model)
    step = run(model, steps=1, lr=1.0, clip=0.5, techniques=[Technique("louder", edit_grads=louder)])[0]
    assert step.grad_norm > 100
    assert float((weights(model) - before).norm()) == pytest.approx(0.5, rel=1e-3)


def test_gradients_are_alive_after_the_update(model: Model) -> None:
    seen: list[tuple[int, bool]] = []

    def look(model: nn.Module, step: int) -> None:
        seen.append((step, any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())))

    run(model, steps=2, techniques=[Technique("look", after_update=look)])
    assert seen == [(1, True), (2, True)]


def test_two_techniques_that_make_gradients_are_refused(model: Model) -> None:
    before = weights(model)
    with pytest.raises(SpecError, match="`fgm` and `pgd`"):
        run(model, techniques=[same("fgm"), same("pgd")])
    assert torch.equal(before, weights(model))


# ---- failures


def broken_at(step: int, how: str) -> Technique:
    """Spoils the loss or the gradients of one step."""
    count = [0]

    def loss(model: nn.Module, batch: Batch, found: Loss) -> Loss:
        count[0] += 1
        return Loss(found.mean * (float(how) if count[0] == step else 1.0), found.parts, found.outputs)

    def edit(model: nn.Module) -> None:
        count[0] += 1
        if count[0] == step:
            next(p for p in model.parameters() if p.grad is not None).grad.view(-1)[0] = float("nan")  # type: ignore[union-attr]

    return Technique("broken", edit_grads=edit) if how == "grad" else Technique("broken", loss=loss)


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("how", ["nan", "inf", "grad"])
def test_a_loss_or_gradient_that_is_no_number_stops_before_the_update(
    how: str, clip: float | None, model: Model
) -> None:
    twin = copy.deepcopy(model)
    run(twin, steps=1, clip=clip)
    with pytest.raises(TrainingFailed, match=r"step 2 .*Nothing was updated.*`train.lr`"):
        run(model, clip=clip, techniques=[broken_at(2, how)])
    assert torch.equal(weights(model), weights(twin))


class Tight(nn.Module):
    """A model on a machine where only `room` tokens fit at once."""

    def __init__(self, model: nn.Module, room: int, error: Exception, *, late: bool = False) -> None:
        super().__init__()
        self.model, self.room, self.error, self.late = model, room, error, late

    def forward(self, batch: Batch) -> Tensor:
        out: Tensor = self.model(batch)
        if batch.n_tokens > self.room:
            if not self.late:
                raise self.error
            out = Burst.apply(out, self.error)  # type: ignore[no-untyped-call]
        return out


class Burst(torch.autograd.Function):
    """Memory that runs out in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, error: Exception) -> Tensor:
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise ctx.error


ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("kind", ERRORS)
def test_running_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(
    kind: str, late: bool, model: Model
) -> None:
    twin = copy.deepcopy(model)
    plain = run(twin)
    assert sum(s.n_tokens > 40 for s in plain) > 1
    found = run(Tight(model, 40, ERRORS[kind], late=late))
    assert gap(model, twin) < 1e-6
    assert [s.n_tokens for s in found] == [s.n_tokens for s in plain]
    assert [s.loss for s in found] == pytest.approx([s.loss for s in plain], abs=1e-6)


def test_running_out_of_memory_is_told_once_with_what_avoids_it(model: Model) -> None:
    found = run(Tight(model, 40, ERRORS["cuda"]), steps=6)
    notes = [note for step in found for note in step.notes]
    assert 1 <= len(notes) <= 3
    assert "`train.micro_tokens:" in notes[0]
    assert not found[-1].notes


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize(("joint", "on"), [(False, "a single row"), (True, "rows that are compared")])
def test_memory_that_ends_on_a_whole_says_what_to_do(joint: bool, on: str, kind: str, model: Model) -> None:
    before = weights(model)
    with pytest.raises(TrainingFailed, match=rf"{on} .* tokens.*`train.checkpointing: true`"):
        run(Tight(model, 40 if joint else 0, ERRORS[kind]), joint=joint)
    assert torch.equal(before, weights(model))


def test_other_errors_come_through(model: Model) -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(Tight(model, 0, RuntimeError("shapes do not match")))


# ---- clipping


def adamw(model: nn.Module, **settings: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3, weight_decay=0.1, **settings)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("clip", [0.1, 1000.0, None])
def test_clipping_is_that_of_torch(clip: float | None, kind: str, fused: bool, model: Model) -> None:
    twin = copy.deepcopy(model)
    make = (
        adamw
        if kind == "adamw"
        else (lambda m, **s: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, **s))
    )
    source = list(itertools.islice(stream(), 4))
    found = run(model, steps=4, clip=clip, optimizer=make(model, fused=fused), source=iter(source))
    peer, norms = make(twin), []
    for step in source:
        peer.zero_grad()
        TASK.loss(twin.train(), step[0]).mean.backward()
        norms.append(float(nn.utils.clip_grad_norm_(twin.parameters(), clip or float("inf"))))
        peer.step()
    assert [s.grad_norm for s in found] == pytest.approx(norms, rel=1e-4)
    assert gap(model, twin) < 2e-6


# ---- seeds and going on


def test_the_same_seed_gives_the_same_run_bit_for_bit(tiny: Tiny) -> None:
    one, other, third = (made(tiny("bert"), 0.2) for _ in range(3))
    run(one, seed=4)
    torch.rand(7)  # what was drawn before does not matter
    run(other, seed=4)
    run(third, seed=5)
    assert torch.equal(weights(one), weights(other))
    assert not torch.equal(weights(one), weights(third))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_going_on_from_a_step_equals_never_having_stopped(cut: int, fused: bool, tiny: Tiny) -> None:
    whole, part, later = (made(tiny("bert"), 0.2) for _ in range(3))
    steps = run(whole, steps=6, optimizer=adamw(whole, fused=fused))
    first = adamw(part, fused=fused)
    run(part, steps=cut, optimizer=first)
    later.load_state_dict(part.state_dict())
    second = adamw(later, fused=fused)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    rest = run(later, steps=6, start=cut, optimizer=second, source=stream(start=cut))
    assert torch.equal(weights(whole), weights(later))
    assert [(s.step, s.loss) for s in rest] == [(s.step, s.loss) for s in steps[cut:]]


def test_the_schedule_is_asked_by_the_number_of_the_step(model: Model) -> None:
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    made.param_groups[0]["peak"] = 0.1
    asked: list[int] = []

    def share(step: int) -> float:
        asked.append(step)
        return step / 10

    found = list(train_steps(model, stream(), TASK.loss, made, share, steps=5, start=2))
    assert asked == [2, 3, 4]
    assert [s.lr for s in found] == pytest.approx([0.02, 0.03, 0.04])
