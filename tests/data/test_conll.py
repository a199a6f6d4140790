"""Columns of tokens and tags: which are which, by what they hold or by their numbers."""

from pathlib import Path

import pytest

from common import entities_of, put
from penjing.data.conll import laid_out, read_conll, sentences
from penjing.data.tagged import read
from penjing.errors import DataError

CONLL = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\nPeter NNP B-PER\nB NNP I-PER\n\nBonn NNP B-LOC\n"
TEXT = "EU rejects Peter B"
WANTED = [("EU", "ORG"), ("Peter B", "PER")]


def test_conll_columns_are_tokens_and_tags(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.conll", CONLL))
    assert rows.texts == [TEXT, "Bonn"]
    assert (entities_of(rows), entities_of(rows, 1)) == (WANTED, [("Bonn", "LOC")])
    item = (rows.items or [])[0]
    assert [item.text[a:b] for a, b in item.words] == TEXT.split()
    assert rows.lines.tolist() == [3, 8]
    assert rows.notes == (f"{tmp_path / 'a.conll'}: tags are read as BIO2",)


def test_a_column_of_a_conll_file_is_named_by_its_number(tmp_path: Path) -> None:
    path = put(tmp_path, "a.conll", "EU B-ORG B-NP\nrejects O B-VP\n")
    assert entities_of(read(path, label="2")) == [("EU", "ORG")]
    assert entities_of(read(path)) == [("EU", "NP"), ("rejects", "VP")]


def test_a_tsv_of_tokens_is_told_from_a_table(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", "EU\tB-ORG\nrejects\tO\n\nBonn\tB-LOC\nagain\tO\n")
    assert entities_of(read(path)) == [("EU", "ORG")]


@pytest.mark.parametrize("name", ["a.bio", "a.txt"])
def test_tags_in_front_of_their_tokens_are_known_by_what_they_are(name: str, tmp_path: Path) -> None:
    path = put(tmp_path, name, "B-ORG\tEU\nO\trejects\nB-PER\tPeter\nI-PER\tB\n\nO\tBonn\n")
    rows = read(path)
    assert (rows.texts, entities_of(rows)) == ([TEXT, "Bonn"], WANTED)
    assert "tags stand in the first column" in rows.notes[0]
    assert entities_of(read(path, text="2", label="1")) == WANTED


def test_columns_of_conll_u_have_the_numbers_of_its_standard(tmp_path: Path) -> None:
    line = "{}\t{}\t_\t{}\t_\t_\t0\troot\t_\t_\n"
    body = "# text = a\n1-2\tam\t_\t_\t_\t_\t_\t_\t_\t_\n"
    path = put(tmp_path, "a.conllu", body + line.format(1, "an", "ADP") + line.format(2, "dem", "DET"))
    assert entities_of(read(path, label="4")) == [("an", "ADP"), ("dem", "DET")]
    with pytest.raises(DataError, match="which column holds the tags"):  # remarks are no tags
        read(path)


def test_a_first_column_that_counts_is_not_the_tokens(tmp_path: Path) -> None:
    head = "#\thttp://a.example/1\t[2009]\n"
    rows = read(put(tmp_path, "a.tsv", f"{head}1\tEU\tB-ORG\n2\tran\tO\n\n{head}1\tBonn\tB-LOC\n"))
    assert (rows.texts, entities_of(rows)) == (["EU ran", "Bonn"], [("EU", "ORG")])


def test_a_token_that_looks_like_a_comment_stays(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.conll", "# id = 7\n#now: O\nBonn B-LOC\n\n#now: O\nEU B-ORG\n"))
    assert rows.texts == ["#now: Bonn", "#now: EU"]


def test_a_token_may_be_a_blank_of_another_kind(tmp_path: Path) -> None:
    path = put(tmp_path, "a.conll", "EU  B-ORG \n\u3000 O\n10\xa0000 O\n\nBonn B-LOC\n")
    first, second = sentences(path)
    assert first.columns == [["EU", "\u3000", "10\xa0000"], ["B-ORG", "O", "O"]]
    assert second.columns == [["Bonn"], ["B-LOC"]]
    assert entities_of(read(path)) == [("EU", "ORG")]


def test_characters_of_a_chinese_text_make_the_text_that_they_were_cut_from() -> None:
    """Else a model would learn `2 0 1 8 年` and be asked about `2018年`."""
    assert laid_out([*"2018年北京ATP的A股"])[0] == "2018年北京ATP的A股"
    assert laid_out(["用", "iPhone", "13", "手", "机"]) == (
        "用iPhone 13手机", ((0, 1), (1, 7), (8, 10), (10, 11), (11, 12)),
    )  # fmt: skip
    assert laid_out(["Plan", "B", "4", "me"])[0] == "Plan B 4 me"


def test_a_blank_may_be_a_token(tmp_path: Path) -> None:
    table = read_conll(put(tmp_path, "a.conll", "王 B-PER\n明 I-PER\n  O\n在 O\n"), name="a")
    assert [*table.rows(["tokens"])] == [(1, [["王", "明", "", "在"]])]


def test_a_last_column_in_which_nothing_stands_is_not_the_tags(tmp_path: Path) -> None:
    text = "王\tB-PER\t\r\n明\tI-PER\t\r\n\r\n北\tB-LOC\t\r\n"
    table = read_conll(put(tmp_path, "a.conll", text), name="a")
    assert [cells for _, [cells] in table.rows(["tags"])] == [["B-PER", "I-PER"], ["B-LOC"]]


def test_places_in_words_behind_characters_are_left_out_and_told(tmp_path: Path) -> None:
    """As in the corpus of Weibo's entities."""
    rows = read(put(tmp_path, "a.conll", "我0\tO\n在0\tO\n北0\tB-LOC\n京1\tI-LOC\n20\tO\n"))
    assert (rows.texts, entities_of(rows)) == (["我在北京2"], [("北京", "LOC")])
    assert "the digit behind each character" in rows.notes[0]
    assert read(put(tmp_path, "b.conll", "e4\tB-X\ne5\tO\n")).texts == ["e4 e5"]
