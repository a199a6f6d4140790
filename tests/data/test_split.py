"""What a split promises: shares by label, groups on one side, no label lost, the same whatever the order."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.data.split import folds, split
from penjing.errors import DataError, SpecError
from penjing.records import Rows


def rows_of(texts: list[str], labels: list[tuple[str, ...]]) -> Rows:
    return Rows(texts, labels, ("a.csv",), np.zeros(len(texts), np.int32), np.arange(len(texts)))


def unlike(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(10**6)}" for _ in range(5)) for _ in range(n)]


def test_every_row_is_on_one_side() -> None:
    rows = rows_of(unlike(100), [("ab"[i % 2],) for i in range(100)])
    train, valid = split(rows, share=0.2, seed=0)
    assert sorted([*train, *valid]) == list(range(100))


def test_each_label_gives_its_share() -> None:
    labels = [("often",)] * 800 + [("seldom",)] * 200
    _, valid = split(rows_of(unlike(1000), labels), share=0.1, seed=1)
    assert len(valid) == 100
    assert sum(labels[i] == ("seldom",) for i in valid) == 20


def test_small_classes_still_give_validation_rows() -> None:
    rows = rows_of(unlike(300), [(f"c{i % 100}",) for i in range(300)])
    train, valid = split(rows, share=0.1, seed=0)
    assert len(valid) == 30
    assert len({rows.labels[i] for i in train}) == 100


def test_a_label_of_one_row_stays_in_train() -> None:
    rows = rows_of(unlike(21), [("a",)] * 20 + [("alone",)])
    assert 20 in split(rows, share=0.5, seed=0)[0]


def test_equal_and_near_texts_stay_on_one_side() -> None:
    base = unlike(60)
    texts = [*base, *(text.upper() for text in base), *(text + " !" for text in base)]
    train, valid = split(rows_of(texts, [("a",)] * 180), share=0.3, seed=0)
    assert not {i % 60 for i in train} & {i % 60 for i in valid}


def test_the_seed_changes_the_split_and_repeats_it() -> None:
    rows = rows_of(unlike(100), [("a",)] * 100)
    first, again, other = (split(rows, share=0.2, seed=seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_the_order_of_rows_does_not_matter() -> None:
    texts, labels = unlike(200), [("abc"[i % 3],) for i in range(200)]
    order = np.random.default_rng(0).permutation(200)
    one = {texts[i] for i in split(rows_of(texts, labels), share=0.2, seed=3)[1]}
    shuffled = [texts[i] for i in order]
    two = {shuffled[i] for i in split(rows_of(shuffled, [labels[i] for i in order]), share=0.2, seed=3)[1]}
    assert one == two


def test_every_label_of_several_keeps_a_train_row() -> None:
    rng = random.Random(0)
    labels = [tuple(sorted(rng.sample("abcdefghij", rng.randint(1, 3)))) for _ in range(120)]
    train, valid = split(rows_of(unlike(120), labels), share=0.3, seed=0)
    assert {label for i in train for label in labels[i]} == {label for one in labels for label in one}
    assert 20 <= len(valid) <= 40


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=60), st.floats(0.05, 0.6), st.integers(0, 5))
def test_no_label_is_ever_lost(labels: list[str], share: float, seed: int) -> None:
    rows = rows_of(unlike(len(labels)), [(label,) for label in labels])
    if len(set(labels)) == len(labels):
        with pytest.raises(DataError):
            split(rows, share=share, seed=seed, groups=np.arange(len(labels)))
        return
    train, valid = split(rows, share=share, seed=seed, groups=np.arange(len(labels)))
    assert {labels[i] for i in train} == set(labels)
    assert len(valid) >= 1


def test_one_row_cannot_be_split() -> None:
    with pytest.raises(DataError, match="At least 2 rows"):
        split(rows_of(["a"], [("x",)]), share=0.1, seed=0)


def test_rows_that_are_all_alike_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 group of"):
        split(rows_of(["same text"] * 9, [("x",)] * 9), share=0.1, seed=0)


def test_unlabelled_rows_of_few_large_groups_are_not_said_to_lack_labels() -> None:
    with pytest.raises(DataError, match=r"3 groups of .* none is small enough to be set aside whole"):
        split(rows_of([text for text in unlike(3) for _ in range(12)], [()] * 36), share=0.1, seed=0)


def test_a_share_beyond_one_is_a_spec_error() -> None:
    with pytest.raises(SpecError, match="valid_share"):
        split(rows_of(unlike(9), [("x",)] * 9), share=1.5, seed=0)


def test_folds_hold_every_row_once_and_near_texts_together() -> None:
    base = unlike(50)
    rows = rows_of(base * 2, [("ab"[i % 2],) for i in range(50)] * 2)
    found = folds(rows, n_folds=5, seed=0)
    assert sorted(i for _, valid in found for i in valid) == list(range(100))
    assert all(not {i % 50 for i in train} & {i % 50 for i in valid} for train, valid in found)
    assert {len(valid) for _, valid in found} == {20}


def test_more_folds_than_groups_is_an_error() -> None:
    with pytest.raises(DataError, match="Use fewer folds"):
        folds(rows_of(["same"] * 4, [("x",)] * 4), n_folds=3, seed=0)
