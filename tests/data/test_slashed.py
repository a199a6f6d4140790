"""Words with their tags behind a stroke."""

from pathlib import Path

import pytest

from common import entities_of, put
from penjing.data.read import read as read_texts
from penjing.data.tagged import read
from penjing.errors import DataError


def test_words_with_their_tags_are_an_entity_each(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", "[中央/n 电台/n]nt 播/v //w\n李雷/nr 来/v 了/u 。/w\n")
    rows = read(path)
    assert rows.texts[1] == "李雷来了。"
    assert entities_of(rows) == [("中央", "n"), ("电台", "n"), ("播", "v"), ("/", "w")]
    assert "1 bracket around several words left out" in rows.notes[1]
    assert "units: characters" in rows.notes[-1]
    assert read_texts(path, labelled=False).texts[1] == "李雷/nr 来/v 了/u 。/w"


def test_words_with_tags_may_say_what_is_no_entity(tmp_path: Path) -> None:
    msra = read(put(tmp_path, "a.txt", "中共中央/nt 致/o 贺词/o\n各/o 位/o 北京/ns 上海/ns\n"))
    assert (entities_of(msra), entities_of(msra, 1)) == (
        [("中共中央", "nt")],
        [("北京", "ns"), ("上海", "ns")],
    )
    bio = read(put(tmp_path, "b.txt", "EU/B-ORG rejects/O Peter/B-PER B/I-PER\nBonn/B-LOC too/O\n"))
    assert entities_of(bio) == [("EU", "ORG"), ("Peter B", "PER")]


def test_a_word_without_its_tag_is_named_with_its_line(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", "李雷/nr 来/v 了/u 。/w\n" * 9 + "李雷/nr 来/v 了\n")
    with pytest.raises(DataError, match=r"a.txt, line 10: a word and its tag were wanted.*`了`"):
        read(path)
