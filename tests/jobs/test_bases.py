"""A spec whose base is grown from random weights: tuned and saved whole, refused where it would be lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from penjing import load, tune
from penjing.errors import NotSupported, SpecError
from penjing.jobs.bases import base_of, refuse_lost
from penjing.jobs.check import check
from penjing.records import Method
from penjing.spec import read

Tiny = Callable[..., Path]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture
def grown(small: dict[str, Any]) -> dict[str, Any]:
    """The small spec over a tiny preset with the words of tiny BERT."""
    return {**small, "base": "bert-tiny", "tokenizer": small["base"], "shape": SHAPE}


@pytest.mark.slow
def test_a_grown_base_is_tuned_and_its_bundle_needs_no_base(grown: dict[str, Any]) -> None:
    run = tune(grown)
    bundle = load(run.folder)
    assert bundle.card["base"]["name"] == "bert-tiny"
    assert run.read("lineage.json")["base"]["sha256"] == base_of(run.spec, "cpu").sha256
    assert bundle.base.width == 32
    assert np.isfinite(bundle.probabilities(["my card was charged twice"])).all()


@pytest.mark.slow
def test_the_written_spec_repeats_the_run(grown: dict[str, Any]) -> None:
    run = tune(grown)
    written = yaml.safe_load((run.folder / "spec.yaml").read_text())
    assert (written["tokenizer"], written["shape"]) == (grown["tokenizer"], SHAPE)
    again = tune(run.folder / "spec.yaml", name="again")
    assert again.result["after"]["values"] == run.result["after"]["values"]


def test_tokenizer_and_shape_come_from_keywords_and_pairs() -> None:
    spec = read(base="gpt-nano", tokenizer="tok", train="a.csv", sets=["shape.n_embd=96", "shape.n_head=3"])
    assert spec.shape == {"n_embd": 96, "n_head": 3}
    assert read(spec.written()) == spec
    assert spec.origin == ("gpt-nano", "tok", '{"n_embd": 96, "n_head": 3}', 0)
    assert read(base="minilm", seed=3).origin == ("minilm",)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "bitfit", "side"])
def test_a_method_that_does_not_save_the_base_is_refused(method: str, grown: dict[str, Any]) -> None:
    with pytest.raises(
        SpecError, match=f"`method: {method}` saves what it adds.*Say `method: full`, or pretrain"
    ):
        tune(grown, method=method)


@pytest.mark.slow
def test_check_finds_it_before_a_weight_is_drawn(grown: dict[str, Any]) -> None:
    found = check(grown, method="lora")
    assert [f.about for f in found if f.state == "error"] == ["method"]
    assert any(f.text.startswith("bert-tiny, words of ") for f in check(grown) if f.about == "base")


@pytest.mark.slow
def test_a_base_with_weights_takes_neither_tokenizer_nor_shape(small: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"`tokenizer` is tok; the base .* has weights"):
        tune(small, tokenizer="tok")
    with pytest.raises(SpecError, match="`shape` changes a preset"):
        tune(small, shape={"hidden_size": 64})


@pytest.mark.slow
def test_words_of_random_weights_are_not_asked(grown: dict[str, Any]) -> None:
    with pytest.raises(NotSupported, match="that has learned; `bert-tiny` begins from random weights"):
        tune(grown, task={"few_shot": {"how": "mask"}})


def test_a_spec_takes_some_layers_of_a_base_and_only_a_whole_save_holds_them(tiny: Tiny) -> None:
    base = base_of(read(base=str(tiny("bert")), layers=1), "cpu")
    assert (base.n_layers, base.cut) == (1, True)
    with pytest.raises(SpecError, match=r"no file holds that\. Say `method: full`"):
        refuse_lost(base, Method("lora", lambda trunk: trunk, lr=1e-3, saves="peft"))
    with pytest.raises(SpecError, match="from 1 to 2"):
        base_of(read(base=str(tiny("bert")), layers=[1, 5]), "cpu")
    with pytest.raises(SpecError, match="num_hidden_layers: 2"):
        base_of(read(base="bert-tiny", tokenizer=str(tiny("bert")), layers=2), "meta")


def test_a_misspelt_preset_to_grow_is_offered_its_name() -> None:
    with pytest.raises(SpecError, match=r"`bert-tini` is no preset to grow.*Did you mean `bert-tiny`"):
        base_of(read(base="bert-tini", tokenizer="tok"), "cpu")
