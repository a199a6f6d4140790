"""How the checkpoints of each family of tiny models look: one entry in FAMILIES adds one."""

from dataclasses import dataclass, field
from typing import Any

BERT_WORDS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
BERT_FRAME = ("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
ROBERTA_WORDS = {
    "bos": "<s>",
    "pad": "<pad>",
    "eos": "</s>",
    "unk": "<unk>",
    "mask": "<mask>",
    "cls": "<s>",
    "sep": "</s>",
}
ROBERTA_FRAME = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family's checkpoints look: transformers classes, tokenizer algorithm, special tokens by id."""

    config: str
    model: str
    algorithm: str
    words: dict[str, str]
    frame: tuple[str, str] | None = None
    shape: dict[str, Any] = field(default_factory=lambda: SHAPE)
    more_words: tuple[str, ...] = ()
    chat: str | None = None


def _sides(**shape: Any) -> dict[str, Any]:
    """Two layers of width 32 on both sides of an encoder-decoder."""
    for side in ("encoder", "decoder"):
        shape |= {f"{side}_layers": 2, f"{side}_ffn_dim": 64, f"{side}_attention_heads": 4}
    return shape


FAMILIES = {
    "bert": Family(
        config="BertConfig",
        model="BertForPreTraining",
        algorithm="wordpiece",
        words=BERT_WORDS,
        frame=BERT_FRAME,
    ),
    "roberta": Family(
        config="RobertaConfig",
        model="RobertaForMaskedLM",
        algorithm="bytes",
        words=ROBERTA_WORDS,
        frame=ROBERTA_FRAME,
        shape=SHAPE | {"max_position_embeddings": 130, "type_vocab_size": 1},  # +2: as below
    ),
    "electra": Family(
        config="ElectraConfig",
        model="ElectraForPreTraining",
        algorithm="wordpiece",
        words=BERT_WORDS,
        frame=BERT_FRAME,
        shape=SHAPE | {"embedding_size": 16},
    ),
    "distilbert": Family(
        config="DistilBertConfig",
        model="DistilBertForMaskedLM",
        algorithm="wordpiece",
        words=BERT_WORDS,
        frame=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
        shape={"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 128},
    ),
    "albert": Family(
        config="AlbertConfig",
        model="AlbertForPreTraining",
        algorithm="unigram",
        words={"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        frame=BERT_FRAME,
        shape=SHAPE | {"embedding_size": 16},
    ),
    "modernbert": Family(
        config="ModernBertConfig",
        model="ModernBertForMaskedLM",
        algorithm="bytes",
        words=BERT_WORDS,
        frame=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
        # Layer 0 sees all, layer 1 eight tokens to each side: short rows feel the window too.
        shape=SHAPE | {"local_attention": 16, "global_attn_every_n_layers": 2},
    ),
    "mpnet": Family(
        config="MPNetConfig",
        model="MPNetForMaskedLM",
        algorithm="wordpiece",
        words=ROBERTA_WORDS | {"unk": "[UNK]"},
        frame=ROBERTA_FRAME,
        shape=SHAPE | {"max_position_embeddings": 130},
    ),
    "gpt2": Family(
        config="GPT2Config",
        model="GPT2LMHeadModel",
        algorithm="bytes",
        words={"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"},
        shape={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    ),
    "llama": Family(
        config="LlamaConfig",
        model="LlamaForCausalLM",
        algorithm="bytes",
        words={"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"},
        frame=("<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|> $B"),
        shape=SHAPE | {"num_key_value_heads": 2},
    ),
    "qwen3": Family(
        config="Qwen3Config",
        model="Qwen3ForCausalLM",
        algorithm="bytes",
        words={"pad": "<|endoftext|>", "eos": "<|im_end|>"},
        shape=SHAPE | {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
        more_words=("<|im_start|>",),
        chat=CHATML,
    ),
    "t5": Family(
        config="T5Config",
        model="T5ForConditionalGeneration",
        algorithm="unigram",
        words={"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
        frame=("$A </s>", "$A </s> $B </s>"),
        shape={
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        more_words=tuple(f"<extra_id_{i}>" for i in range(10)),
    ),
    "bart": Family(
        config="BartConfig",
        model="BartForConditionalGeneration",
        algorithm="bytes",
        words=ROBERTA_WORDS,
        frame=ROBERTA_FRAME,
        shape=_sides(d_model=32, max_position_embeddings=128, decoder_start_token_id=2),
    ),
    "marian": Family(
        config="MarianConfig",
        model="MarianMTModel",
        algorithm="unigram",
        words={"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
        frame=("$A </s>", "$A </s> $B </s>"),
        shape=_sides(
            d_model=32,
            max_position_embeddings=128,
            decoder_start_token_id=2,
            scale_embedding=True,
            activation_function="relu",
        ),
    ),
}
