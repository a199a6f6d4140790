"""`penjing tokenizer …` from files to folders, and what it says when something is in the way."""

import json
import random
from collections.abc import Callable
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


def test_report_sets_tokenizers_side_by_side(corpus: Path, tmp_path: Path, tiny: Callable[..., Path]) -> None:
    runner, names = CliRunner(), [str(tmp_path / "char"), str(tiny("bert"))]
    made = runner.invoke(app, ["tokenizer", "train", str(corpus), "-o", names[0], "--kind", "char"])
    assert made.exit_code == 0, made.output
    words = ["tokenizer", "report", *names, "--data", str(corpus)]
    found = json.loads(runner.invoke(app, [*words, "--json"]).stdout)
    every = {one["tokenizer"]: one for one in found if one["by"] == "all"}
    assert every[names[0]]["tokens_a_character"] == every[names[0]]["exact_share"] == 1
    assert every[names[1]]["tokens_a_word"] < every[names[0]]["tokens_a_word"]
    assert {one["of"] for one in found if one["by"] == "language"} == {"latin", "zh"}
    assert len([one for one in found if one["by"] == "source"]) == 4
    assert "tokens/word" in runner.invoke(app, words).output


def test_report_of_what_is_no_tokenizer_is_refused(corpus: Path) -> None:
    said = CliRunner().invoke(app, ["tokenizer", "report", str(corpus), "--data", str(corpus)])
    assert said.exit_code == 1
    assert "the tokenizer of the base in" in said.output


def test_extend_writes_a_base_with_the_domains_words(tmp_path: Path, tiny: Callable[..., Path]) -> None:
    (tmp_path / "domain.txt").write_text("tabletinol\n" * 6 + "my card was charged\n")
    words = ["tokenizer", "extend", str(tiny("bert")), "--data", str(tmp_path / "domain.txt"), "--words", "1"]
    said = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "new")])
    assert said.exit_code == 0, said.output
    assert "1 word added" in said.output
    assert "of them read otherwise    0" in said.output
    assert "tabletinol" in AutoTokenizer.from_pretrained(tmp_path / "new").tokenize("order tabletinol")


def test_of_a_prepared_corpus_the_training_documents_are_read(tmp_path: Path) -> None:
    from penjing.corpus.corpus import open_corpus
    from penjing.jobs.corpus import prepare
    from penjing.jobs.vocabulary import train_tokenizer

    draw, small = random.Random(0), ["the", "of", "and", "to", "in", "that", "with", "have"]
    long = ["harbour", "morning", "water", "people", "market", "garden", "winter", "river", "letter"]
    documents = [" ".join(draw.choice((small, long)[i % 2]) for i in range(60)) + "." for _ in range(40)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("\n\n".join(documents))
    corpus = prepare(raw=str(tmp_path / "raw"), out=str(tmp_path / "made"), processes=1)
    kept, held = (
        [text for text, _ in open_corpus(corpus.folder).texts(split)] for split in ("train", "valid")
    )
    card = train_tokenizer(corpus.folder, tmp_path / "tok", kind="char")
    assert (card["corpus"]["texts"], card["corpus"]["characters"]) == (len(kept), sum(map(len, kept)))
    assert len(kept) + len(held) == len(documents)
