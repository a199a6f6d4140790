"""AdaLoRA against the paper's formulas by hand and against peft's own model; resumed equals uninterrupted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import gap, stir, told
from contract import stream
from penjing.bundle_parts import with_adapter
from penjing.engine import optim
from penjing.engine.loop import train_steps
from penjing.errors import SpecError
from penjing.jobs import keep
from penjing.keys import TrainSpec
from penjing.methods.adalora import adalora, orthogonality_of
from penjing.models import peft_files
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Loss, Technique
from penjing.run import Run
from penjing.tasks.classify import classify
from penjing.techniques.ema import ema

Tiny = Callable[..., Path]
STEPS = 20


def ready(folder: Path, **settings: Any) -> tuple[Model, Technique]:
    torch.manual_seed(0)
    base = load(str(folder))
    method = adalora(**{"rank": 2, "start_rank": 4, **settings})
    trunk = method.apply(base.trunk)
    assert method.techniques
    (technique,) = method.techniques(trunk, STEPS)
    model = Model(trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)
    return model.prepare("fp32"), technique


def trained(
    model: Model,
    technique: Technique,
    optimizer: Any,
    *,
    start: int = 0,
    stop: int = STEPS,
    more: Sequence[Technique] = (),
) -> None:
    settings = TrainSpec(warmup=0, schedule="constant")
    for _ in train_steps(
        model, stream(), classify().loss, optimizer, optim.schedule(settings, STEPS),
        steps=stop, start=start, techniques=[technique, *more],
    ):  # fmt: skip
        pass


def optimizer_of(model: Model) -> Any:
    return optim.optimizer(model, TrainSpec(warmup=0, schedule="constant"), 3e-2)


def triplets(model: Model) -> dict[str, Tensor]:
    """E of every layer."""
    return {n: p.detach() for n, p in model.named_parameters() if "lora_E" in n}


def test_the_orthogonality_term_is_the_formulas(tiny: Tiny) -> None:
    model, technique = ready(tiny("bert"), orthogonality=0.3)
    stir(model.trunk)
    gaps = []
    for layer in model.trunk.modules():
        if hasattr(layer, "lora_E") and "default" in layer.lora_E:
            p, q = layer.lora_B["default"].double(), layer.lora_A["default"].double()
            for product in (p.T @ p, q @ q.T):
                gaps.append(((product - torch.eye(4)) ** 2).sum().sqrt())
    wanted = 0.3 * torch.stack(gaps).mean().item()
    assert technique.loss
    plain = Loss(torch.tensor(2.0))
    found = technique.loss(model, next(stream())[0], plain)
    assert found.mean.item() == pytest.approx(2.0 + wanted, rel=1e-6)
    assert found.parts["orthogonality"] == pytest.approx(wanted / 0.3, rel=1e-6)


def test_the_orthogonality_term_is_pefts_and_so_are_its_gradients(tiny: Tiny) -> None:
    """peft adds it to a loss that the model itself computes."""
    model, _ = ready(tiny("bert"), orthogonality=0.3)
    stir(model.trunk)
    tuner: Any = model.trunk.base_model

    class Says(nn.Module):
        def forward(self) -> Any:
            return type("Out", (), {"loss": torch.zeros(())})()

    tuner.model.forward = Says().forward
    wanted = tuner.forward().loss
    wanted.backward()
    theirs = {n: p.grad.clone() for n, p in model.trunk.named_parameters() if p.grad is not None}
    model.zero_grad()
    mine = 0.3 * orthogonality_of(model.trunk)
    mine.backward()
    assert mine.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert theirs
    for name, gradient in theirs.items():
        assert torch.allclose(model.trunk.get_parameter(name).grad, gradient, atol=1e-7), name


def test_without_a_weight_the_loss_is_untouched(tiny: Tiny) -> None:
    model, technique = ready(tiny("bert"), orthogonality=0.0)
    plain = Loss(torch.tensor(2.0))
    assert technique.loss
    assert technique.loss(model, next(stream())[0], plain) is plain


def test_the_budget_falls_by_the_papers_cube_and_ranks_end_at_the_target(tiny: Tiny) -> None:
    model, technique = ready(tiny("bert"), warm_share=0.1, final_share=0.3, allocate_every=1)
    n_layers, first, last, warm, settled = 12, 4, 2, 2, 14
    optimizer = optimizer_of(model)
    for step in range(1, STEPS + 1):
        trained(model, technique, optimizer, start=step - 1, stop=step)
        left = sum(int((e != 0).sum()) for e in triplets(model).values())
        if step <= warm:
            wanted = n_layers * first
        elif step >= settled:
            wanted = n_layers * last
        else:
            share = 1 - (step - warm) / (settled - warm)
            wanted = int(n_layers * (last + (first - last) * share**3))
        assert left == wanted, step


@pytest.mark.slow
def test_ranks_are_settled_also_where_fp16_left_that_step_out(tiny: Tiny) -> None:
    model, technique = ready(tiny("bert"), warm_share=0.1, final_share=0.3, allocate_every=1)
    n_layers, last, settled = 12, 2, 14
    optimizer = optimizer_of(model)
    trained(model, technique, optimizer, stop=settled - 1)
    trained(model, technique, optimizer, start=settled)
    assert sum(int((e != 0).sum()) for e in triplets(model).values()) == n_layers * last


def test_the_budget_is_pefts_own(tiny: Tiny) -> None:
    """The same training with peft's `update_and_allocate` called by hand after each step."""
    model, technique = ready(tiny("bert"))
    trained(model, technique, optimizer_of(model))
    other, theirs = ready(tiny("bert"))
    tuner: Any = other.trunk.base_model
    by_hand = Technique(
        "by hand", loss=theirs.loss, after_update=lambda _, step: tuner.update_and_allocate(step)
    )
    trained(other, by_hand, optimizer_of(other))
    assert all(torch.equal(mine, triplets(other)[name]) for name, mine in triplets(model).items())
    assert model.trunk.peft_config["default"].rank_pattern == other.trunk.peft_config["default"].rank_pattern  # type: ignore[index,union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 9, 14, 17])
