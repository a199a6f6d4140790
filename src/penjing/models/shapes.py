"""Presets to grow: published shapes that begin from random weights and take their words from a tokenizer.

`grow` makes a config or a model of one; presets with weights of their own are in `presets`. A new shape is
one entry of `SHAPES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Growing:
    """A published shape of a family that transformers has."""

    name: str
    config: str  # transformers' class
    shape: Mapping[str, Any]  # what differs from that class's defaults
    words: str  # kind of tokenizer and size of the vocabulary it was published with; empty: it reads images
    parameters: int  # with those words, as transformers' AutoModel holds them
    source: str
    about: str

    @property
    def summary(self) -> str:
        """What `penjing list presets` says of it."""
        return f"{self.about}, {millions(self.parameters)} parameters; to grow from random weights"


def millions(count: int) -> str:
    """`260k`, `4.4M`, `124M`."""
    if count < 950_000:
        return f"{count / 1e3:.0f}k"
    return f"{count / 1e6:.1f}M" if count < 99_500_000 else f"{count / 1e6:.0f}M"


_MINIATURES = "Turc et al. 2019 (arXiv 1908.08962)"
_BERT = "Devlin et al. 2018 (arXiv 1810.04805)"
_ETTIN = "Weller et al. 2025 (arXiv 2507.11412)"
_MINGPT = "minGPT's model_type"
_STORIES = "llama2.c's TinyStories models"
_T5 = "Raffel et al. 2019 (arXiv 1910.10683)"
_EFFICIENT = "Tay et al. 2021 (arXiv 2109.10686)"
_DEIT = "Touvron et al. 2020 (arXiv 2012.12877)"
_VASWANI = "Vaswani et al. 2017 (arXiv 1706.03762)"
_VIT = "Dosovitskiy et al. 2020 (arXiv 2010.11929)"


def _bert(name: str, layers: int, width: int, parameters: int, source: str = _MINIATURES) -> Growing:
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }
    about = f"BERT encoder, {layers} layers of width {width}"
    return Growing(name, "BertConfig", shape, "wordpiece 30,522", parameters, source, about)


def _modern(name: str, layers: int, width: int, ffn: int, parameters: int, source: str = _ETTIN) -> Growing:
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": ffn,
    }
    about = f"ModernBERT encoder, {layers} layers of width {width}"
    return Growing(name, "ModernBertConfig", shape, "bpe 50,368", parameters, source, about)


def _gpt(
    name: str, layers: int, heads: int, width: int, parameters: int, source: str, more: str = ""
) -> Growing:
    shape = {"n_layer": layers, "n_head": heads, "n_embd": width}
    about = f"GPT-2 decoder, {layers} layers of width {width}{more}"
    return Growing(name, "GPT2Config", shape, "bpe 50,257", parameters, source, about)


def _llama(name: str, shape: dict[str, Any], words: int, parameters: int, source: str, more: str) -> Growing:
    about = f"Llama decoder, {shape['num_hidden_layers']} layers of width {shape['hidden_size']}{more}"
    whole = {**shape, "vocab_size": words, "tie_word_embeddings": True}
    return Growing(name, "LlamaConfig", whole, f"bpe {words:,}", parameters, source, about)


def _stories(layers: int, width: int, ffn: int, heads: int, keys: int, context: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "intermediate_size": ffn,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
    }


def _t5(name: str, layers: int, width: int, heads: int, parameters: int, source: str) -> Growing:
    shape = {"num_layers": layers, "d_model": width, "num_heads": heads, "d_ff": 4 * width, "d_kv": 64}
    about = f"T5 encoder-decoder, {layers}+{layers} layers of width {width}"
    return Growing(name, "T5Config", shape, "unigram 32,128", parameters, source, about)


def _translator(
    name: str, layers: int, width: int, ffn: int, heads: int, words: int, parameters: int, source: str
) -> Growing:
    shape: dict[str, Any] = {
        "vocab_size": words,
        "d_model": width,
        "activation_function": "relu",
        "scale_embedding": True,
        "max_position_embeddings": 512,
        "eos_token_id": 0,
        "pad_token_id": words - 1,
        "decoder_start_token_id": words - 1,
    }
    for side in ("encoder", "decoder"):
        shape |= {f"{side}_layers": layers, f"{side}_ffn_dim": ffn, f"{side}_attention_heads": heads}
    about = f"Marian encoder-decoder, {layers}+{layers} layers of width {width}"
    return Growing(name, "MarianConfig", shape, f"unigram {words:,}", parameters, source, about)


def _vit(name: str, width: int, parameters: int, source: str) -> Growing:
    shape = {"hidden_size": width, "num_attention_heads": width // 64, "intermediate_size": 4 * width}
    about = f"ViT encoder, 12 layers of width {width}, patches of 16 in 224"
    return Growing(name, "ViTConfig", shape, "", parameters, source, about)


_SMOL = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100_000.0, "rope_type": "default"},
}
_QWEN3 = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "max_position_embeddings": 40_960,
    "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
}

_ALL = (
    _bert("bert-tiny", 2, 128, 4_385_920),
    _bert("bert-mini", 4, 256, 11_170_560),
    _bert("bert-small", 4, 512, 28_763_648),
    _bert("bert-medium", 8, 512, 41_373_184),
    _bert("bert-base", 12, 768, 109_482_240, _BERT),
    _modern("ettin-17m", 7, 256, 384, 16_797_440),
    _modern("ettin-32m", 10, 384, 576, 31_883_136),
    _modern("ettin-68m", 19, 512, 768, 68_144_640),
    _modern("modernbert-base", 22, 768, 1152, 149_014_272, "Warner et al. 2024 (arXiv 2412.13663)"),
    _gpt("gpt-nano", 3, 3, 48, 2_546_400, _MINGPT),
    _gpt("gpt-micro", 4, 4, 128, 7_357_312, _MINGPT),
    _gpt("gpt-mini", 6, 6, 192, 12_515_520, _MINGPT),
    _gpt("gpt-baby", 6, 6, 384, 30_339_456, "nanoGPT's character model (train_shakespeare_char)"),
    _gpt("gpt-small", 12, 12, 768, 124_439_808, "Radford et al. 2019, GPT-2", ", GPT-2's smallest"),
    _llama("llama-nano", _stories(5, 64, 172, 8, 4, 512), 512, 260_032, _STORIES, ", 4 key heads of 8"),
    _llama("llama-mini", _stories(6, 288, 768, 6, 6, 256), 32_000, 15_191_712, _STORIES, ""),
    _llama("llama-small", _stories(8, 512, 1376, 8, 8, 1024), 32_000, 41_689_600, _STORIES, ""),
    _llama("llama-base", _stories(12, 768, 2048, 12, 12, 1024), 32_000, 109_529_856, _STORIES, ""),
    _llama("smollm2-135m", _SMOL, 49_152, 134_515_008, "SmolLM2-135M's config", ", 3 key heads of 9"),
    Growing(
        "qwen3-0.6b",
        "Qwen3Config",
        _QWEN3,
        "bpe 151,936",
        596_049_920,
        "Yang et al. 2025 (arXiv 2505.09388)",
        "Qwen3 decoder, 28 layers of width 1024, 8 key heads of 16",
    ),
    _t5("t5-tiny", 4, 256, 4, 15_570_688, _EFFICIENT),
    _t5("t5-mini", 4, 384, 8, 31_220_480, _EFFICIENT),
    _t5("t5-small", 6, 512, 8, 60_506_624, _T5),
    _translator("transformer-tiny", 2, 128, 512, 4, 8_000, 2_080_768, "tensor2tensor's transformer_tiny"),
    _translator(
        "transformer-base", 6, 512, 2048, 8, 37_000, 63_606_784, "Vaswani et al. 2017 (arXiv 1706.03762)"
    ),
    _vit("vit-tiny", 192, 5_561_472, _DEIT),
    _vit("vit-small", 384, 21_813_504, _DEIT),
    _vit("vit-base", 768, 86_389_248, _VIT),
)
SHAPES = {one.name: one for one in _ALL}
