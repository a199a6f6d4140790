"""Special words by family: which there are, where they stand around a text, and which ids they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penjing.data.named_templates import NAMED

GPT2_SPLIT = None  # what tokenizers' ByteLevel has built in
# Llama 3's: numbers in threes, one sign before a word, line ends with the signs before them.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """Special words of a family of models. `roles` by transformers' names, in the order of their ids."""

    about: str
    roles: Mapping[str, str] = field(default_factory=dict)
    single: str | None = None  # what stands around one text, and around a pair
    pair: str | None = None
    segments: bool = False  # two texts are told apart by token types
    more: tuple[str, ...] = ()  # ids before the learnt pieces
    last: tuple[str, ...] = ()  # ids after them
    split: str | None = GPT2_SPLIT  # of byte-level BPE
    chat: str | None = None


_ROBERTA = {
    "bos": "<s>",
    "pad": "<pad>",
    "eos": "</s>",
    "unk": "<unk>",
    "mask": "<mask>",
    "cls": "<s>",
    "sep": "</s>",
}
FAMILIES = {
    "plain": Family("no special words but the one for what is unknown, where the kind needs it"),
    "bert": Family(
        "[CLS] text [SEP], [MASK]; BERT, DistilBERT, ELECTRA, ModernBERT",
        {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        "[CLS]:0 $A:0 [SEP]:0",
        "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        segments=True,
    ),
    "roberta": Family(
        "<s> text </s>, <mask>; RoBERTa, BART", _ROBERTA, "<s> $A </s>", "<s> $A </s> </s> $B </s>"
    ),
    "gpt": Family("<|endoftext|> between documents; GPT-2", {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}),
    "llama": Family(
        "<|begin_of_text|> text, <|end_of_text|>; Llama 3",
        {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"},
        "<|begin_of_text|> $A",
        "<|begin_of_text|> $A <|begin_of_text|> $B",
        split=LLAMA3_SPLIT,
    ),
    "chat": Family(
        "<|im_start|> role, message <|im_end|>, with a template; Qwen",
        {"pad": "<|endoftext|>", "eos": "<|im_end|>"},
        more=("<|im_start|>",),
        split=LLAMA3_SPLIT,
        chat=NAMED["chatml"],
    ),
    "t5": Family(
        "text </s>, 100 sentinels at the end of the ids, the first the highest; T5",
        {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
        "$A </s>",
        "$A </s> $B </s>",
        last=tuple(f"<extra_id_{i}>" for i in reversed(range(100))),
    ),
    "marian": Family(
        "text </s>, and <pad>, from which decoding begins; Marian, translation",
        {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
        "$A </s>",
        "$A </s> $B </s>",
    ),
}
USUAL = {"bpe": "gpt", "wordpiece": "bert", "unigram": "t5", "char": "plain"}  # kind: family when not said
UNKNOWN = "<unk>"  # of a family that has none, where the kind needs one