def test_resumed_equals_uninterrupted(stop: int, tiny: Tiny, tmp_path: Path) -> None:
    """In the warm-up, while ranks fall, as they settle, and after."""
    whole, technique = ready(tiny("bert"))
    trained(whole, technique, optimizer_of(whole))
    half, technique = ready(tiny("bert"))
    optimizer = optimizer_of(half)
    trained(half, technique, optimizer, stop=stop)
    keep.save(Run(tmp_path), half, optimizer, [technique], {"step": stop})
    again, technique = ready(tiny("bert"))
    optimizer = optimizer_of(again)
    keep.restore(Run(tmp_path), again, optimizer, [technique])
    trained(again, technique, optimizer, start=stop)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


def test_a_bundle_saved_while_ranks_fall_holds_all_triplets(tiny: Tiny, tmp_path: Path) -> None:
    model, technique = ready(tiny("bert"), allocate_every=4)
    trained(model, technique, optimizer_of(model), stop=10)
    assert model.trunk.peft_config["default"].rank_pattern is None  # type: ignore[index,union-attr]


def test_what_an_average_still_holds_of_triplets_let_go_is_saved(tiny: Tiny, tmp_path: Path) -> None:
    """A moving average holds weights of steps before the ranks were settled, too."""
    model, technique = ready(tiny("bert"), warm_share=0.1, final_share=0.3, allocate_every=1)
    average, batch = ema(decay=0.9, warmup=False), next(stream())[0]
    trained(model, technique, optimizer_of(model), more=[average])
    config: Any = model.trunk.peft_config["default"]  # type: ignore[index,union-attr]
    settled = dict(config.rank_pattern)
    assert average.weights
    with average.weights(model), torch.no_grad():
        wanted = model.eval().states(batch)
        peft_files.save(model.trunk, tmp_path / "adapter")
    assert config.rank_pattern == settled
    assert sum(map(sum, settled.values())) == 24
    base = load(str(tiny("bert")))
    again = Model(with_adapter(tmp_path, base.trunk), model.head, base.way).requires_grad_(False)
    assert gap(again.prepare("fp32").eval().states(batch), wanted) < 1e-5


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"rank": 0}, ("`adalora.rank`", "at least 1", "0", "4 to 16")),
        (
            {"rank": 4, "start_rank": 4},
            ("`adalora.start_rank`", "above `adalora.rank`", "4", "`method: lora`"),
        ),
        ({"orthogonality": -0.1}, ("`adalora.orthogonality`", "0 or more", "-0.1", "usual")),
        ({"warm_share": 0.6, "final_share": 0.5}, ("`adalora.warm_share`", "0.6 and 0.5", "usual")),
        ({"allocate_every": 0}, ("`adalora.allocate_every`", "at least 1", "0", "Leave it out")),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as error:
        adalora(**settings)
    told(error, *parts)


def test_a_run_too_short_for_a_budget_is_refused(tiny: Tiny) -> None:
    method = adalora(rank=2)
    trunk = method.apply(load(str(tiny("bert"))).trunk)
    assert method.techniques
    with pytest.raises(SpecError) as error:
        method.techniques(trunk, 1)
    told(error, "`adalora`", "of 1 steps", "Train more steps", "`adalora.warm_share`")
