"""Text as a stream: passages end to end are the file, tables give a column, missing things are named."""

import gzip
import json
from pathlib import Path

import pytest

from penjing.data import passages as module
from penjing.data.passages import files_of, passages, passed_over
from penjing.errors import DataError


def test_passages_end_to_end_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "first line\n\n\tthird\r\n" + "x" * 300 + "\nlast without an end"
    (tmp_path / "a.txt").write_bytes(text.encode())
    with gzip.open(tmp_path / "b.txt.gz", "wb") as packed:
        packed.write(text.encode("gb18030"))
    monkeypatch.setattr(module, "PASSAGE", 64)
    found = list(passages([tmp_path / "a.txt", tmp_path / "b.txt.gz"]))
    assert len(found) == 8
    for name in ("a.txt", "b.txt.gz"):
        assert "".join(passage for file, passage in found if file.endswith(name)) == text


def test_a_table_gives_its_text_a_row(tmp_path: Path) -> None:
    lines = [{"body": "one", "n": 1}, {"body": "two\nlines", "n": 2}, {"body": "", "n": 3}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [text for _, text in passages(tmp_path / "rows.jsonl", text="body")] == ["one", "two\nlines"]


def test_a_folder_is_all_its_texts_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.md", "notes.html", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [Path(name).name for name in files_of(tmp_path)] == ["c.md", "b.txt"]
    assert [Path(name).name for name in files_of(str(tmp_path / "*.html"))] == ["notes.html"]


def test_what_of_a_folder_is_not_read_is_named(tmp_path: Path) -> None:
    for name, text in (("a.txt", "a"), ("sub/b.html", "<p>b"), ("c.txt", ""), (".d", "d")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert files_of(tmp_path) == [str(tmp_path / "a.txt")]
    assert passed_over(tmp_path) == [tmp_path / "c.txt", tmp_path / "sub" / "b.html"]
    assert passed_over([tmp_path / "a.txt"]) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("")
    with pytest.raises(DataError, match=r"there is none\. Did you mean `corpus.txt`"):
        files_of(tmp_path / "corpsu.txt")
    with pytest.raises(DataError, match="it is empty"):
        list(passages(tmp_path / "corpus.txt"))
    with pytest.raises(DataError, match="the list of files is empty"):
        files_of([])
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no file in it that is not empty ends in"):
        files_of(tmp_path / "bare")
