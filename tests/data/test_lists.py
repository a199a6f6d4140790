"""Lists that a CSV holds as text."""

from pathlib import Path

import pytest

from common import entities_of, put
from penjing.data.tagged import read
from penjing.errors import DataError

TEXT = "EU rejects Peter B"
WANTED = [("EU", "ORG"), ("Peter B", "PER")]


@pytest.mark.parametrize(
    "cells",
    [
        ("tokens,ner_tags", "['EU', 'rejects', 'Peter', 'B']", "['B-ORG', 'O', 'B-PER', 'I-PER']"),
        ("text,entities", TEXT, '[[0, 2, ""ORG""], [11, 18, ""PER""]]'),
        ("sentence,tags", TEXT, "B-ORG O B-PER I-PER"),
    ],
)
def test_lists_in_the_cells_of_a_csv_are_read(cells: tuple[str, str, str], tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", f"{cells[0]}\n" + f'"{cells[1]}","{cells[2]}"\n' * 3))
    assert entities_of(rows) == WANTED


def test_tags_as_a_text_in_json_are_read(tmp_path: Path) -> None:
    row = f'{{"text": "{TEXT}", "labels": "B-ORG O B-PER I-PER", "note": null}}\n'
    none = '{"text": "so far", "labels": "O O", "note": "x"}\n'
    rows = read(put(tmp_path, "a.jsonl", row + none))
    assert (entities_of(rows), entities_of(rows, 1)) == (WANTED, [])


def test_arrays_that_numpy_printed_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "tokens,tags\n" + "['EU' 'ran'],['B-ORG' 'O']\n" * 2)
    with pytest.raises(DataError, match=r"a.csv, line 2: .*no commas between them, as numpy prints them"):
        read(path)
