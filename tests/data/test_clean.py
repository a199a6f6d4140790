"""Duplicates against brute force, the summary's counts, and label errors that were planted."""

import json
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.data.clean import exact_groups, near_groups, normal, remarks, summary, suspects
from penjing.records import Rows, Tokens


def rows_of(texts: list[str], labels: list[str] | None = None, *, file: str = "a.csv") -> Rows:
    n = len(texts)
    named = [(label,) for label in labels] if labels else [("x",)] * n
    return Rows(texts, named, (file,), np.zeros(n, np.int32), np.arange(2, n + 2))


def shingles(text: str) -> set[str]:
    text = normal(text)
    han = "\u3400-\u9fff"
    pairs = {text[i : i + 2] for i in range(len(text) - 1) if re.fullmatch(f"[{han}]{{2}}", text[i : i + 2])}
    return (
        pairs | set(re.findall(r"[a-z0-9]+", text)) | set(re.findall(f"(?<![{han}])[{han}](?![{han}])", text))
    )


def brute(texts: list[str], threshold: float = 0.8) -> list[int]:
    sets = [shingles(text) for text in texts]
    group = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            alike = len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9
            if normal(texts[i]) == normal(texts[j]) or (sets[i] and sets[j] and alike):
                old, new = group[i], group[j]
                group = [min(old, new) if g in (old, new) else g for g in group]
    return group


def random_texts(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words, signs = [f"w{i}" for i in range(60)], [chr(0x4E00 + i) for i in range(60)]
    texts: list[str] = []
    for _ in range(n):
        kind = rng.random()
        if texts and kind < 0.3:
            texts.append(rng.choice(texts) + rng.choice(["", "!", " more", "吗", " w1 w2"]))
        elif kind < 0.6:
            texts.append(" ".join(rng.choices(words, k=rng.randint(1, 12))))
        else:
            texts.append("".join(rng.choices(signs, k=rng.randint(1, 15))) + rng.choice(["", " ok"]))
    return texts


@pytest.mark.parametrize("seed", range(5))
def test_near_groups_equal_those_of_comparing_all_pairs(seed: int) -> None:
    texts = random_texts(400, seed)
    assert near_groups(texts).tolist() == brute(texts)


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=12))
def test_any_text_has_a_group_that_holds_its_equals(texts: list[str]) -> None:
    exact, near = exact_groups(texts), near_groups(texts)
    assert [exact[i] == exact[j] for i in range(len(texts)) for j in range(i)] == [
        normal(texts[i]) == normal(texts[j]) for i in range(len(texts)) for j in range(i)
    ]
    assert (near[exact] == near).all()
    assert (near <= np.arange(len(texts))).all()


def test_normal_folds_case_width_and_space() -> None:
    assert normal("  Ｈello\t 你好\n") == normal("hello 你好") == "hello 你好"


def test_long_texts_that_differ_in_a_word_are_near() -> None:
    rng = random.Random(0)
    words = [f"word{i}" for i in range(20_000)]
    long = " ".join(rng.sample(words, 5000))
    other = " ".join(rng.sample(words, 5000))
    assert near_groups([long, other, long + " more"]).tolist() == [0, 1, 0]


@pytest.mark.slow
def test_texts_from_one_template_do_not_explode() -> None:
    texts = [f"please send order {i} to house number {i * 7} in the old town soon" for i in range(4000)]
    assert len(near_groups(texts)) == 4000


def test_texts_without_letters_are_only_equal_to_themselves() -> None:
    assert near_groups(["!!!", "???", "!!!", "👍"]).tolist() == [0, 1, 0, 3]


def test_the_summary_is_json_and_counts_duplicates_conflicts_and_leaks() -> None:
    train = rows_of(
        ["my card is lost", "My card is  lost", "where is it", "一二三四五六七八九"], ["a", "b", "a", "c"]
    )
    test = rows_of(["where is it", "一二三四五六七八九十", "new text here"], ["a", "c", "c"], file="b.csv")
    found = json.loads(json.dumps(summary({"train": train, "test": test})))
    about = found["sets"]["train"]
    assert found["rows"] == 7
    assert about["duplicates"]["exact"] == 1
    assert about["conflicts"]["texts"] == 1
    assert [row["where"] for row in about["conflicts"]["examples"][0]["rows"]] == [
        "a.csv, line 2",
        "a.csv, line 3",
    ]
    assert about["labels"]["counts"] == {"a": 2, "b": 1, "c": 1}
    assert about["labels"]["single"] == ["b", "c"]
    leak = found["leaks"][0]
    assert (leak["from"], leak["to"], leak["exact"], leak["near"]) == ("train", "test", 1, 1)
    assert leak["examples"][0]["in"]["where"] == "b.csv, line 2"
    assert leak["examples"][0]["also"]["where"] == "a.csv, line 4"


