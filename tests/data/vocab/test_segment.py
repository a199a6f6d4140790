"""Words of a text, Chinese too."""

from itertools import pairwise

from penjing.data.vocab.segment import words


def cut(text: str) -> list[str]:
    return [text[begin:end] for begin, end in words(text)]


def test_english_is_cut_at_white_space_and_signs() -> None:
    assert cut("It's 3 o'clock, Zoë.") == ["It's", "3", "o'clock", ",", "Zoë", "."]


def test_chinese_is_cut_into_words_beside_other_writing() -> None:
    assert cut("我来到北京清华大学，GPT模型 v2。") == [
        "我",
        "来到",
        "北京",
        "清华大学",
        "，",
        "GPT",
        "模型",
        "v2",
        "。",
    ]


def test_spans_lie_in_order_and_leave_out_white_space_alone() -> None:
    text = " 他说:\n“hello world”\t1,000 元 𠀀字 "
    spans = words(text)
    assert all(a < b <= c for (a, b), (c, _) in pairwise(spans))
    kept = {i for begin, end in spans for i in range(begin, end)}
    assert {i for i in range(len(text)) if i not in kept} == {i for i, c in enumerate(text) if c.isspace()}
