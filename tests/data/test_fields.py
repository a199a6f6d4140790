"""Rows of several fields: columns are found out or told, and what is missing is told with its place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import as_csv, put, told
from penjing.data.fields import read_fields
from penjing.data.numbers import number_columns, numbers_of
from penjing.data.related import read_related
from penjing.data.text_pairs import asked_pairs, pair_columns
from penjing.errors import DataError
from penjing.records import Rows

A, B = "a man plays a flute", "someone makes music"
C, D = "the parcel is late", "my card was charged"


def read(folder: Path, head: str, rows: list[tuple[str, ...]], *, scores: bool = False, **given: Any) -> Rows:
    path = put(folder, "rows.csv", as_csv(rows, head=head))
    named = {key: given.get(key) for key in ("text", "label")}
    find = pair_columns(**named, labelled=given.get("labelled", True), scores=scores)
    return read_fields(str(path), find, **given)


@pytest.mark.parametrize(
    "head",
    [
        "sentence1,sentence2,label",
        "text_a,text_b,label",
        "premise,hypothesis,gold_label",
        "question1,question2,is_duplicate",
        "#1 String,#2 String,Quality",
        "question,sentence,label",
        "句子一,句子二,标签",
        "alpha,beta,target",
    ],
)
def test_two_texts_are_found_by_their_names_or_what_they_hold(tmp_path: Path, head: str) -> None:
    rows = read(tmp_path, head, [(A, B, "1"), (C, D, "0"), (A, D, "0"), (C, B, "0")])
    assert rows.items is not None
    assert rows.items[0] == (A, B)
    assert rows.labels[:2] == [("1",), ("0",)]
    assert "guessed" in rows.notes[-1]


def test_the_order_of_named_columns_is_the_users(tmp_path: Path) -> None:
    rows = read(tmp_path, "x,y,z", [(A, B, "1"), (C, D, "0")], text="y+x", label="z")
    assert rows.items == [(B, A), (D, C)]
    assert not rows.notes


def test_ids_are_no_pair_and_scores_no_text(tmp_path: Path) -> None:
    rows = read(tmp_path, "qid1,qid2,question1,question2,is_duplicate", [("q7", "q8", A, B, "1")])
    assert rows.items == [(A, B)]
    rows = read(tmp_path, "id1,id2,sent_1,sent_2,genre,score", [("7", "8", A, B, "news", "3.5")], scores=True)
    assert rows.items == [(A, B)]
    assert rows.labels == [("3.5",)]


def test_one_column_is_no_pair(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, "text,label", [(A, "1"), (B, "0")])
    told(error, "two columns of texts were wanted", "rows.csv", "`text`", "text: a+b")
    with pytest.raises(DataError, match=r"names 1 column; a pair has two.*Columns: x, y, z"):
        read(tmp_path, "x,y,z", [(A, B, "1")], text="x")


def test_a_text_that_is_empty_is_told_with_its_column_or_left_out(tmp_path: Path) -> None:
    rows = [(A, B, "1"), (C, " ", "0"), (C, D, "")]
    with pytest.raises(DataError) as error:
        read(tmp_path, "sentence1,sentence2,label", rows)
    told(error, "line 3: the text in `sentence2` is empty", "2 of 3 rows", "drop_empty: true")
    kept = read(tmp_path, "sentence1,sentence2,label", rows, drop_empty=True)
    assert (len(kept), kept.notes[-1]) == (1, "2 of 3 rows left out, one of their fields is empty")


def test_lists_stand_in_one_cell(tmp_path: Path) -> None:
    from penjing.data.fields import Columns

    path = put(tmp_path, "rows.jsonl", '{"q": "why", "all": ["a", "b"]}\n{"q": "who", "all": ["c"]}\n')
    rows = read_fields(str(path), lambda table: Columns(("q", "all"), lists=frozenset(["all"])))
    assert rows.items == [("why", ("a", "b")), ("who", ("c",))]
    assert rows.texts == ["why\na\nb", "who\nc"]


@pytest.mark.parametrize(
    "given", [(A, B), [A, B], {"premise": A, "hypothesis": B}, f'["{A}", "{B}"]', f"{A}\t{B}",
              f'{{"text_b": "{B}", "text_a": "{A}"}}']
)  # fmt: skip
def test_pairs_are_asked_in_many_forms(given: Any) -> None:
    assert asked_pairs([given]).items == [(A, B)]


def test_what_is_no_pair_is_told() -> None:
    with pytest.raises(DataError) as error:
        asked_pairs([(A, B), "one text"])
    told(error, "pairs of texts", "item 2 of 2", "'one text'", "tab")
    with pytest.raises(DataError) as error:
        asked_pairs([(A, " ")])
    told(error, "Pair 1 of 1", "text 2 is empty", "leave the pair out")


def _numbered(*texts: str) -> Rows:
    n = len(texts)
    return Rows(list(texts), [()] * n, ("t.csv",), np.zeros(n, np.int32), np.arange(2, n + 2))


@pytest.mark.parametrize("bad", ["inf", "nan", "good", ""])
def test_what_is_no_finite_number_is_told(bad: str) -> None:
    with pytest.raises(DataError) as error:
        numbers_of(_numbered("a", "b"), [("1",), (bad,)], low=None, high=None)
    told(error, "t.csv, line 3", "a finite number was wanted", f"`{bad}`", "1 of 2 rows", "label:")


def test_a_number_outside_the_declared_range_is_told() -> None:
    with pytest.raises(DataError) as error:
        numbers_of(_numbered("a", "b"), [("1",), ("5.5",)], low=0, high=5)
    told(error, "t.csv, line 3", "at least 0 and at most 5", "it is 5.5", "`low` and `high`")
    with pytest.raises(DataError, match="at least 2 was wanted; it is 1"):
        numbers_of(_numbered("a"), [("1",)], low=2, high=None)


def test_the_column_of_numbers_is_found(tmp_path: Path) -> None:
    path = put(tmp_path, "r.csv", as_csv([(A, "news", "2.5"), (B, "film", "1")], head="text,genre,how_good"))
    find = number_columns(text=None, label=None, labelled=True)
    rows = read_fields(str(path), find)
    assert (rows.labels, rows.texts) == ([("2.5",), ("1",)], [A, B])
    assert "numbers from column `how_good`" in rows.notes[-1]


def test_rows_on_which_people_did_not_agree_are_left_out_and_counted(tmp_path: Path) -> None:
    table = [(A, B, "neutral"), (C, D, "-"), (A, D, "entailment")]
    rows = read(tmp_path, "sentence1,sentence2,gold_label", table)
    assert rows.labels == [("neutral",), ("entailment",)]
    assert "1 of 3 rows left out, unlabelled: `gold_label` is `-`" in rows.notes[-1]
    assert len(read(tmp_path, "sentence1,sentence2,gold_label", table, labelled=False)) == 3
    assert len(read(tmp_path, "sentence1,sentence2,sign", table, label="sign")) == 3  # there it is a class


def test_of_several_labels_none_is_taken_in_silence(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"sentence1": "a", "sentence2": "b", "label": ["x", "y"]}\n')
    with pytest.raises(
        DataError, match=r"a.jsonl, line 1: one label was wanted in `label`; it holds 2 \(x, y"
    ):
        read_fields(str(path), pair_columns(text=None, label=None, labelled=True))


@pytest.mark.parametrize("cell", ['["x", "y"]', "['x', 'y']"])
def test_a_list_in_a_cell_is_read_as_json_or_as_python_writes_it(cell: str, tmp_path: Path) -> None:
    table = as_csv([("a", "b", cell), ("c", "d", "[1] see below")], head="anchor,positive,negatives")
    rows = read_related(put(tmp_path, "rows.csv", table))
    assert rows.items == [("a", "b", ("x", "y")), ("c", "d", ("[1] see below",))]


PAIRS = [("cats", "of cats", "2"), ("cats", "of dogs", "0"), ("cats", "felines", "1"),
         ("cats", "of fish", "0"), ("sun", "the moon", "0")]  # fmt: skip


@pytest.mark.parametrize(
    "head", ["query,passage,relevance", "anchor,positive,label", "#1 String,#2 String,Quality"]
)
def test_pairs_of_relevance_0_are_negatives_and_others_have_grades(head: str, tmp_path: Path) -> None:
    graded = head.endswith("relevance")
    pairs = [(a, b, g if graded else g.replace("2", "1")) for a, b, g in PAIRS]
    rows = read_related(put(tmp_path, "rows.csv", as_csv(pairs, head=head)))
    assert rows.items == [("cats", "of cats", ("of dogs",)), ("cats", "felines", ("of fish",))]
    assert rows.labels == ([("2",), ("1",)] if graded else [("1",)] * 2)
    assert rows.notes[-2:] == (
        "3 pairs of relevance 0 are negatives of their anchor", "1 anchor to which nothing belongs left out",
    )  # fmt: skip
    assert [rows.where(i).rpartition(", ")[2] for i in (0, 1)] == ["line 2", "line 4"]


def test_a_label_of_many_kinds_is_no_relevance_unless_named(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", as_csv(PAIRS, head="question,answer,label"))
    rows = read_related(path)
    assert (len(rows), rows.labels[0]) == (5, ())
    assert "all are taken to belong together, whatever `label` says" in rows.notes[-1]
    assert len(read_related(path, label="label")) == 2


@pytest.mark.parametrize(
    ("grade", "text"),
    [("often", "line 2: a relevance was wanted, a number of at least 0; it is `often`"),
     ("-1", "it is `-1`"), ("0", "all 1 rows have the relevance 0"), ("", "the label in `grade` is empty")],
)  # fmt: skip
def test_a_relevance_that_cannot_be_is_told(grade: str, text: str, tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", as_csv([("a", "b", grade)], head="anchor,positive,grade"))
    with pytest.raises(DataError, match=text):
        read_related(path, label="grade")


def test_several_positives_of_a_list_are_each_one(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.jsonl", '{"query": "q", "pos": ["a", "b"], "neg": ["x", "y", "z"]}\n')
    assert read_related(path).items == [("q", "a", ("x", "z")), ("q", "b", ("y",))]
