"""Scores of what was said: sacrebleu's own BLEU, ROUGE by hand, repetition and lengths."""

import numpy as np
import pytest

from penjing import saying

SAID = ["the cat sat on the mat .", "a dog", "there is a big house on the hill , he said", "no"]
WANTED = ["the cat is on the mat .", "a dog runs there", "there is a house on a hill , she said", "yes"]
CHINESE = ["我的快递还没有到。", "密码忘记了"], ["我的包裹还没有到。", "密码忘记了怎么办"]
CASES = [
    (SAID, WANTED, "13a"),
    (*CHINESE, "zh"),
    (["x"], ["y"], "13a"),
    (["a b c d e"], ["f g h i j"], "13a"),
]


@pytest.mark.parametrize(("said", "wanted", "how"), CASES)
def test_bleu_is_sacrebleu_s(said: list[str], wanted: list[str], how: str) -> None:
    from sacrebleu.metrics import BLEU

    found = saying.bleu_of(saying.bleu_counts(said, wanted).sum(0))
    assert float(found) == pytest.approx(BLEU(tokenize=how).corpus_score(said, [wanted]).score, abs=1e-6)


def test_rouge_is_the_f_measure_of_overlap() -> None:
    one, two, longest = saying.rouge("the cat sat on the mat", "The cat is on the mat!")
    assert (one, two, longest) == pytest.approx((5 / 6, 3 / 5, 5 / 6))
    assert saying.rouge("", "a b") == (0, 0, 0)
    assert saying.rouge("b a", "a b") == pytest.approx((1.0, 0.0, 0.5))


def test_chinese_is_scored_by_characters() -> None:
    assert saying.words_of("我的iPhone坏了。") == ["我", "的", "iphone", "坏", "了"]
    assert saying.rouge("我的包裹", "我的快递")[0] == pytest.approx(0.5)
    assert saying.is_chinese(CHINESE[1])
    assert not saying.is_chinese(WANTED)


def test_repetition_and_lengths_are_counted() -> None:
    found = saying.manner(["a b c a b c a b c", ""], ["a b c", "d e f"])
    assert found == pytest.approx({"words": 4.5, "length_ratio": 1.5, "repeated": 1 - 3 / 7, "empty": 0.5})


def test_an_interval_holds_the_score_and_equal_texts_differ_by_nothing() -> None:
    rows = saying.bleu_counts(SAID * 20, WANTED * 20)
    low, high = saying.interval(rows, saying.bleu_of, 0)
    assert low < float(saying.bleu_of(rows.sum(0))) < high
    assert saying.interval(rows, saying.bleu_of, 0, rows) == (0.0, 0.0)
    means = np.stack([[0.2, 0.4, 0.6], np.ones(3)], 1)
    assert float(saying.mean_of(means.sum(0))) == pytest.approx(0.4)
