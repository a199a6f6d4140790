"""Scoring: every row's own answer, in the rows' order, whoever shares its batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from penjing.data.batches import pack
from penjing.engine.scoring import embed, nearest_name, outputs
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Tokens

Tiny = Callable[..., Path]
FAMILIES = ["bert", "roberta", "modernbert", "mpnet", "gpt2", "llama", "t5"]
LENGTHS = np.array([3, 19, 1, 12, 12, 6, 25, 2, 12])
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)


def model_of(folder: Path, precision: str = "fp32") -> Model:
    base = load(str(folder))
    return Model(base.trunk, ClassHead(base.width, 4, pooling="mean", dropout=0.3), base.way).prepare(
        precision
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [1, 30, 10_000])
def test_outputs_are_those_of_each_row_alone_in_the_rows_order(family: str, tokens: int, tiny: Tiny) -> None:
    model = model_of(tiny(family))
    found = outputs(model, TOKENS, tokens=tokens)
    with torch.no_grad():
        alone = torch.cat([model.eval()(pack(TOKENS, np.array([i]))) for i in range(len(TOKENS))])
    assert found.shape == (9, 4)
    assert torch.allclose(found, alone, atol=1e-5)


def test_an_answer_in_bf16_hardly_depends_on_who_shares_the_batch(tiny: Tiny) -> None:
    model = model_of(tiny("bert"), "bf16")
    together, alone = outputs(model, TOKENS), outputs(model, TOKENS, tokens=1)
    assert float((together - alone).abs().max()) < 0.02 * float(alone.abs().max())


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_mode_as_it_was(training: bool, tiny: Tiny) -> None:
    model = model_of(tiny("bert")).train(training)
    outputs(model, TOKENS)
    assert model.training is training


def test_scoring_leaves_the_mode_as_it_was_even_when_it_fails(tiny: Tiny) -> None:
    model = model_of(tiny("bert")).train()
    with pytest.raises(IndexError):
        outputs(model, Tokens(np.array([9999], dtype=np.int32), np.array([0, 1])))
    assert model.training


def test_scoring_draws_no_random_numbers(tiny: Tiny) -> None:
    model = model_of(tiny("bert"))
    before = torch.get_rng_state()
    first = outputs(model, TOKENS)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, outputs(model, TOKENS))


def test_outputs_are_plain_fp32_numbers_on_the_cpu(tiny: Tiny) -> None:
    found = outputs(model_of(tiny("bert"), "bf16"), TOKENS)
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float32, "cpu", False)


def test_no_rows_give_no_outputs(tiny: Tiny) -> None:
    assert (
        len(outputs(model_of(tiny("bert")), Tokens(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))))
        == 0
    )


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_embeddings_have_length_one(pooling: str, tiny: Tiny) -> None:
    found = embed(model_of(tiny("bert")), TOKENS, pooling, tokens=30)
    assert found.shape == (9, 32)
    assert torch.allclose(found.norm(dim=1), torch.ones(9), atol=1e-5)


def test_a_row_is_nearest_to_the_name_that_it_repeats(tiny: Tiny) -> None:
    names = TOKENS.take(np.array([6, 1, 4]))
    rows = TOKENS.take(np.array([4, 6, 1, 6]))
    found = nearest_name(model_of(tiny("bert")), rows, names, "mean")
    assert found.argmax(1).tolist() == [2, 0, 1, 0]
    assert np.allclose(found.sum(1), 1)
