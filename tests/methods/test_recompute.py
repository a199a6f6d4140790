"""Gradient checkpointing with every method: the same gradients, whatever trains and whatever lies within."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import contract
from penjing import plugin
from penjing.data.batches import pack
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.precision import recompute
from penjing.records import Method, Tokens
from penjing.tasks.classify import classify

pytestmark = pytest.mark.slow  # every method, trained twice

Tiny = Callable[..., Path]
LENGTHS = np.array([6, 9, 7, 7])
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
SETTINGS = {**contract.SETTINGS, "lora": {"rank": 4, "dropout": 0.1}}
CASES = [
    (method, family)
    for method in sorted(plugin.found("methods"))
    for family in ("bert", "llama")
    if (method, family) != ("bitfit", "llama")  # it has no biases
]


def gradients(folder: Path, name: str, *, again: bool) -> dict[str, Tensor]:
    """Those of one step in bf16 with dropout."""
    base = load(str(folder))
    torch.manual_seed(1)
    method: Method = plugin.build("methods", plugin.Choice(name, SETTINGS.get(name, {})))
    trunk = method.apply(base.trunk)
    head = ClassHead(base.width, 3, pooling="mean", dropout=0.0)
    model = Model(trunk, head, base.way).prepare("bf16").train()
    assert recompute(trunk) or not again
    torch.manual_seed(5)
    classify().loss(model, pack(TOKENS, np.arange(4), np.arange(4) % 3)).mean.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("method", "family"), CASES)
def test_recomputed_activations_give_the_same_gradients(method: str, family: str, tiny: Tiny) -> None:
    plain, again = (gradients(tiny(family), method, again=again) for again in (False, True))
    assert plain.keys() == again.keys()
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []
