"""Quantization-aware training: what is validated is what the compressor holds; what is refused."""

from typing import Any

import pytest
import torch

from conftest import tickets
from penjing import load, plugin
from penjing.chains.making import held_of
from penjing.compressor import Rehearsal
from penjing.engine.scoring import outputs
from penjing.errors import SpecError
from penjing.jobs.news import silent
from penjing.jobs.training import advance, begin, opened
from penjing.plugin import Choice
from penjing.records import NO_ROWS, Part
from penjing.run import new
from penjing.spec import read

TEXTS = [text for text, _ in tickets(12)]


def trained(small: dict[str, Any], **settings: Any) -> Any:
    spec = read({**small, "techniques": [{"qat": settings}], "train": {"steps": 3, "evals": 1, "lr": 1e-3}})
    it = begin(new(spec), opened(spec, silent), introduced=False)
    advance(it)
    return it


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, ("int8", {})),
        (
            {"to": "round", "bits": 3, "group": 16, "embeddings": False},
            ("round", {"bits": 3, "group": 16, "embeddings": False}),
        ),
    ],
    ids=["int8", "round"],
)
def test_the_compressor_takes_nothing_from_what_was_validated(
    settings: dict[str, Any], step: tuple[str, dict[str, Any]], small: dict[str, Any]
) -> None:
    it = trained(small, **settings)
    bundle = load(it.run.folder)
    tokens = bundle.tokens(TEXTS)
    model = it.made.model.eval()
    with torch.no_grad():
        validated = outputs(model, tokens)
    held = held_of(bundle)
    plain = outputs(held.model, tokens)
    shrunk = plugin.build("compressors", Choice(*step)).shrink(
        held, Rehearsal(NO_ROWS, Part(NO_ROWS, tokens, it.train.targets))
    )
    assert torch.equal(outputs(shrunk.held.model, tokens), validated)
    assert not torch.allclose(plain, validated, atol=1e-6)


@pytest.mark.slow
def test_training_begins_to_round_where_it_is_told_and_validation_always_rounds(
    small: dict[str, Any],
) -> None:
    late, never = trained(small, start=0.9), trained(small, start=1.0)
    same = [
        late.run.lines("log.jsonl")[i]["loss"] == never.run.lines("log.jsonl")[i]["loss"] for i in range(3)
    ]
    assert same == [True, True, True]  # 0.9 of 3 steps: rounding would begin after the last
    soon = trained(small, start=0.4).run.lines("log.jsonl")
    assert [soon[i]["loss"] == never.run.lines("log.jsonl")[i]["loss"] for i in range(3)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("settings", "more", "told"),
    [
        ({"start": 1.5}, {}, r"`qat.start` is a share of the steps, 0 to 1; it is 1.5"),
        ({"bits": 4}, {}, r"`qat.bits` is of `to: round`"),
        ({"to": "round", "bits": 9}, {}, r"`bits` must lie in 2..8"),
        ({}, {"method": "lora"}, r"adapters would be merged into them first\. Take `method: full`"),
        ({}, {"precision": "bf16"}, r"`precision` is bf16\. Set `precision: fp32`"),
    ],
)
def test_what_would_be_rounded_otherwise_is_refused(
    settings: dict[str, Any], more: dict[str, Any], told: str, small: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match=told):
        trained({**small, **more}, **settings)
