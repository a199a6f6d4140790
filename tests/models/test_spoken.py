"""The text of an answer token by token is that of all its tokens, at the cost of the new ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from penjing.models.load import load
from penjing.models.spoken import Spoken

TEXT = "我的订单 17 号\n\n  还没到 🙂🧑‍🍳, isn't it?  Naïve café — дождь 🇨🇳 end"


def pieces_of_sentencepiece() -> Any:
    """As Llama 2 and others: `▁` for blanks, bytes where a sign is not known, the first blank lost."""
    signs = ["▁", "▁it", "isn", "'t", "▁end", "end", "我", "的", ",", "?", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {one: i for i, one in enumerate([*signs, *(f"<0x{i:02X}>" for i in range(256))])}
    made = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made


def spelled(made: Any, text: str) -> list[int]:
    """Ids of a text: known signs, else its bytes."""
    ids = []
    for sign in text.replace(" ", "▁"):
        known = made.token_to_id(sign)
        own = [f"<0x{byte:02X}>" for byte in sign.encode()]
        ids += [known] if known is not None else [made.token_to_id(one) for one in own]
    return ids


def same_at_each_token(text: Callable[[Sequence[int]], str], ids: Sequence[int]) -> None:
    spoken, before = Spoken(text), ""
    for n in range(1, len(ids) + 1):
        whole, now = text(ids[:n]), spoken.more(ids[:n])
        assert now == whole or (whole.endswith("\ufffd") and now in (whole.rstrip("\ufffd"), before)), ids[:n]
        before = now


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_each_token_adds_what_the_whole_text_gains(tiny: Callable[..., Path], family: str) -> None:
    words = load(str(tiny(family))).tokenizer
    text = lambda ids: str(words.decode([*ids], skip_special_tokens=True))  # noqa: E731
    same_at_each_token(text, words(TEXT, add_special_tokens=False)["input_ids"])
    for seed in range(20):  # and what no text would be: half characters, blanks, special tokens
        same_at_each_token(text, np.random.default_rng(seed).integers(0, len(words), 40).tolist())


def test_characters_of_several_byte_tokens_and_a_lost_first_blank_are_no_trap() -> None:
    made = pieces_of_sentencepiece()
    ids = spelled(made, f" {TEXT}")
    assert made.decode(ids) == TEXT
    same_at_each_token(made.decode, ids)
    for seed in range(50):
        draws = np.random.default_rng(seed)
        broken = [i for i in ids if draws.random() > 0.1]  # of some characters a byte is missing
        same_at_each_token(made.decode, broken)


def test_a_text_costs_what_is_new_in_it() -> None:
    made, n_read = pieces_of_sentencepiece(), 0

    def text(ids: Sequence[int]) -> str:
        nonlocal n_read
        n_read += len(ids)
        return str(made.decode(ids))

    ids, spoken = spelled(made, TEXT) * 10, Spoken(text)
    for n in range(1, len(ids) + 1):
        spoken.more(ids[:n])
    assert n_read < 10 * len(ids)
