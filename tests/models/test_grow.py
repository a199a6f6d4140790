"""Presets to grow: published sizes, words of a tokenizer, weights from a seed, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing.errors import PenjingError, SpecError
from penjing.models.grow import config_of, fresh
from penjing.models.load import load
from penjing.models.shapes import SHAPES, millions

Tiny = Callable[..., Path]
TEXTS = [name for name, known in SHAPES.items() if known.words]

# Counted by others: Google's and prajjwal1's cards, GPT-2, llama2.c's checkpoints, SmolLM2, Qwen3, T5, timm's
# ViTs without their classifier and with a pooler of width squared and width.
PUBLISHED = {
    "bert-tiny": 4_385_920,
    "bert-mini": 11_170_560,
    "bert-small": 28_763_648,
    "bert-medium": 41_373_184,
    "bert-base": 109_482_240,
    "gpt-small": 124_439_808,
    "llama-nano": 260_032,
    "llama-mini": 15_191_712,
    "smollm2-135m": 134_515_008,
    "qwen3-0.6b": 596_049_920,
    "t5-small": 60_506_624,
    "vit-tiny": 5_717_416 - 193_000 + 192 * 193,
    "vit-small": 22_050_664 - 385_000 + 384 * 385,
    "vit-base": 86_567_656 - 769_000 + 768 * 769,
}


def modern(layers: int, width: int, ffn: int) -> int:
    """Words, attention and gated feed-forward without biases, norms: all but the first layer have two."""
    return 50_368 * width + layers * (4 * width**2 + 3 * width * ffn) + (2 * layers + 1) * width


def gpt2(layers: int, width: int) -> int:
    """Words and places, layers, last norm: by the formula, not by the model."""
    return (50_257 + 1024) * width + layers * (12 * width**2 + 13 * width) + 2 * width


def pair(layers: int, width: int, ffn: int, words: int, places: int) -> int:
    """Encoder-decoder after Vaswani: attention, feed-forward, norms and biases, fixed places twice."""
    attention, hidden, norm = 4 * (width**2 + width), 2 * width * ffn + ffn + width, 2 * width
    return words * width + 2 * places * width + layers * (3 * attention + 2 * hidden + 5 * norm)


@pytest.mark.parametrize("name", SHAPES)
def test_a_preset_has_the_parameters_it_is_said_to_have(name: str) -> None:
    with torch.device("meta"):
        model = fresh(config_of(name), 0)
    assert sum(p.numel() for p in model.parameters()) == SHAPES[name].parameters
    assert SHAPES[name].parameters == PUBLISHED.get(name, SHAPES[name].parameters)
    assert f" {millions(SHAPES[name].parameters)} " in SHAPES[name].summary


def test_sizes_nobody_published_follow_from_the_shape() -> None:
    for name, layers, width, ffn in (
        ("ettin-17m", 7, 256, 384),
        ("ettin-32m", 10, 384, 576),
        ("ettin-68m", 19, 512, 768),
        ("modernbert-base", 22, 768, 1152),
    ):
        assert SHAPES[name].parameters == modern(layers, width, ffn)
    for name, layers, width in (
        ("gpt-nano", 3, 48),
        ("gpt-micro", 4, 128),
        ("gpt-mini", 6, 192),
        ("gpt-baby", 6, 384),
    ):
        assert SHAPES[name].parameters == gpt2(layers, width), name
    assert SHAPES["transformer-tiny"].parameters == pair(2, 128, 512, 8_000, 512)
    assert SHAPES["transformer-base"].parameters == pair(6, 512, 2048, 37_000, 512)


def words_of(name: str, tiny: Tiny) -> Path:
    family = {"BertConfig": "bert", "GPT2Config": "gpt2", "LlamaConfig": "llama", "Qwen3Config": "qwen3"}
    return tiny(family.get(SHAPES[name].config, "t5"))


SMALL = {  # the same family in seconds
    "smollm2-135m": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
    },
    "qwen3-0.6b": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8},
}
QUICK = ("bert-tiny", "gpt-nano", "llama-nano", "qwen3-0.6b", "smollm2-135m", "t5-tiny", "transformer-tiny")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TEXTS]
)
def test_a_preset_is_a_base_with_the_words_of_its_tokenizer(name: str, tiny: Tiny) -> None:
    base = load(name, tokenizer_from=words_of(name, tiny), shape=SMALL.get(name))
    config: Any = base.trunk.config
    assert base.grown
    words: Any = base.trunk.get_input_embeddings()  # type: ignore[operator]
    assert words.weight.shape == (len(base.tokenizer), base.width)
    assert (config.pad_token_id, config.eos_token_id) == (
        base.tokenizer.pad_token_id,
        base.tokenizer.eos_token_id,
    )
    assert base.kind == (
        "decoder" if SHAPES[name].config in ("GPT2Config", "LlamaConfig", "Qwen3Config") else "encoder"
    )
    packs = SHAPES[name].config not in ("T5Config", "MarianConfig")
    assert base.way.packed == packs, base.way.reason


def test_weights_are_those_that_transformers_draws_from_the_seed(tiny: Tiny) -> None:
    from transformers import AutoModel

    one, same, other = (load("bert-tiny", tokenizer_from=tiny("bert"), seed=seed) for seed in (5, 5, 6))
    torch.manual_seed(5)
    theirs = AutoModel.from_config(config_of("bert-tiny", tokenizer=one.tokenizer)).state_dict()
    for name, weight in one.trunk.state_dict().items():
        assert torch.equal(weight, same.trunk.state_dict()[name])
        assert torch.equal(weight, theirs[name])
    assert one.sha256 == same.sha256 != other.sha256
    assert not torch.equal(one.trunk.get_input_embeddings().weight, other.trunk.get_input_embeddings().weight)  # type: ignore[operator]


def test_the_hash_follows_shape_and_tokenizer_and_loading_leaves_the_random_state_alone(tiny: Tiny) -> None:
    before = torch.random.get_rng_state()
    found = {
        load("gpt-nano", tokenizer_from=tiny(family), shape=shape).sha256
        for family in ("gpt2", "llama")
        for shape in (None, {"n_positions": 64})
    }
    assert len(found) == 4
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_shape_is_given_by_the_configs_own_names_or_their_aliases(tiny: Tiny) -> None:
    shape = {"hidden_size": 32, "n_layer": 1, "num_attention_heads": 2, "n_positions": 64, "vocab_size": 384}
    base = load("gpt-nano", tokenizer_from=tiny("gpt2"), shape=shape)
    config: Any = base.trunk.config
    assert (config.n_embd, config.n_layer, config.n_head, base.limit) == (32, 1, 2, 64)
    assert base.trunk.get_input_embeddings().weight.shape == (384, 32)  # type: ignore[operator]


def test_on_meta_a_preset_has_shapes_only(tiny: Tiny) -> None:
    base = load("bert-base", tokenizer_from=tiny("bert"), device="meta")
    assert (base.sha256, base.width, base.n_layers) == ("", 768, 12)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"hiden_size": 64}, "`shape.hiden_size` is not a field of BertConfig.* Did you mean `hidden_size`"),
        ({"hidden_size": 250, "num_attention_heads": 4}, "makes no model: The hidden size"),
        ({"hidden_size": "wide"}, "makes no model: .*hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
        ({"vocab_size": 40}, "`shape.vocab_size` is 40; the tokenizer gives ids up to"),
        ({"pad_token_id": 3}, "Special words come from the tokenizer"),
    ],
)
def test_a_shape_that_is_none_is_refused(shape: dict[str, Any], said: str, tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=said):
        load("bert-tiny", tokenizer_from=tiny("bert"), shape=shape)


def test_key_heads_must_divide_the_heads_and_a_field_is_given_once(tiny: Tiny) -> None:
    with pytest.raises(
        SpecError, match=r"num_attention_heads \(8\) is not a multiple of num_key_value_heads \(3\)"
    ):
        load("llama-nano", tokenizer_from=tiny("llama"), shape={"num_key_value_heads": 3})
    with pytest.raises(SpecError, match="`shape` gives `n_embd` twice"):
        load("gpt-nano", tokenizer_from=tiny("gpt2"), shape={"n_embd": 48, "hidden_size": 48})


@pytest.mark.parametrize(
    ("name", "more", "kind", "said"),
    [
        ("bert-tiny", {}, SpecError, "no words of its own; `tokenizer` is not given. Train one"),
        (
            "bert-tiny",
            {"tokenizer_from": "no/where"},
            SpecError,
            "must be a folder with tokenizer.json.*no/where",
        ),
        ("vit-tiny", {"tokenizer_from": "tok"}, SpecError, "reads images and has no words. Leave it out"),
        ("minilm", {"shape": {"hidden_size": 8}}, SpecError, "`shape` changes a preset that is grown"),
    ],
)
def test_what_a_preset_needs_is_said(
    name: str, more: dict[str, Any], kind: type[PenjingError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        load(name, **more)


def test_a_decoder_that_begins_with_padding_needs_a_padding_word(tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=r"begins with the padding word; the tokenizer in .* has none"):
        load("t5-tiny", tokenizer_from=tiny("gpt2"))


def test_a_folder_of_a_presets_name_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bert-tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="a folder here has that name"):
        load("bert-tiny")


def test_a_config_is_written_as_transformers_reads_it(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import AutoConfig

    base = load("llama-nano", tokenizer_from=tiny("llama"))
    config: Any = base.trunk.config
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_key_value_heads"] == 4
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.to_diff_dict() == config.to_diff_dict()
