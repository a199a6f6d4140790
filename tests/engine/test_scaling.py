"""Loss scaling: powers of two change nothing, an overflow skips a step, small gradients are not lost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing import load as load_bundle
from penjing import tune
from penjing.data.batches import pack
from penjing.device import Machine, choose
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.engine.scaling import LossScale
from penjing.errors import NotSupported, TrainingFailed
from penjing.jobs import keep, several, training
from penjing.jobs.news import News
from penjing.jobs.train import resume
from penjing.keys import TrainSpec
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Batch, Loss, Step, Technique, Tokens
from penjing.tasks.classify import classify

Tiny = Callable[..., Path]
LENGTHS = np.array([6] * 6 + [9] * 6)
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
LABELS = np.arange(len(LENGTHS)) % 3


def stream() -> Iterator[list[Batch]]:
    while True:
        yield [pack(TOKENS, rows, LABELS) for rows in (np.arange(4), np.arange(4, 12))]


def model_of(folder: Path, precision: str = "fp32") -> Model:
    base = load(str(folder))
    torch.manual_seed(0)
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0)
    return Model(base.trunk, head, base.way).prepare(precision)


def run(
    model: nn.Module, scale: LossScale | None, *, optimizer: str = "adamw", **settings: Any
) -> list[Step]:
    made = optim.optimizer(model, TrainSpec(optimizer=optimizer, lr=1e-2), 1e-2)  # type: ignore[arg-type]
    loss = settings.pop("loss", classify().loss)
    steps = settings.pop("steps", 3)
    return list(
        train_steps(model, stream(), loss, made, lambda step: 1.0, steps=steps, scale=scale, **settings)
    )


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


@pytest.mark.parametrize("clip", [0.1, None])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
def test_a_scale_changes_not_a_bit_in_fp32(optimizer: str, clip: float | None, tiny: Tiny) -> None:
    plain, scaled = model_of(tiny("bert")), model_of(tiny("bert"))
    wanted = run(plain, None, optimizer=optimizer, clip=clip)
    found = run(scaled, LossScale(), optimizer=optimizer, clip=clip)
    assert torch.equal(weights(plain), weights(scaled))
    assert [(s.loss, s.grad_norm) for s in found] == [(s.loss, s.grad_norm) for s in wanted]


def test_techniques_see_gradients_as_they_are(tiny: Tiny) -> None:
    seen: list[Tensor] = []

    def look(model: nn.Module, *step: int) -> None:
        seen.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone())

    technique = Technique("look", edit_grads=look, after_update=look)
    for scale in (None, LossScale()):
        run(model_of(tiny("bert")), scale, techniques=[technique], clip=None)
    for unscaled, scaled in zip(seen[:6], seen[6:], strict=True):
        assert torch.equal(unscaled, scaled)


def overflowing(below: float) -> Callable[[nn.Module, Batch], Loss]:
    """A loss whose gradients overflow where they arrive multiplied by `below` or more."""

    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * float("inf") if float(grad) >= below else grad

    def loss(model: nn.Module, batch: Batch) -> Loss:
        found = classify().loss(model, batch)
        return Loss(Overflow.apply(found.mean))

    return loss


def test_an_overflow_skips_the_step_and_halves_the_scale(tiny: Tiny) -> None:
    model, scale = model_of(tiny("bert")), LossScale(1024.0)
    before = weights(model)
    after = [Technique("never", after_update=lambda model, step: pytest.fail("was called"))]
    skipped = run(model, scale, loss=overflowing(400.0), steps=1, techniques=after)[0]
    assert skipped.notes == ("gradients overflowed in fp16: step skipped, loss scale halved to 512",)
    assert torch.equal(weights(model), before)
    assert (scale.value, scale.good) == (512.0, 0)
    assert run(model, scale, loss=overflowing(400.0), steps=1)[0].notes == ()
    assert not torch.equal(weights(model), before)
    assert (scale.value, scale.good) == (512.0, 1)


def test_many_good_steps_double_the_scale() -> None:
    scale = LossScale(8.0, patience=3)
    assert [scale.judge(1.0) for _ in range(7)] == [""] * 7
    assert (scale.value, scale.good) == (32.0, 1)
    assert "halved to 16" in scale.judge(float("nan"))


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_what_no_scale_mends_is_an_error(fault: str, tiny: Tiny) -> None:
    wrong = overflowing(0.0)
    if fault == "loss":
        wrong = lambda model, batch: Loss(classify().loss(model, batch).mean * float("nan"))  # noqa: E731
    with pytest.raises(TrainingFailed, match=r"The loss at step [12] is .*finite numbers were wanted"):
        run(model_of(tiny("bert")), LossScale(2.0), loss=wrong)


def test_small_gradients_live_in_fp16_by_the_scale_only(tiny: Tiny) -> None:
    def small(model: nn.Module, batch: Batch) -> Loss:
        return Loss(classify().loss(model, batch).mean * 1e-7)

    norms = {}
    for name, precision, scale in (
        ("exact", "fp32", None), ("lost", "fp16", None), ("scaled", "fp16", LossScale())
    ):  # fmt: skip
        model = model_of(tiny("bert"), precision)
        model.head.requires_grad_(False)  # it is fp32 anyway
        norms[name] = run(model, scale, loss=small, steps=1)[0].grad_norm
    assert norms["scaled"] == pytest.approx(norms["exact"], rel=0.02)
    assert norms["lost"] < 0.7 * norms["exact"]


def test_fp16_follows_fp32(tiny: Tiny) -> None:
    exact = run(model_of(tiny("bert")), None, steps=8)
    found = run(model_of(tiny("bert"), "fp16"), LossScale(), steps=8)
    assert [s.loss for s in found] == pytest.approx([s.loss for s in exact], rel=0.03)
    assert exact[-1].loss < 0.8 * exact[0].loss


def test_on_a_cpu_fp16_is_refused() -> None:
    with pytest.raises(NotSupported, match=r"`precision: fp16` was asked for; it would run on cpu.*Say"):
        choose("cpu", "fp16")


@pytest.mark.slow
def test_a_stopped_fp16_run_goes_on_with_its_scale(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, which `choose` would refuse."""
    monkeypatch.setattr(several, "choose", lambda *asked: Machine(torch.device("cpu"), "fp16", 1))
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (2.0**16, 0, 2))  # doubled every two steps
    for name in ("introduce", "conclude"):  # they know what a CPU reaches in fp32 and bf16
        monkeypatch.setattr(training, name, lambda *args: None)
    small["train"] |= {"steps": 6, "evals": 1, "save_s": 0}
    whole = tune(small, name="whole")

    def tell(news: News) -> None:
        if news.text.startswith("loss") and news.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small, name="half", tell=tell)
    half = resume(Path(small["out"]) / "half")
    states = [(run.folder / keep.NAME).read_bytes() for run in (whole, half)]
    assert b'\\"scale\\": {\\"value\\": 524288.0, \\"good\\": 0' in states[0]
    assert [line["loss"] for line in half.lines("log.jsonl")] == [
        line["loss"] for line in whole.lines("log.jsonl")
    ]
    assert load_bundle(whole.folder, device="cpu").machine.precision in ("fp32", "bf16")
