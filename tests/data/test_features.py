"""What numbers stand for, from the files that Hugging Face sets bring."""

import json
from pathlib import Path

import pytest

from common import entities_of, put
from penjing.data.tagged import read
from penjing.errors import DataError

TEXT = "EU rejects Peter B"
WANTED = [("EU", "ORG"), ("Peter B", "PER")]
NAMES = ["O", "B-ORG", "B-PER", "I-PER"]
LABEL = {"names": NAMES, "_type": "ClassLabel"}
CARD = [{"name": "ner_tags", "sequence": {"class_label": {"names": dict(zip("0123", NAMES, strict=True))}}}]


@pytest.mark.parametrize(
    ("file", "about"),
    [
        ("dataset_info.json", {"features": {"ner_tags": {"feature": LABEL, "_type": "Sequence"}}}),
        ("dataset_infos.json", {"en": {"features": {"ner_tags": [LABEL]}}}),
        ("README.md", {"dataset_info": {"features": CARD}}),
    ],
)
def test_numbered_tags_have_the_names_of_the_files_beside_them(file: str, about: str, tmp_path: Path) -> None:
    body = json.dumps(about)  # which is YAML, too
    put(tmp_path, file, f"---\n{body}\n---\n# Set\n" if file == "README.md" else body)
    (tmp_path / "data").mkdir()
    row = {"tokens": TEXT.split(), "ner_tags": [1, 0, 2, 3]}
    rows = read(put(tmp_path / "data", "a.jsonl", f"{json.dumps(row)}\n" * 2))
    assert entities_of(rows) == WANTED
    assert f"numbers in column `ner_tags` have their names from {tmp_path / file}" in rows.notes[0]


def test_configurations_that_number_otherwise_give_no_names(tmp_path: Path) -> None:
    label = {"names": ["O", "B-ORG"], "_type": "ClassLabel"}
    odd = {
        "one": {"features": {"tags": label}},
        "two": {"features": {"tags": label | {"names": ["B-X", "O"]}}},
    }
    put(tmp_path, "dataset_infos.json", json.dumps(odd))
    with pytest.raises(DataError, match="tags by name were wanted"):
        read(put(tmp_path, "a.jsonl", '{"tokens": ["EU"], "tags": [1]}\n' * 2))
