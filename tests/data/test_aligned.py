"""Sources and targets: which columns they are, two files side by side, and what is refused."""

import gzip
import json
from pathlib import Path

import pytest

from common import put, told
from penjing.data.aligned import asked_sources, read_aligned
from penjing.errors import DataError


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ("source,target", ("a", "b")),
        ("target,source", ("b", "a")),
        ("id,dialogue,summary", ("b", "c")),
        ("en,de", ("a", "b")),
        ("原文,摘要", ("a", "b")),
        ("what,ever", ("a", "b")),
        ("id,English,中文", ("b", "c")),
    ],
)
def test_the_two_columns_are_found_and_told(tmp_path: Path, head: str, wanted: tuple[str, str]) -> None:
    row = dict(zip(head.split(","), "abc", strict=False))
    rows = read_aligned(put(tmp_path, "rows.jsonl", json.dumps(row) + "\n"))
    assert rows.items == [wanted]
    assert any("guessed; say `text:` and `label:`" in note for note in rows.notes)


def test_named_columns_are_taken(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", "x,y,z\na,b,c\n")
    assert read_aligned(path, text="z", label="x").items == [("c", "a")]
    assert read_aligned(path, text="z", labelled=False).items == [("c", None)]


def test_an_instruction_is_never_lost_beside_its_input(tmp_path: Path) -> None:
    alpaca = [{"instruction": "say it", "input": "", "output": "it"},
              {"instruction": "turn", "input": "ab", "output": "ba"}]  # fmt: skip
    path = put(tmp_path, "rows.json", json.dumps(alpaca))
    assert read_aligned(path).items == [("say it", "it"), ("turn\nab", "ba")]
    assert read_aligned(path, labelled=False).items == [("say it", None), ("turn\nab", None)]
    assert asked_sources(alpaca).items == [("say it", None), ("turn\nab", None)]


def test_a_source_may_be_several_columns_and_a_target_one(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", "x,y,z\na,,c\nd,e,f\n")
    assert read_aligned(path, text="x+y", label="z").items == [("a", "c"), ("d\ne", "f")]
    with pytest.raises(DataError, match=r"`label: y\+z` names 2 columns; a target has one"):
        read_aligned(path, text="x", label="y+z")


def test_lines_of_a_text_file_are_sources(tmp_path: Path) -> None:
    path = put(tmp_path, "asked.txt", "one\ntwo\n")
    assert read_aligned(path, labelled=False).items == [("one", None), ("two", None)]


def test_two_files_are_read_side_by_side(tmp_path: Path) -> None:
    put(tmp_path, "a.en", "one\ntwo\n")
    put(tmp_path, "a.de.gz", gzip.compress(b"eins\nzwei\n"))
    rows = read_aligned(f"{tmp_path / 'a.en'}+{tmp_path / 'a.de.gz'}")
    assert rows.items == [("one", "eins"), ("two", "zwei")]
    assert rows.where(1) == f"{tmp_path / 'a.en'}, line 2"


def test_a_line_ends_at_a_line_end_alone(tmp_path: Path) -> None:
    put(tmp_path, "a.en", "one\u2028more\x0bof it\ntwo\n")
    put(tmp_path, "a.de", "eins\nzwei\x85ganz\n")
    rows = read_aligned(f"{tmp_path / 'a.en'}+{tmp_path / 'a.de'}")
    assert rows.items == [("one\u2028more\x0bof it", "eins"), ("two", "zwei\x85ganz")]


def test_translations_in_one_object_are_columns(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.jsonl", json.dumps({"id": 1, "translation": {"en": "a", "zh": "b"}}) + "\n")
    assert read_aligned(path).items == [("a", "b")]


def test_names_of_languages_are_a_header(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", "English,中文\nIt is late,晚了\nWho is there,谁在那儿\n")
    assert read_aligned(path).items == [("It is late", "晚了"), ("Who is there", "谁在那儿")]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.en", "one\ntwo\n")
    put(tmp_path, "a.de", "eins\n")
    put(tmp_path, "b.de", "eins\n\n")
    with pytest.raises(DataError) as error:
        read_aligned(f"{tmp_path / 'a.en'}+{tmp_path / 'a.de'}")
    told(error, "as many lines", "2 and 1", "Align them anew")
    with pytest.raises(DataError, match=r"b.de, line 2: the text is empty. 1 of 2 rows"):
        read_aligned(f"{tmp_path / 'a.en'}+{tmp_path / 'b.de'}")
    kept = read_aligned(f"{tmp_path / 'a.en'}+{tmp_path / 'b.de'}", drop_empty=True)
    assert kept.items == [("one", "eins")]
    assert "1 of 2 rows left out" in kept.notes[0]
    with pytest.raises(DataError, match=r"there is no file .*c.de"):
        read_aligned(f"{tmp_path / 'a.en'}+{tmp_path / 'c.de'}")


def test_columns_that_cannot_be_guessed_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_aligned(put(tmp_path, "rows.csv", "x,y,z\na,b,c\n"))
    told(error, "a column of sources and one of targets", "Columns: x, y, z", "`text: x` and `label: z`")


def test_sources_given_by_hand_are_rows() -> None:
    found = asked_sources(["a", {"source": "b"}, '{"dialogue": "c"}']).items
    assert found == [("a", None), ("b", None), ("c", None)]
    with pytest.raises(DataError, match="item 2 of 2 is '3'"):
        asked_sources(["a", 3])
