"""A trimmed tokenizer reads the texts it was trimmed to as before, and can spell any other word."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing.data.vocab.trim import trim
from penjing.errors import NotSupported
from penjing.models.load import tokenizer_at

Tiny = Callable[..., Path]
TEXTS = [
    "my card was charged twice",
    "the order was lost",
    "密码忘记了怎么办",
    "charged",
    "a 快递 for order 17",
]
FAMILIES = ["bert", "roberta", "t5", "qwen3"]  # one of each kind of tokenizer, and one with words of its own


def ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [list(row) for row in tokenizer(texts)["input_ids"]]


def used(tokenizer: Any) -> set[int]:
    return {i for row in ids(tokenizer, TEXTS) for i in row}


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_of_kept_words_have_the_same_tokens_in_the_new_numbers(
    name: str, tiny: Tiny, tmp_path: Path
) -> None:
    old = tokenizer_at(tiny(name))
    made = trim(old, used(old))
    assert len(made.kept) < len(old)
    made.tokenizer.save_pretrained(tmp_path)
    for new in (made.tokenizer, tokenizer_at(tmp_path)):
        assert len(new) == len(made.kept)
        assert new.convert_ids_to_tokens(range(len(new))) == old.convert_ids_to_tokens(made.kept.tolist())
        for before, after in zip(ids(old, TEXTS), ids(new, TEXTS), strict=True):
            assert [made.kept[i] for i in after] == before
            assert [made.new_id(i) for i in before] == after
            assert new.decode(after) == old.decode(before)
        for role in ("pad", "unk", "cls", "sep", "mask", "bos", "eos"):
            assert getattr(new, f"{role}_token") == getattr(old, f"{role}_token")
    pairs = [(TEXTS[0], TEXTS[1])]
    assert [made.kept[i] for i in ids(new, pairs)[0]] == ids(old, pairs)[0]


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_another_word_of_known_characters_is_spelt_and_not_unknown(name: str, tiny: Tiny) -> None:
    old = tokenizer_at(tiny(name))
    new = trim(old, used(old)).tokenizer
    inside = new("wrong hats", add_special_tokens=False)["input_ids"]
    assert new.unk_token_id not in inside
    assert new.decode(inside) == "wrong hats"
    assert len(inside) > len(old("wrong", add_special_tokens=False)["input_ids"])


def test_merges_that_texts_pass_through_stay_and_others_go(tiny: Tiny) -> None:
    old = tokenizer_at(tiny("roberta"))
    plain = json.loads(old.backend_tokenizer.to_str())["model"]
    left = json.loads(trim(old, used(old)).tokenizer.backend_tokenizer.to_str())["model"]
    assert 0 < len(left["merges"]) < len(plain["merges"])
    order = {tuple(pair): i for i, pair in enumerate(plain["merges"])}
    ranks = [order[tuple(pair)] for pair in left["merges"]]
    assert ranks == sorted(ranks)
    assert all(
        a in left["vocab"] and b in left["vocab"] and a + b in left["vocab"] for a, b in left["merges"]
    )


def test_an_unknown_character_costs_unigram_what_it_did(tiny: Tiny) -> None:
    """Its penalty hangs on the least likely piece, which therefore stays."""
    old = tokenizer_at(tiny("t5"))
    scores = [score for _, score in json.loads(old.backend_tokenizer.to_str())["model"]["vocab"]]
    made = trim(old, used(old))
    left = [score for _, score in json.loads(made.tokenizer.backend_tokenizer.to_str())["model"]["vocab"]]
    assert min(left) == min(scores)


def test_nothing_used_leaves_special_words_and_characters(tiny: Tiny) -> None:
    old = tokenizer_at(tiny("qwen3"))
    made = trim(old, [])
    assert {*old.all_special_tokens, "<|im_start|>"} <= {*made.tokenizer.get_vocab()}
    assert made.tokenizer.decode(made.tokenizer("résumé 账单")["input_ids"]) == "résumé 账单"


def test_a_tokenizer_of_python_code_is_refused(tiny: Tiny) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(NotSupported, match="Slow is a slow one"):
        trim(Slow(), [])
