"""Text as it lies is a corpus, too: its splits, and what tells it from other text."""

from pathlib import Path

import pytest

from common import put
from penjing.corpus.corpus import open_corpus
from penjing.errors import DataError


def test_text_as_it_lies_that_is_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.txt was to hold training text; it is empty \(0 bytes\)"):
        open_corpus(put(tmp_path, "no.txt", ""))


def test_text_as_it_lies_has_splits_by_name_or_by_folder(tmp_path: Path) -> None:
    for name in ("a/train/x.txt", "a/valid/y.txt", "a/test/z.txt", "b/lib/test/x.txt", "b/lib.dev.txt"):
        put(tmp_path, name, name)
    first, second = open_corpus(tmp_path / "a"), open_corpus(tmp_path / "b")
    assert [list(first.texts(split)) for split in ("train", "valid")] == [
        [("a/train/x.txt", "train")],
        [("a/valid/y.txt", "valid")],
    ]
    assert [text for text, _ in second.texts("train")] == ["b/lib/test/x.txt"]


def test_text_read_otherwise_is_another_corpus(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", "one\n\ntwo\nthree\n")
    told = {open_corpus(path, documents=how).sha256 for how in ("line", "file", "blank_line", None)}
    assert len(told) == 3
