"""What hangs on units: gradients of gates, a unit's share of a product, moments; beside plainer ways."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from compressed import held_of, rehearsal_of
from conftest import tickets
from penjing.compressors.calibrating import batches_of
from penjing.data.batches import packed
from penjing.models.importance import activity, moments, sensitivity
from penjing.models.slim import sites_of, weight_of

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(7)]
LABELS = [label for _, label in tickets(7)]


@pytest.mark.parametrize("family", ["bert", "mpnet"])  # packed, and padded
@pytest.mark.parametrize("attention", [True, False], ids=["heads", "units"])
def test_sensitivity_is_the_gradient_of_a_gate_on_each_unit(family: str, attention: bool, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    model, rehearsal = held.model, rehearsal_of(held, TEXTS, LABELS)
    sites = sites_of(model.trunk, attention=attention)
    units = {site.last: site.n for site in sites}
    found = sensitivity(model, held.task.loss, batches_of(rehearsal), units)
    gates = {site.last: torch.ones(site.n, requires_grad=True) for site in sites}
    for site in sites:
        gate, size = gates[site.last], site.size
        model.trunk.get_submodule(site.last).register_forward_pre_hook(
            lambda module, given, gate=gate, size=size: (given[0] * gate.repeat_interleave(size),)
        )
    wanted = {name: torch.zeros(n, dtype=torch.float64) for name, n in units.items()}
    for row in range(len(TEXTS)):  # one row at a time: each has a gradient of its own
        batch = packed(rehearsal.part, np.array([row]))
        grads = torch.autograd.grad(held.task.loss(model, batch).mean, [*gates.values()])
        for name, grad in zip(gates, grads, strict=True):
            wanted[name] += grad.abs().double()
    for name in units:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-7)
    assert not any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_activity_and_moments_are_those_of_the_tokens_alone(family: str, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    model, rehearsal = held.model, rehearsal_of(held, TEXTS)
    site = sites_of(model.trunk, attention=True)[1]
    seen: list[torch.Tensor] = []
    hook = model.trunk.get_submodule(site.last).register_forward_pre_hook(
        lambda module, given: seen.append(given[0].reshape(-1, given[0].shape[-1]).double())
    )
    with torch.no_grad():
        for row in range(len(TEXTS)):  # alone, a row is never padded
            model.states(packed(rehearsal.part, np.array([row])))
    hook.remove()
    x, weight = torch.cat(seen), weight_of(model.trunk, site.last)
    batches = batches_of(rehearsal)
    found = activity(model, batches, {site.last: site.n}, {site.last: weight})[site.last]
    for unit in range(site.n):
        own = slice(unit * site.size, (unit + 1) * site.size)
        part = F.linear(x[:, own], weight[:, own].double())
        assert float(found[unit]) == pytest.approx(float(part.norm(dim=1).mean()), rel=1e-4)
    ones = torch.cat([x, x.new_ones(len(x), 1)], 1)
    torch.testing.assert_close(moments(model, batches, site.last), ones.T @ ones, rtol=1e-4, atol=1e-4)
