"""Rows of many adapters in one batch get what each model gives alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from penjing.engine.mixed import Mixed
from penjing.engine.scoring import outputs
from penjing.errors import NotSupported
from penjing.methods.lora import lora
from penjing.models.heads import ClassHead
from penjing.models.load import Base, load, twin_of
from penjing.models.model import Model
from penjing.records import Tokens

Tiny = Callable[..., Path]
LENGTHS = np.random.default_rng(0).integers(1, 20, 40)
ROWS = Tokens(
    np.random.default_rng(1).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)
OWNERS = np.random.default_rng(2).integers(0, 5, 40)


def made(base: Base, seed: int, precision: str = "fp32", **settings: object) -> Model:
    """A model with an adapter that does something and a head of its own number of classes."""
    torch.manual_seed(seed)
    own = twin_of(base)
    trunk = lora(**settings).apply(own.trunk)  # type: ignore[arg-type]
    for name, parameter in trunk.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    return Model(trunk, ClassHead(base.width, 2 + seed, pooling="mean", dropout=0.1), base.way).prepare(
        precision
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_rows_of_many_adapters_equal_each_alone(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    models = [
        made(base, seed, rank=1 + seed, targets="attention" if seed % 2 else "all") for seed in range(5)
    ]
    wanted = [outputs(model, ROWS) for model in models]
    found = Mixed(models).outputs(ROWS, OWNERS, tokens=150)
    for row, (owner, own) in enumerate(zip(OWNERS, found, strict=True)):
        assert own.shape == (2 + owner,)
        assert torch.allclose(own, wanted[owner][row], atol=1e-5, rtol=1e-5)
    gaps = [float((wanted[i][:, :2] - wanted[j][:, :2]).abs().max()) for i in range(5) for j in range(i)]
    assert min(gaps) > 0.01, "models that answer alike would prove nothing"


def test_an_answer_does_not_depend_on_who_shares_the_batch(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    mixed = Mixed([made(base, seed, rank=2) for seed in range(5)])
    whole = mixed.outputs(ROWS, OWNERS)
    few = np.flatnonzero(OWNERS == 3)[:2]
    for row, own in zip(few, mixed.outputs(ROWS.take(few), OWNERS[few]), strict=True):
        assert torch.allclose(own, whole[row], atol=1e-5)


def test_the_base_is_held_once(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    models = [made(base, seed, "bf16", rank=2) for seed in range(3)]
    Mixed(models)
    for name, weight in models[0].trunk.named_parameters():
        if "lora_" not in name:
            others = [dict(model.trunk.named_parameters())[name] for model in models[1:]]
            assert {p.data_ptr() for p in others} == {weight.data_ptr()}


def test_a_model_over_another_base_is_refused(tiny: Tiny) -> None:
    one, other = load(str(tiny("bert"))), load(str(tiny("bert", hidden_act="relu")))
    with torch.no_grad():
        next(iter(other.trunk.parameters())).add_(1)
    with pytest.raises(NotSupported, match="one frozen base"):
        Mixed([made(one, 0, rank=2), made(other, 1, rank=2)])
