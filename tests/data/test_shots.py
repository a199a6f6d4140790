"""A few rows a class: stratified, disjoint, by seed and text alone."""

from collections import Counter

import numpy as np
import pytest

from conftest import tickets
from penjing.data.shots import descriptions, draw, joined, named
from penjing.errors import DataError
from penjing.records import Rows


def rows_of(pairs: list[tuple[str, str]]) -> Rows:
    n = len(pairs)
    texts, labels = [text for text, _ in pairs], [(label,) for _, label in pairs]
    return Rows(texts, labels, ("t.csv",), np.zeros(n, dtype=np.int32), np.arange(2, n + 2))


ROWS = rows_of(tickets(60))


def test_every_label_gives_as_many_rows_to_both_and_none_to_both() -> None:
    train, valid = draw(ROWS, shots=8, seed=3, valid=True)
    for index in (train, valid):
        assert Counter(ROWS.labels[i] for i in index) == dict.fromkeys(set(ROWS.labels), 8)
    assert not set(train) & set(valid)
    assert not {ROWS.texts[i] for i in train} & {ROWS.texts[i] for i in valid}


def test_equal_texts_count_once_so_that_none_is_on_both_sides() -> None:
    doubled = rows_of([pair for pair in tickets(60) for _ in range(3)])
    train, valid = draw(doubled, shots=10, seed=0, valid=True)
    texts = [doubled.texts[i] for i in np.concatenate([train, valid])]
    assert len(texts) == len(set(texts)) == 60


def test_what_is_drawn_depends_on_seed_and_texts_and_not_on_their_order() -> None:
    turned = rows_of(tickets(60)[::-1])
    found = {ROWS.texts[i] for i in draw(ROWS, shots=4, seed=1, valid=True)[0]}
    assert found == {turned.texts[i] for i in draw(turned, shots=4, seed=1, valid=True)[0]}
    assert found != {ROWS.texts[i] for i in draw(ROWS, shots=4, seed=2, valid=True)[0]}


def test_more_shots_hold_the_fewer_ones() -> None:
    few, more = (set(draw(ROWS, shots=k, seed=1, valid=False)[0]) for k in (4, 9))
    assert few < more


def test_validation_takes_what_is_left_where_a_label_has_few_rows() -> None:
    train, valid = draw(ROWS, shots=15, seed=0, valid=True)
    assert (len(train), len(valid)) == (45, 15)


def test_too_few_rows_of_a_label_are_told() -> None:
    with pytest.raises(DataError, match=r"asks for 20 different texts a label and at least one more.*has 20"):
        draw(ROWS, shots=20, seed=0, valid=True)
    assert len(draw(ROWS, shots=20, seed=0, valid=False)[0]) == 60


def test_labels_describe_themselves_by_their_words_or_names() -> None:
    called = named(["card_lost", "refund"], {"refund": "money back"})
    assert called == {"card_lost": "card lost", "refund": "money back"}
    both = joined(ROWS, descriptions(called))
    assert both.texts[-2:] == ["card lost", "money back"]
    assert both.labels[-1] == ("refund",)
    assert both.where(60) == "the labels' names, line 1"
    assert both.where(0) == "t.csv, line 2"