def test_lengths_are_characters_and_words_with_a_han_character_a_word() -> None:
    about = summary(rows_of(["two words", "四个汉字", "mixed 汉字 text"]))["sets"]["rows"]
    assert (about["words"]["min"], about["words"]["max"]) == (2, 4)
    assert (about["characters"]["min"], about["characters"]["max"]) == (4, 13)
    assert about["script"]["han"] == round(6 / 23, 4)


def test_blank_and_long_rows_are_shown() -> None:
    about = summary(rows_of(["...", "word " * 600, "fine"]))["sets"]["rows"]
    assert (about["blank"]["n"], about["blank"]["examples"][0]["where"]) == (1, "a.csv, line 2")
    assert (about["long"]["n"], about["long"]["examples"][0]["words"]) == (1, 600)


def test_token_lengths_are_told_where_given() -> None:
    tokens = Tokens(np.zeros(5, np.uint16), np.array([0, 2, 5]), cut=1)
    assert (
        summary({"train": rows_of(["a", "b"])}, tokens={"train": tokens})["sets"]["train"]["tokens"]["cut"]
        == 1
    )


def test_remarks_name_what_deserves_a_look_and_nothing_else() -> None:
    good = {"train": rows_of(["one thing", "another matter"], ["a", "a"])}
    assert remarks(summary(good)) == []
    bad = {
        "train": rows_of(["same text", "same text", "..."], ["a", "b", "a"]),
        "test": rows_of(["same text"], file="b.csv"),
    }
    said = " ".join(remarks(summary(bad)))
    assert "1 text stands 2 times with unequal labels (a.csv, line 2 and a.csv, line 3)" in said
    assert "1 of 3 rows holds no letter or digit" in said
    assert "100.0% of test is also in train" in said


def test_labels_that_differ_in_capitals_and_blanks_only_are_told() -> None:
    labels = ["card_lost", "Card lost", "ＣＡＲＤ_LOST", "to do", "to-do", "-1", "1", "1-2", "12"]
    rows = rows_of([f"text {i}" for i in range(20)], labels * 2)
    assert remarks(summary(rows)) == [
        "rows: 2 labels are spelled in several ways (`card_lost` and `Card lost` and `ＣＡＲＤ_LOST`; "
        "`to do` and `to-do`); each spelling is a label of its own: write them alike."
    ]


TOPICS = {
    "money": ["card", "charge", "fee", "invoice", "refund", "bank"],
    "parcel": ["courier", "late", "lost", "box", "street", "door"],
}


def test_planted_label_errors_are_found_first() -> None:
    rng = random.Random(0)
    labels = [rng.choice([*TOPICS]) for _ in range(300)]
    texts = [" ".join([*rng.choices(TOPICS[label], k=4), f"n{i}", f"m{i}"]) for i, label in enumerate(labels)]
    wrong = {7, 70, 170}
    given_ = [
        ("parcel" if label == "money" else "money") if i in wrong else label for i, label in enumerate(labels)
    ]
    found = suspects(rows_of(texts, given_))
    assert {one["row"] for one in found[:3]} == wrong
    assert found[0]["where"] == f"a.csv, line {found[0]['row'] + 2}"
    assert found[0]["probability"] > found[0]["given_probability"]


def test_many_labels_of_two_rows_are_looked_at_without_a_warning() -> None:
    texts = [f"{word} {i} of them" for i in range(30) for word in ("parcel", "money")]
    suspects(rows_of(texts, [str(i) for i in range(30) for _ in range(2)]))


def test_texts_without_a_word_have_no_suspects() -> None:
    assert suspects(rows_of(["!!!", "???", "😀", "🎉", "…"], ["a", "b", "a", "b", "a"])) == []


def test_one_label_has_no_suspects() -> None:
    assert suspects(rows_of(["a b", "c d"])) == []
