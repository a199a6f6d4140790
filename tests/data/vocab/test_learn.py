"""Tokenizers learnt here: texts come back, transformers reads them, two makes are one, limits are said."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from penjing.data.vocab.learn import learn
from penjing.data.vocab.segment import words
from penjing.data.vocab.settings import settled
from penjing.errors import DataError, SpecError

ENGLISH = ["The parcel is late again.\n", "my card was charged twice, and the parcel was lost;\n"] * 6
CHINESE = ["我的快递还没有到，密码忘记了怎么办?\n", "包裹在哪里? 我的密码没有了。\n"] * 6
HARD = ["naïve café — “quotes” \t\ttabs\n\n", "😀 emoji and 字 together", " a leading space", "x\r\ny"]
EXACT = ["bpe", "char"]


def made(kind: str, texts: list[str] | None = None, **asked: Any) -> Any:
    asked = {"vocab": 500 if kind == "bpe" else 200, **asked} if kind != "char" else asked
    asked = asked if kind == "char" or kind == "bpe" else {"coverage": 1.0, **asked}
    return learn(lambda: texts or ENGLISH + CHINESE, settled(kind=kind, **asked)).tokenizer


def saved(tokenizer: Any, folder: Path) -> Any:
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("chinese", [None, "characters", "words"])
def test_bytes_and_characters_come_back_exactly(kind: str, chinese: str | None, tmp_path: Path) -> None:
    texts = ENGLISH + CHINESE + HARD
    more = {} if kind == "char" else {"chinese": chinese}
    tokenizer = saved(made(kind, texts, **more), tmp_path)
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("form", ["none", "nfkc"])
def test_unigram_comes_back_but_for_its_normal_form(form: str) -> None:
    tokenizer = made("unigram", form=form)
    text = "the parcel，密码？ twice"
    wanted = "the parcel,密码? twice" if form == "nfkc" else text
    found = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert found == (wanted if form == "nfkc" else "the parcel，密码<unk> twice".replace("<unk>", ""))


def test_characters_have_one_id_each() -> None:
    texts = ["hello\nworld", "héllo"]
    tokenizer = made("char", texts)
    assert len(tokenizer) == len(set("".join(texts))) + 1  # what is unknown
    for text in texts:
        assert len(tokenizer(text)["input_ids"]) == len(text)
    assert tokenizer("hz")["input_ids"][1] == tokenizer.unk_token_id


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "char"])
def test_two_makes_are_one(kind: str) -> None:
    first, second = (made(kind).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("kind", "family", "around", "special"),
    [
        (
            "wordpiece",
            "bert",
            ("[CLS]", "[SEP]"),
            {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4},
        ),
        ("bpe", "roberta", ("<s>", "</s>"), {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}),
        ("bpe", "gpt", (None, None), {"<|endoftext|>": 0}),
        ("bpe", "llama", ("<|begin_of_text|>", None), {"<|begin_of_text|>": 0, "<|end_of_text|>": 1}),
        ("unigram", "marian", (None, "</s>"), {"</s>": 0, "<unk>": 1, "<pad>": 2}),
        ("unigram", "t5", (None, "</s>"), {"<pad>": 0, "</s>": 1, "<unk>": 2}),
        ("bpe", "chat", (None, None), {"<|endoftext|>": 0, "<|im_end|>": 1, "<|im_start|>": 2}),
    ],
)
def test_a_familys_special_words_stand_where_it_wants_them(
    kind: str, family: str, around: tuple[str | None, str | None], special: dict[str, int], tmp_path: Path
) -> None:
    tokenizer = saved(made(kind, family=family, vocab=500), tmp_path)
    assert {word: tokenizer.convert_tokens_to_ids(word) for word in special} == special
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("parcel")["input_ids"])
    begin, end = around
    assert (tokens[0] == begin) == (begin is not None)
    assert (tokens[-1] == end) == (end is not None)
    assert not set(tokens) & (set(special) - {begin, end})


def test_sentinels_of_t5_are_its_last_ids_and_fall(tmp_path: Path) -> None:
    tokenizer = saved(made("unigram", vocab=260), tmp_path)
    ids = [tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(100)]
    assert ids == list(range(len(tokenizer) - 1, len(tokenizer) - 101, -1))
    assert len(tokenizer) <= 260
    assert tokenizer("a <extra_id_7> b")["input_ids"].count(ids[7]) == 1


def test_a_chat_family_writes_calls_of_tools(tmp_path: Path) -> None:
    call = {"function": {"name": "find", "arguments": {"order": 12}}}
    told = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    said = saved(made("bpe", family="chat"), tmp_path).apply_chat_template(told, tokenize=False)
    assert '<tool_call>\n{"name": "find", "arguments": {"order": 12}}\n</tool_call><|im_end|>' in said


def test_a_chat_family_brings_its_template(tmp_path: Path) -> None:
    tokenizer = saved(made("bpe", family="chat"), tmp_path)
    said = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert said == "<|im_start|>user\nhi<|im_end|>\n"


def test_bert_tells_two_texts_apart() -> None:
    assert set(made("wordpiece")("a", "b")["token_type_ids"]) == {0, 1}


def test_lower_case_is_a_choice() -> None:
    tokenizer = made("wordpiece", lower=True)
    assert tokenizer.tokenize("PARCEL") == tokenizer.tokenize("parcel")
    cased = made("wordpiece")
    assert cased.tokenize("The") != cased.tokenize("the")


def test_the_most_frequent_pair_is_merged_first() -> None:
    """By hand: of `ab ab ab cd cd`, the pair (a, b) occurs three times, (c, d) twice."""
    tokenizer = made("bpe", ["ab ab ab cd cd"], vocab=259, family="plain", min_count=1)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    pairs: Counter[tuple[str, str]] = Counter()
    for word in ["ab", "Ġab", "Ġab", "Ġcd", "Ġcd"]:
        pairs.update(pairwise(word))
    assert tuple(merges[0]) == max(pairs, key=lambda pair: pairs[pair]) == ("a", "b")


def test_chinese_within_characters_has_no_piece_of_two() -> None:
    pieces = made("unigram", chinese="characters").get_vocab()
    assert not [p for p in pieces if len(p) > 1 and any("\u4e00" <= c <= "\u9fff" for c in p)]


def test_chinese_within_words_has_no_piece_across_them() -> None:
    texts = ["我的密码", "我的快递", "我的包裹"] * 20
    whole = {text[begin:end] for text in texts for begin, end in words(text)}
    assert "我的密码" not in whole
    across = made("bpe", texts, vocab=300, chinese="runs")
    within = made("bpe", texts, vocab=300, chinese="words")
    assert len(across.tokenize("我的密码")) < len(within.tokenize("我的密码")) == len(words("我的密码"))


def test_rare_characters_are_left_out_and_told() -> None:
    texts = ["the parcel is late " * 200, "ღ"]
    found = learn(lambda: texts, settled(kind="wordpiece", vocab=60, coverage=0.999))
    assert found.rare == 1
    assert "1 rare characters are unknown to it" in found.notes[0]
    assert found.tokenizer.tokenize("ღ") == ["[UNK]"]


def test_a_small_corpus_gives_fewer_ids_and_says_so() -> None:
    found = learn(lambda: ["a tiny text"], settled(kind="bpe", vocab=900))
    assert "the corpus gave 258 ids, not 900" in found.notes[0]


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"kind": "bpee"}, SpecError, "`kind` must be one of .*; it is `bpee`. Did you mean `bpe`"),
        ({"family": "t55"}, SpecError, "`family` must be one of"),
        ({"kind": "bpe", "vocab": 100}, SpecError, r"`vocab` is 100; `kind: bpe` .* needs 257 ids"),
        ({"kind": "wordpiece", "vocab": 30}, SpecError, "characters of this corpus need .* Give more"),
        ({"kind": "unigram", "vocab": 130}, SpecError, "characters of this corpus need .* Give more"),
        ({"kind": "char", "vocab": 80}, SpecError, "`vocab` is 80; `kind: char` would ignore it"),
        ({"kind": "bpe", "coverage": 0.9}, SpecError, "`coverage` is 0.9; `kind: bpe` would ignore it"),
        ({"coverage": 0.1, "kind": "unigram"}, SpecError, "from 0.5 to 1; it is 0.1"),
        ({"form": "nfd"}, SpecError, "`normalize` must be one of none, nfc, nfkc; it is `nfd`"),
    ],
)
def test_what_cannot_be_asked_is_said(asked: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        learn(lambda: ENGLISH + CHINESE, settled(**asked))


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "char"])
@pytest.mark.parametrize("texts", [[], [""]], ids=["no texts", "empty ones"])
def test_a_corpus_without_text_is_refused(kind: str, texts: list[str]) -> None:
    with pytest.raises(DataError, match="A corpus was wanted"):
        learn(lambda: texts, settled(kind=kind))
