"""Scores of answers: the published rules, said a second way, on the same answers."""

import random
import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from penjing.answering import (
    best_threshold,
    cmrc_pieces,
    difference_of,
    judged,
    scores_of,
    squad_words,
    table_of,
)
from penjing.data.questions import read

SAID = ["The Eiffel-Tower!", "a  cat", "cat dog cat", "", "1,000 m", "an", "Café", "it's"]
RIGHT = ["eiffel tower", "the cat.", "cat cat bird", "", "1000 m", "the", "cafe", "its"]


def by_the_book(said: str, right: str) -> tuple[float, float]:
    """SQuAD 2.0's rules as its paper and page tell them, by sorted words instead of counters."""

    def words(text: str) -> list[str]:
        text = re.sub(r"[!-/:-@\[-`{-~]", "", text.lower())
        return [w for w in text.split() if w not in ("a", "an", "the")]

    ours, theirs = sorted(words(said)), sorted(words(right))
    exact = float(" ".join(words(said)) == " ".join(words(right)))
    if not ours or not theirs:
        return exact, exact
    rest, common = list(theirs), 0
    for word in ours:
        if word in rest:
            rest.remove(word)
            common += 1
    if not common:
        return exact, 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return exact, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("said", SAID)
def test_squads_rules_are_those_of_the_book(said: str) -> None:
    for right in RIGHT:
        assert judged(said, [right], "squad") == pytest.approx(by_the_book(said, right))


def test_the_best_right_answer_counts_and_none_is_an_answer() -> None:
    assert judged("in Paris", ["Rome", "Paris"], "squad") == pytest.approx((0.0, 2 / 3))
    assert judged("", [], "squad") == (1.0, 1.0)
    assert judged("Paris", [], "squad") == (0.0, 0.0)


@pytest.mark.parametrize(
    ("said", "right", "wanted"),
    [  # printed by CMRC 2018's script
        ("光荣和ω-force", "光荣和ω-force", (1.0, 1.0)),
        ("任天堂游戏谜之村雨城", "村雨城", (0.0, 6 / 13)),
        ("《村雨城》。", "村雨城", (1.0, 1.0)),
        ("村城", "村雨城", (0.0, 0.4)),  # the run, not the signs in common
        ("1998年", "1998 年", (0.0, 1.0)),
        ("北京", "上海", (0.0, 0.0)),
    ],
)
def test_cmrcs_rules_count_the_longest_run(said: str, right: str, wanted: tuple[float, float]) -> None:
    assert judged(said, [right], "cmrc") == pytest.approx(wanted)


def test_chinese_is_cut_into_characters_and_the_rest_into_words() -> None:
    assert cmrc_pieces("由Nexon 6年，开发") == ["由", "nexon", "6", "年", "开", "发"]
    assert squad_words("The U.S. Army") == ["us", "army"]


def test_scores_are_means_with_intervals_and_tell_the_unanswerable_apart() -> None:
    said, right = ["Paris", "", "Rome", ""], [("Paris",), (), ("Oslo",), ("Bonn",)]
    found = scores_of(said, right, "squad", 0)
    assert found.values == {
        "exact_match": 0.5,
        "f1": 0.5,
        "f1_answerable": pytest.approx(1 / 3),
        "unanswerable_right": 1.0,
    }
    low, high = found.intervals["f1"]
    assert low < 0.5 < high
    gap, (low, high) = difference_of(said, ["", "", "", ""], right, "squad", 0)
    assert gap == pytest.approx(0.25)
    assert low <= gap <= high


def test_the_threshold_is_the_best_of_all_cuts() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        n = 12
        doubt = draw.integers(-3, 4, n).astype(float)
        right = [() if x else ("yes",) for x in draw.random(n) < 0.4]
        said = ["yes" if x else "no" for x in draw.random(n) < 0.7]

        def mean(most: float, said=said, doubt=doubt, right=right) -> float:
            told = [one if d <= most else "" for one, d in zip(said, doubt, strict=True)]
            return float(table_of(told, right, "squad")[:, 1].mean())

        best = max(mean(most) for most in [-9.0, *doubt, 9.0])
        assert mean(best_threshold(said, doubt, right, "squad")) == pytest.approx(best)


def test_words_in_common_count_as_often_as_both_have_them() -> None:
    assert sum((Counter(["cat", "dog", "cat"]) & Counter(["cat", "cat", "bird"])).values()) == 2
    assert judged("cat dog cat", ["cat cat bird"], "squad")[1] == pytest.approx(2 / 3)


def official(said: str, right: str) -> tuple[float, float]:
    """SQuAD v1.1, its four steps and its two scores, written down anew from the description of its script:
    lower case, no punctuation, no articles, single spaces; equal texts; F1 of the bags of words."""
    bare = ["".join(c for c in text.lower() if c not in set(string.punctuation)) for text in (said, right)]
    ours, theirs = (" ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()) for text in bare)
    same = sum((Counter(ours.split()) & Counter(theirs.split())).values())
    if not same:
        return float(ours == theirs), 0.0
    precision, recall = same / len(ours.split()), same / len(theirs.split())
    return float(ours == theirs), 2 * precision * recall / (precision + recall)


@pytest.mark.data
def test_on_xquad_the_scores_are_the_official_scorers(shared_data: Path) -> None:
    rows = read(shared_data / "xquad_en_zh" / "xquad.en.json.gz")
    draw, said = random.Random(0), []
    for one in rows.items or []:
        start, end = one.answers[0].start, one.answers[0].end
        kind = draw.randrange(4)  # right; too long; another place; the words in another order and case
        near = one.context[max(0, start - draw.randrange(30)) : end + draw.randrange(30)]
        words = one.answers[0].text.upper().split()
        said.append(
            [one.answers[0].text, near, one.context[:20], " ".join(draw.sample(words, len(words)))][kind]
        )
    right = [[answer.text for answer in one.answers] for one in rows.items or []]
    found = scores_of(said, right, "squad", 0).values
    table = [[official(a, b) for b in several] for a, several in zip(said, right, strict=True)]
    for place, name in enumerate(("exact_match", "f1")):
        wanted = sum(max(pair[place] for pair in row) for row in table) / len(table)
        assert found[name] == pytest.approx(wanted, abs=1e-12)
    assert 0.3 < found["exact_match"] < found["f1"] < 0.9
