"""What a checkpoint's folder says of itself."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from penjing import tune
from penjing.errors import NotSupported
from penjing.models.checkpoint import beyond_pooling, declared_pooling, longest
from penjing.models.load import load


@pytest.mark.parametrize(
    ("says", "pooling"),
    [
        ({"pooling_mode": "mean"}, "mean"),  # sentence-transformers from release 6 on
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len_tokens"),
        ({"embedding_dimension": 32}, "mean"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": False}, "weightedmean"),
    ],
)
def test_the_pooling_of_a_sentence_encoder_is_read(says: Any, pooling: str, tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(says))
    assert declared_pooling(tmp_path) == pooling


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ('{"pooling_mode": ["mean", "max"]}', "says mean with max"),
        ('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}', "says mean with cls"),
        ('{"pooling_mode": "median"}', "says median"),
        ("{", "damaged"),
    ],
)
def test_a_pooling_that_is_not_known_is_no_other(says: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(says)
    with pytest.raises(NotSupported, match=found):
        declared_pooling(tmp_path)


def test_layers_after_the_pooling_are_named(tmp_path: Path) -> None:
    assert beyond_pooling(tmp_path) == []
    kinds = ["models.Transformer", "models.Pooling", "models.Dense", "models.Normalize"]
    listed = [{"idx": i, "type": f"sentence_transformers.{kind}"} for i, kind in enumerate(kinds)]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    assert beyond_pooling(tmp_path) == ["Dense"]
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(NotSupported, match="damaged"):
        beyond_pooling(tmp_path)


@pytest.mark.parametrize(
    ("family", "offset", "said", "wanted"),
    [
        ("bert", 0, 10**30, 514),
        ("roberta", 0, 10**30, 512),  # shapes alone: nothing was tried
        ("roberta", 2, 10**30, 512),
        ("data2vec-text", 2, 10**30, 512),
        ("bert", 0, 128, 128),
    ],
)
def test_positions_before_the_first_hold_no_token(family: str, offset: int, said: int, wanted: int) -> None:
    config = SimpleNamespace(model_type=family, max_position_embeddings=514, pad_token_id=1)
    assert longest(config, SimpleNamespace(model_max_length=said), offset) == wanted


def test_positions_without_end_are_left_to_the_tokenizer() -> None:
    config = SimpleNamespace(model_type="xlnet", max_position_embeddings=-1, pad_token_id=5)
    assert longest(config, SimpleNamespace(model_max_length=512)) == 512


def test_a_dense_layer_that_no_file_holds_begins_alike_each_time(tiny: Any) -> None:
    """transformers draws it from whatever came before."""
    one, other = load(str(tiny("roberta"))).pooler, load(str(tiny("roberta"))).pooler
    assert one is not None
    assert other is not None
    assert torch.equal(one.weight, other.weight)
    assert float(one.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert load(str(tiny("roberta")), device="meta").pooler is not None


def test_a_run_over_a_masked_language_model_is_a_function_of_its_seed(
    small: dict[str, Any], tiny: Any
) -> None:
    losses = []
    for _ in range(2):
        torch.rand(3)  # what was drawn before does not matter
        run = tune({**small, "base": str(tiny("roberta"))}, steps=2, evals=0)
        losses.append([line["loss"] for line in run.lines("log.jsonl")])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("frame", "pooling"),
    [("[CLS]:0 $A:0 [SEP]:0", "cls"), ("$A:0 [SEP]:0 [CLS]:0", "last"), ("$A:0 [SEP]:0", "mean")],
)
def test_a_text_is_summed_up_where_its_tokenizer_puts_the_token_for_that(
    frame: str, pooling: str, tiny: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "base")
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [(word, words.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    words.post_processor = TemplateProcessing(single=frame, special_tokens=ids)
    words.save(str(folder / "tokenizer.json"))
    assert load(str(folder)).pooling == pooling
