"""Averages of weights against torch's own, formulas in float64, and the whole word table."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import swa_utils

from penjing import load, tune
from penjing.errors import SpecError
from penjing.jobs.prepare import techniques_of
from penjing.models.average import Average
from penjing.models.embedding import RowsInUse
from penjing.records import Technique
from penjing.spec import read
from penjing.techniques.ema import ema
from penjing.techniques.swa import swa

Walk = list[nn.Module]


@pytest.fixture
def walk() -> Walk:
    """A small net after each of nine steps of a random walk."""
    net, found = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), []
    for _ in range(9):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        found.append(copy.deepcopy(net))
    return found


def follow(technique: Technique, walk: Walk) -> list[Tensor]:
    """The weights that the technique shows at the end of the walk."""
    assert technique.after_update
    assert technique.weights
    if technique.plan:
        technique.plan(len(walk))
    for step, net in enumerate(walk, start=1):
        technique.after_update(net, step)
    with technique.weights(walk[-1]):
        return [p.detach().clone() for p in walk[-1].parameters()]


def near(ours: list[Tensor], theirs: Any, tolerance: float = 1e-6) -> bool:
    return all(torch.allclose(a, b.to(a), atol=tolerance) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_ema_is_torchs(decay: float, walk: Walk) -> None:
    peer = swa_utils.AveragedModel(walk[0], multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    for net in walk:
        peer.update_parameters(net)
    assert near(follow(ema(decay=decay, warmup=False), walk), peer.module.parameters())


def test_ema_warms_up_as_the_formula_says(walk: Walk) -> None:
    for decay, every in ((0.9, 1), (0.3, 1), (0.9, 2)):
        taken = [net for step, net in enumerate(walk, 1) if step % every == 0]
        means = [p.detach().double() for p in taken[0].parameters()]
        for t, net in enumerate(taken[1:], start=1):
            d = min(decay, (1 + t) / (10 + t))
            means = [
                d * m + (1 - d) * p.detach().double() for m, p in zip(means, net.parameters(), strict=True)
            ]
        assert near(follow(ema(decay=decay, every=every), walk), means), (decay, every)


def test_swa_is_torchs_mean_of_the_last_part(walk: Walk) -> None:
    peer = swa_utils.AveragedModel(walk[0])
    for net in walk[6:]:  # 9 steps, from 2/3 on
        peer.update_parameters(net)
    assert near(follow(swa(start=2 / 3), walk), peer.module.parameters())
    even = [list(net.parameters()) for net in (walk[3], walk[5], walk[7])]
    means = [torch.stack(ps).detach().mean(0) for ps in zip(*even, strict=True)]
    assert near(follow(swa(start=0.25, every=2), walk), means)


def test_outside_the_model_has_its_own_weights_bit_for_bit(walk: Walk) -> None:
    average = Average()
    with average.shown(walk[8]):  # nothing was added yet
        assert torch.equal(walk[8][0].weight, copy.deepcopy(walk[8])[0].weight)
    average.add(walk[0], 0.5)
    before = copy.deepcopy(walk[8])

    def interrupted() -> None:
        with average.shown(walk[8]):
            assert torch.equal(walk[8][0].weight, walk[0][0].weight)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert near([*walk[8].parameters()], before.parameters(), 0.0)


def test_what_is_frozen_is_neither_held_nor_touched(walk: Walk) -> None:
    for net in walk:
        net[0].requires_grad_(False)
    average = Average()
    average.add(walk[0], 0.5)
    assert sorted(average.state_dict()["weights"]) == ["1.bias", "1.weight"]
    frozen = walk[8][0].weight.clone()
    with average.shown(walk[8]):
        assert torch.equal(walk[8][0].weight, frozen)


def test_the_average_of_rows_in_use_is_that_of_the_whole_table() -> None:
    table = nn.Embedding(10, 4)
    used, average, dense = np.array([1, 2, 5]), Average(), Average()
    rows = nn.Sequential(RowsInUse(table, used))
    whole = nn.Sequential(copy.deepcopy(table))
    for step in range(4):  # weight decay on all rows, steps on those in use
        with torch.no_grad():
            move = torch.randn(3, 4)
            rows[0].weight.mul_(0.9).add_(move)
            rows[0].decay *= 0.9
            whole[0].weight.mul_(0.9)
            whole[0].weight[used] += move
        for one, model in ((average, rows), (dense, whole)):
            one.add(model, 0.5 if step else 0.0)
    with average.shown(rows), dense.shown(whole):
        assert torch.allclose(rows[0].full(), whole[0].weight, atol=1e-6)
    assert rows[0].decay == pytest.approx(0.9**4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ema(decay=1.0), "`ema.decay` must be at least 0 and below 1; it is 1.0"),
        (lambda: ema(every=0), "`ema.every` counts steps"),
        (lambda: swa(start=1.5), "`swa.start` is a share of the steps, 0 to 1; it is 1.5"),
        (lambda: swa(every=0), "`swa.every` counts steps"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], Technique], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


@pytest.mark.slow
def test_two_averages_exclude_each_other() -> None:
    with pytest.raises(SpecError, match="`ema` and `swa` both decide which weights are saved"):
        techniques_of(read({"techniques": ["ema", "swa"]}))


@pytest.mark.slow
def test_a_run_validates_and_saves_the_average(small: dict[str, Any]) -> None:
    small |= {"precision": "bf16", "techniques": [{"swa": {"start": 0.0}}]}
    small["train"] |= {"steps": 3, "evals": 1, "save_s": 0, "lr": 1e-2}
    run = tune(small)
    last = load_file(run.folder / "last" / "state.safetensors")
    mean = last["state.technique.swa/weights/head.out.bias"]
    assert torch.equal(dict(load(run.folder).model.named_parameters())["head.out.bias"], mean)
    assert not torch.equal(last["model.head.out.bias"], mean)
