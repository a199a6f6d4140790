"""`penjing tokenizer …` from files to folders, and what it says when something is in the way."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from conftest import CHINESE, tickets
from penjing.cli import app


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder: tickets as text, Chinese as JSON lines."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "en.txt").write_text("\n".join(text for text, _ in tickets(60)))
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in CHINESE * 4]
    (folder / "zh.jsonl").write_text("\n".join(lines))
    return folder


def test_train_writes_what_transformers_reads_and_prints_its_card(corpus: Path, tmp_path: Path) -> None:
    words = ["tokenizer", "train", str(corpus), "-o", str(tmp_path / "tok"), "--vocab", "400", "--json"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    card = json.loads(said.stdout)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert (card["ids"], card["kind"], card["family"]) == (len(tokenizer), "bpe", "gpt")
    assert tokenizer.decode(tokenizer("我的 parcel")["input_ids"]) == "我的 parcel"
    assert [Path(file).name for file in card["corpus"]["files"]] == ["en.txt", "zh.jsonl"]
    again = CliRunner().invoke(app, words)  # an older tokenizer is replaced
    assert json.loads(again.stdout)["ids"] == card["ids"]


def test_train_destroys_nothing_that_is_not_a_tokenizer(corpus: Path) -> None:
    said = CliRunner().invoke(app, ["tokenizer", "train", str(corpus), "-o", str(corpus)])
    assert said.exit_code == 1
    assert "something else is there" in said.output
    assert (corpus / "en.txt").is_file()


def test_an_unknown_kind_is_one_clear_line(corpus: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(
        app, ["tokenizer", "train", str(corpus), "-o", str(tmp_path / "t"), "--kind", "sp"]
    )
    assert said.exit_code == 1
    assert "`kind` must be one of bpe, wordpiece, unigram, char; it is `sp`" in said.output
    assert not (tmp_path / "t").exists()
