"""Heads of families that go their own ways between states and words, against transformers' own generation."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from penjing.models.decoding import Decoding
from penjing.models.generate import generate
from penjing.models.load import load, quiet
from penjing.models.model import Model
from penjing.models.word_head import word_head

WIDE = {"hidden_size": 32, "num_hidden_layers": 2}
SHAPE = {**WIDE, "num_attention_heads": 4, "max_position_embeddings": 64}
STRANGERS: dict[str, dict[str, Any]] = {
    "opt": {**SHAPE, "ffn_dim": 64, "word_embed_proj_dim": 32},  # its head calls a part of its trunk
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # its attention does not say that it looks back
    "mixtral": {**SHAPE, "intermediate_size": 64, "num_key_value_heads": 2, "num_local_experts": 4},
    "mamba": {**WIDE, "state_size": 4},  # it has no attention, and no cache of keys
}
ROWS = [[7, 30, 5], [9, 12, 40, 41, 8, 6, 22, 51, 60], [11]]


@pytest.mark.parametrize(
    "family", ["opt", *(pytest.param(f, marks=pytest.mark.slow) for f in list(STRANGERS)[1:])]
)
def test_a_decoder_of_another_build_says_what_transformers_says(
    family: str, tiny: Any, tmp_path: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("gpt2"))
    end = tokenizer.eos_token_id
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": 1}
    config = transformers.AutoConfig.for_model(
        family, vocab_size=len(tokenizer), initializer_range=0.15, init_std=0.15, **ids, **STRANGERS[family]
    )
    torch.manual_seed(3)
    with quiet():
        theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
        theirs.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
    base = load(str(tmp_path))
    assert base.kind == "decoder"
    model = Model(base.trunk, word_head(base, "causal", weights=True)[0], base.way).prepare("fp32").eval()
    found = [list(one[0].ids) for one in generate(model, ROWS, Decoding(max_new=6), stop=[])]
    how = transformers.GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=1, eos_token_id=None)
    theirs.generation_config = how
    for row, own in zip(ROWS, found, strict=True):
        ids_1n = torch.tensor([row])
        said = theirs.generate(ids_1n, attention_mask=torch.ones_like(ids_1n), generation_config=how)[0]
        assert said.tolist()[len(row) :] == own
