"""Lion and Muon against their formulas in float64; several optimizers as one, saved and restored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.engine import optim
from penjing.engine.lion import Lion
from penjing.engine.loop import train_steps
from penjing.engine.together import Together
from penjing.errors import SpecError
from penjing.jobs import keep
from penjing.keys import TrainSpec
from penjing.methods.bitfit import bitfit
from penjing.models.embedding import RowsInUse, train_rows_in_use
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Loss, Method
from penjing.run import Run
from penjing.spec import read

Tiny = Callable[..., Path]
A, B, C = 3.4445, -4.7750, 2.0315  # Newton-Schulz, Jordan et al. 2024


def model_of(folder: Path) -> Model:
    base = load(str(folder))
    torch.manual_seed(0)
    return Model(base.trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way)


def gradients(n: int, *shape: int) -> list[Tensor]:
    return [torch.randn(*shape) for _ in range(n)]


def test_lion_is_algorithm_2_in_float64() -> None:
    weight, lr, decay, (b1, b2) = nn.Parameter(torch.randn(4, 3)), 1e-2, 0.3, (0.8, 0.95)
    made = Lion([weight], lr, betas=(b1, b2), weight_decay=decay)
    w, m = weight.detach().double().numpy(), np.zeros((4, 3))
    for grad in gradients(7, 4, 3):
        weight.grad = grad.clone()
        made.step()
        g = grad.double().numpy()
        w = w * (1 - lr * decay) - lr * np.sign(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g
        assert torch.equal(weight.grad, grad)
    assert np.allclose(weight.detach().numpy(), w, atol=1e-6)


def newton_schulz(update: np.ndarray) -> np.ndarray:
    """Five steps of the quintic iteration, in float64."""
    wide = update if update.shape[0] <= update.shape[1] else update.T
    x = wide / np.linalg.norm(wide)
    for _ in range(5):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x if update.shape[0] <= update.shape[1] else x.T


def test_newton_schulz_maps_singular_values_into_the_golden_range() -> None:
    values = np.geomspace(0.01, 0.7, 40)
    left, right = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0], np.eye(40)
    made = torch.tensor((left * (values / np.linalg.norm(values))) @ right, dtype=torch.float32)
    weight = nn.Parameter(torch.zeros(40, 40))
    weight.grad = made
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, momentum=0.0).step()
    found = np.linalg.svd(weight.detach().numpy())[1]
    exact = np.linalg.svd(newton_schulz(made.double().numpy()))[1]
    lowest = values[0] / np.linalg.norm(values)  # below 0.01 it is not promised
    assert lowest < 0.01
    assert exact[: np.sum(values / np.linalg.norm(values) >= 0.01)].min() > 0.681
    assert exact.max() < 1.135
    assert np.abs(found - exact).max() < 0.05  # torch iterates in bf16


@pytest.mark.parametrize("shape", [(24, 6), (6, 24), (12, 12)])
@pytest.mark.parametrize("own", [None, 0.02], ids=["as large as adamw's", "a rate of its own"])
def test_muon_is_its_formula_in_float64(shape: tuple[int, int], own: float | None) -> None:
    weight, lr, decay, momentum = nn.Parameter(torch.randn(shape)), 1e-2, 0.1, 0.95
    peak = own or lr
    group = {"params": [weight], "lr": peak, "weight_decay": decay, "peak": peak, "hidden": True}
    made = optim._muon([group], TrainSpec(optimizer="muon", muon_lr=own), lr)
    scale = 0.2 * max(shape) ** 0.5 if own is None else max(1, shape[0] / shape[1]) ** 0.5
    w, m = weight.detach().double().numpy(), np.zeros(shape)
    for grad in gradients(5, *shape):
        weight.grad = grad
        made.step()
        g = grad.double().numpy()
        m = momentum * m + (1 - momentum) * g
        w = w * (1 - peak * decay) - peak * scale * newton_schulz((1 - momentum) * g + momentum * m)
    moved = 5 * peak * scale / min(shape) ** 0.5
    assert np.abs(weight.detach().numpy() - w).max() < 0.03 * moved


def test_muon_moves_hidden_matrices_and_adamw_the_rest(tiny: Tiny) -> None:
    model = model_of(tiny("bert"))
    made = optim.optimizer(model, TrainSpec(optimizer="muon"), 1e-3)
    assert isinstance(made, Together)
    muon, adamw = made._parts
    assert [type(part) for part in made._parts] == [torch.optim.Muon, torch.optim.AdamW]
    names = {id(p): name for name, p in model.named_parameters()}
    hidden = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert hidden == {n for n, p in model.named_parameters() if ".layer." in n and p.ndim == 2}
    assert hidden | rest == {*names.values()}
    assert not hidden & rest
    assert {n for n in rest if "embeddings" in n and "Norm" not in n}


def test_rates_and_decay_hold_for_muon_too(tiny: Tiny) -> None:
    model = model_of(tiny("bert"))
    settings = TrainSpec(optimizer="muon", layer_decay=0.5, head_lr=7.0, weight_decay=0.3, muon_lr=2.0)
    groups = optim.groups(model, settings, 1.0)
    of = {id(p): (g["peak"], g["weight_decay"]) for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    found = {name: of[id(p)] for name, p in model.named_parameters()}
    assert found["trunk.encoder.layer.1.output.dense.weight"] == (2.0 * 0.5, 0.3)
    assert found["trunk.encoder.layer.0.output.dense.weight"] == (2.0 * 0.25, 0.3)
    assert found["trunk.encoder.layer.1.output.dense.bias"] == (0.5, 0.0)
    assert found["trunk.embeddings.word_embeddings.weight"] == (0.125, 0.3)
    assert found["head.out.weight"] == (7.0, 0.3)


def test_muon_without_a_matrix_to_move_is_refused(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0)
    model = Model(bitfit().apply(base.trunk), head, base.way)
    with pytest.raises(SpecError, match="hidden matrices of the base; none of them train here"):
        optim.optimizer(model, TrainSpec(optimizer="muon"), 1e-3)


def walked(model: Model, made: torch.optim.Optimizer, start: int, stop: int) -> None:
    for step in range(start, stop):
        torch.manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optim.set_rates(made, 1.0 - 0.1 * step)
        made.step()


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "sgd", "adafactor"])
def test_an_optimizer_goes_on_bit_for_bit_from_what_was_saved(name: str, tiny: Tiny, tmp_path: Path) -> None:
    settings = TrainSpec(optimizer=name, lr=1e-2)  # type: ignore[arg-type]
    whole, half, again = (model_of(tiny("bert")) for _ in range(3))
    walked(whole, optim.optimizer(whole, settings, 1e-2), 0, 4)
    made = optim.optimizer(half, settings, 1e-2)
    walked(half, made, 0, 2)
    keep.save(Run(tmp_path), half, made, (), {})
    fresh = optim.optimizer(again, settings, 1e-2)
    keep.restore(Run(tmp_path), again, fresh, ())
    walked(again, fresh, 2, 4)
    for one, other in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", optim.DECAY_ALONE)
def test_rows_in_use_end_as_in_the_whole_table(name: str, tiny: Tiny) -> None:
    settings = TrainSpec(optimizer=name, weight_decay=0.3)  # type: ignore[arg-type]
    ids, tables = torch.tensor([12, 30, 30, 41]), []
    for rows_only in (False, True):
        model = model_of(tiny("bert"))
        table: Any = model.trunk.get_input_embeddings()  # type: ignore[operator]
        if rows_only:
            table = train_rows_in_use(model.trunk, ids.numpy())
        made = optim.optimizer(model, settings, 1e-2)

        def loss(model: Any, batch: Any, table: Any = table) -> Loss:
            return Loss((table(ids) ** 2).mean())

        list(train_steps(model, iter([[Fake()]] * 4), loss, made, lambda step: 1.0, steps=4))
        tables.append(table.full() if isinstance(table, RowsInUse) else table.weight)
    assert torch.allclose(*tables, atol=1e-6)


class Fake:
    """A batch of one target, of which the loss takes nothing."""

    n_targets, n_tokens, lengths, rows = 1.0, 4, torch.tensor([4]), (0,)

    def to(self, device: Any) -> "Fake":
        return self


def test_lion_takes_a_tenth_of_the_methods_rate_unless_one_is_given() -> None:
    method = Method("lora", lambda trunk: trunk, lr=1e-3, saves="peft", by_width=0.5)
    assert optim.own_rate(TrainSpec(optimizer="lion"), method, 384) == pytest.approx(1e-4)
    assert optim.own_rate(TrainSpec(optimizer="lion", lr=3e-5), method, 384) == 3e-5
    assert optim.own_rate(TrainSpec(optimizer="muon"), method, 384) == 1e-3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "sgd"}, r"`train.lr` is not given; .* `train.optimizer: sgd`. Say `train.lr: 0.01`"),
        ({"optimizer": "adafactor"}, "`train.lr` is not given"),
        ({"optimizer": "lion", "eps": 1e-6}, "`lion` does not use it. Drop it, or choose .*adamw"),
        ({"muon_lr": 0.02}, "`adamw` does not use it. Drop it, or choose `train.optimizer: muon`"),
    ],
)
def test_settings_an_optimizer_cannot_use_or_lacks_are_errors(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read({"train": settings})
