"""The fused GELU is transformers' own, in value and gradient."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers.activations import NewGELUActivation

from common import gap, words
from penjing.models.activations import fuse
from penjing.models.load import load
from penjing.models.packing import run


def test_values_and_gradients_are_transformers_own() -> None:
    x = torch.linspace(-12, 12, 999, dtype=torch.float64, requires_grad=True)
    model = nn.Sequential(NewGELUActivation())
    wanted = model(x)
    fuse(model)
    found = model(x)
    assert type(model[0]) is nn.GELU
    assert torch.allclose(found, wanted, atol=1e-12)
    one, other = (torch.autograd.grad(y.sin().sum(), x)[0] for y in (found, wanted))
    assert torch.allclose(one, other, atol=1e-12)


def test_a_base_answers_as_before(tiny: Callable[..., Path]) -> None:
    base = load(str(tiny("gpt2")))
    base.trunk.eval()
    ids = words(base, 9)
    with torch.no_grad():
        before = run(base.trunk, base.way, ids, [9])
        fuse(base.trunk)
        assert any(type(m) is nn.GELU for m in base.trunk.modules())
        assert gap(run(base.trunk, base.way, ids, [9]), before) < 1e-5
