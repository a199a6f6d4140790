"""Preparing a corpus: every document is accounted for, twins stay on one side, a kill costs one part."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from common import put
from penjing.cli import app
from penjing.corpus.corpus import Corpus, open_corpus
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs import corpus as job
from penjing.jobs.corpus import prepare

VOCABULARY = (
    "harbour boat morning house water town people street market bread garden winter summer light stone river "
    "bridge letter music window table friend teacher doctor paper story road field horse cloud night voice "
    "hand"
)
WORDS = VOCABULARY.split()


def prose(seed: int, n: int = 60) -> str:
    rng = random.Random(seed)
    small = ["the", "of", "and", "to", "in", "that", "with", "have"]
    return " ".join(
        rng.choice(small if i % 3 == 0 else WORDS) + ("." if i % 11 == 10 else "") for i in range(n)
    )


def chinese(seed: int, n: int = 90) -> str:
    rng = random.Random(seed)
    signs = [chr(0x4E00 + i) for i in range(300, 1500)]
    return "".join(rng.choice("的了是在和有不") if i % 5 == 0 else rng.choice(signs) for i in range(n)) + "。"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two sources of 60 good documents, twins of some, and one of what goes wrong."""
    english = [prose(i) for i in range(60)]
    near = english[3].replace("the", "a", 1) + " Goodbye."
    put(tmp_path, "raw/en/a.txt", "\n\n".join([*english, "Too short.", english[5].upper(), near]))
    han = [{"text": chinese(i)} for i in range(60)] + [
        {"text": chinese(7)},
        {"text": "# " * 60 + "的 了 " * 12},
    ]
    put(tmp_path, "raw/zh/a.jsonl", "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in han))
    put(tmp_path, "raw/odd/empty.txt", "")
    put(tmp_path, "raw/odd/junk.txt", bytes(range(256)) * 9)
    put(tmp_path, "raw/odd/lines.jsonl", '{"text": "cut of\n' + json.dumps({"text": prose(900)}))
    return tmp_path / "raw"


def made(raw: Path, name: str = "corpus", **settings: Any) -> Corpus:
    settings = {"raw": str(raw), "out": str(raw.parent / name), "processes": 1, "part_mib": 0.004, **settings}
    return prepare(**settings)


def dropped(corpus: Corpus) -> dict[str, int]:
    return {reason: one["documents"] for reason, one in corpus.manifest["dropped"].items()}


def test_every_document_stays_or_is_counted_under_a_reason(raw: Path) -> None:
    corpus = made(raw, part_mib=1)
    assert dropped(corpus) == {
        "broken_line": 1,
        "empty_file": 1,
        "exact_twin": 2,
        "few_letters": 1,
        "near_twin": 1,
        "too_short": 1,
        "unreadable_file": 1,
    }
    for source, one in corpus.manifest["sources"].items():
        kept = sum(one[split]["documents"] for split in ("train", "valid"))
        gone = sum(reason["sources"].get(source, 0) for reason in corpus.manifest["dropped"].values())
        assert one["read"]["documents"] == kept + gone, source
    told = sorted(one.split(":")[0] for one in corpus.manifest["troubles"])
    assert told == ["odd/empty.txt", "odd/junk.txt", "odd/lines.jsonl"]
    sample = json.loads((corpus.folder / "dropped" / "too_short.jsonl").read_text(encoding="utf-8"))
    assert sample == {"id": "en/en/a.txt:121", "source": "en", "text": "Too short."}


def test_the_folder_is_read_by_split_and_source(raw: Path) -> None:
    corpus = made(raw, valid_share=0.1)
    assert corpus.sources == ("en", "odd", "zh")
    assert len(list(corpus.texts("valid"))) == 12
    assert len(list(corpus.texts("train", source="zh"))) == 54
    assert {source for _, source in corpus.texts()} == {"en", "odd", "zh"}
    assert sum(corpus.weights.values()) == pytest.approx(1)
    together = {text for text, _ in corpus.texts("train")} | {text for text, _ in corpus.texts("valid")}
    assert {prose(i) for i in range(60)} <= together
    with pytest.raises(SpecError, match=r"no source `zhh`\. Did you mean `zh`"):
        corpus.texts(source="zhh")
    with pytest.raises(SpecError, match="`test` was asked for"):
        corpus.texts("test")


@pytest.mark.slow
def test_parts_and_processes_change_nothing(raw: Path) -> None:
    one = made(raw, "one", part_mib=100)
    for name, settings in {"parts": {}, "processes": {"processes": 2, "part_mib": 0.02}}.items():
        other = made(raw, name, **settings)
        for split in ("train", "valid"):
            assert sorted(one.texts(split)) == sorted(other.texts(split))
        assert dropped(one) == dropped(other)
    assert made(raw, "again", part_mib=100).sha256 == one.sha256


def test_of_a_group_of_near_twins_one_stays(raw: Path) -> None:
    rng = random.Random(0)
    lines = []
    for i in range(40):
        words = prose(2000 + i, 80).split()
        for _ in range(3):
            words[rng.randrange(80)] = "other"
            lines.append(f"{i} " + " ".join(words))
    put(raw.parent, "twins/a.txt", "\n\n".join(lines))
    corpus = made(
        raw.parent / "twins", "twin", valid_share=0.3, twins={"near": 0.6, "ngram": 2}, quality=None
    )
    assert sum(dropped(corpus).values()) == 80


def test_exact_twins_that_stay_are_on_one_side(raw: Path) -> None:
    put(raw.parent, "same/a.txt", "\n\n".join(f"{prose(i % 10)}" for i in range(40)))
    corpus = made(raw.parent / "same", "same-out", valid_share=0.3, twins={"near": None, "exact": False})
    sides = [{text for text, _ in corpus.texts(split)} for split in ("train", "valid")]
    assert len(sides[1]) == 3
    assert not sides[0] & sides[1]


def test_lines_that_many_documents_share_are_taken_out(raw: Path) -> None:
    footer = "This footer stands below every page of ours"
    put(raw.parent, "pages/a.txt", "\n\n".join(f"{prose(i)}\n{footer}" for i in range(20)))
    corpus = made(raw.parent / "pages", "pages-out", twins={"lines": 5})
    found = [text for split in ("train", "valid") for text, _ in corpus.texts(split)]
    assert sorted(found) == sorted(prose(i) for i in range(20))


def test_test_sets_personal_data_and_other_languages_are_kept_out(raw: Path) -> None:
    put(raw.parent, "test.csv", f'text,label\n"{prose(11)}",a\nshort,b\n')
    put(raw, "en/mail.txt", prose(500) + " Write to someone@example.com for more.")
    keep = {"against": [str(raw.parent / "test.csv")], "pii": "mask", "language": {"keep": ["en"]}}
    corpus = made(raw, **keep)
    assert dropped(corpus)["contaminated"] == 1
    assert corpus.manifest["dropped"]["language"]["sources"] == {
        "en": 1,
        "zh": 62,
    }  # `Too short.` is no language
    assert corpus.manifest["masked"] == {"email": 1}
    texts = [text for text, _ in corpus.texts()] + [text for text, _ in corpus.texts("valid")]
    assert any("Write to <email> for more." in text for text in texts)
    assert prose(11) not in texts


def test_a_program_is_judged_as_code_however_many_its_comments_are(tmp_path: Path) -> None:
    lines = "".join(f"# {prose(7, 9)}\nx{i} = {i}\n" for i in range(20))
    put(tmp_path, "raw/src/a.py", lines)
    assert made(tmp_path / "raw").manifest["languages"] == {"code": 1}


@pytest.mark.slow
def test_weights_are_given_or_grow_by_the_exponent(raw: Path) -> None:
    flat = made(raw, "flat", exponent=0)
    assert list(flat.weights.values()) == pytest.approx([1 / 3] * 3)
    given = made(raw, "given", weights={"zh": 3, "en": 1, "odd": 1})
    assert given.weights == {"en": 0.2, "odd": 0.2, "zh": 0.6}
    with pytest.raises(SpecError, match=r"`weights\.zhh` names no source\. Did you mean `zh`"):
        made(raw, "wrong", weights={"zhh": 1})


def test_weights_leave_no_source_out(raw: Path) -> None:
    with pytest.raises(SpecError, match=r"`weights` must give every source a share; it leaves out odd"):
        made(raw, weights={"zh": 3, "en": 1})
    with pytest.raises(SpecError, match=r"`weights\.en`: .* greater than 0; it is -1"):
        made(raw, weights={"zh": 3, "en": -1, "odd": 1})


def test_what_cannot_be_read_is_refused_when_that_is_asked_for(raw: Path) -> None:
    with pytest.raises(
        DataError, match=r"empty\.txt: empty file, it has 0 bytes\. Mend it .* `--broken skip`"
    ):
        made(raw, broken="refuse")


def killed(*args: Any, **named: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_finished_corpus_is_not_made_again_nor_mixed_with_another(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    first = made(raw)
    assert made(raw, tell=lambda news: told.append(news.text)).sha256 == first.sha256
    assert told == [f"{first.folder} stands already, made of the same files with the same settings"]
    with pytest.raises(
        SpecError, match=r"holds a finished corpus, of other files or settings\. .* `--fresh`"
    ):
        made(raw, seed=1)
    assert made(raw, seed=1, fresh=True).manifest["settings"]["seed"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(job.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            made(raw, seed=2, fresh=True)
    with pytest.raises(SpecError, match="holds the beginnings of one"):  # and not "stands already"
        made(raw, seed=1)
    assert made(raw, seed=1, fresh=True).manifest["settings"]["seed"] == 1
    put(raw.parent, "mine/notes.txt", "x")
    with pytest.raises(SpecError, match=r"other things are there: notes\.txt"):
        made(raw, "mine")


def test_a_corpus_begun_with_other_hashes_is_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(raw)
    monkeypatch.setattr("penjing.jobs.corpus.hash_of", lambda word: 0)
    with pytest.raises(SpecError, match="--fresh"):
        made(raw)


def test_a_dry_run_says_what_would_be_read_and_writes_nothing(raw: Path) -> None:
    out = raw.parent / "made"
    words = ["corpus", "prepare", str(raw), "-o", str(out), "--dry-run", "--set", "twins.near=0.7"]
    said = CliRunner().invoke(app, [*words, "--json"])
    found = json.loads(said.output)
    size = sum(path.stat().st_size for path in (raw / "odd").iterdir())
    assert found["sources"]["odd"] == {"files": 3, "bytes": size, "kinds": {"text": 2, "lines": 1}}
    assert found["settings"]["raw"] == [str(raw)]
    assert found["settings"]["twins"]["near"] == 0.7
    assert "zh      1      " in CliRunner().invoke(app, words).output
    assert not out.exists()


def test_what_is_no_corpus_is_not_thrown_away(raw: Path) -> None:
    put(raw.parent, "mine/train/photo.jpg", "x")
    with pytest.raises(SpecError, match=r"other things are there: train"):
        made(raw, "mine", fresh=True)
    assert (raw.parent / "mine" / "train" / "photo.jpg").is_file()


def test_a_corpus_within_its_raw_text_does_not_read_itself(raw: Path) -> None:
    first = made(raw, "raw/corpus")
    told: list[str] = []
    assert made(raw, "raw/corpus", tell=lambda news: told.append(news.text)).sha256 == first.sha256
    assert "stands already" in told[0]


def test_the_settings_that_were_written_make_the_same_corpus(raw: Path) -> None:
    first = made(raw)
    again = prepare(first.folder / "corpus.yaml", out=str(raw.parent / "again"), processes=1)
    assert again.sha256 == first.sha256


def test_a_language_that_nobody_tells_is_refused(raw: Path) -> None:
    with pytest.raises(SpecError, match=r"`language\.keep` names `english`.*It tells en, de"):
        made(raw, language={"keep": ["english"]})


def test_when_nothing_could_be_read_the_first_trouble_is_told(tmp_path: Path) -> None:
    put(tmp_path, "raw/a.csv", "name,age\nBo,3\n")
    with pytest.raises(
        DataError, match=r"1 as `unreadable_file`\. .* \(a\.csv: .* a column `text` was wanted"
    ):
        made(tmp_path / "raw")


def test_when_everything_goes_it_says_so(raw: Path) -> None:
    with pytest.raises(DataError, match=r"every document was dropped: \d+ as `language`"):
        made(raw, language={"keep": ["ko"]})


def test_a_document_that_is_too_long_is_told_how_it_can_be_kept(tmp_path: Path) -> None:
    long = put(tmp_path, "raw/long.txt", prose(1, 90))
    with pytest.raises(DataError, match=r"1 as `too_long`.*`--set longest=1000` for `too_long`"):
        made(tmp_path / "raw", longest=100)
    long.write_text("word " * 2_000_000)
    with pytest.raises(DataError, match=r"long\.txt:1 was to be a document.*at most 2,000,000 characters"):
        list(open_corpus(long).texts())


def test_settings_are_checked_before_any_work(raw: Path) -> None:
    with pytest.raises(SpecError, match=r"`near` is not a key of a corpus\. Did you mean `twins\.near`"):
        made(raw, near=0.5)
    with pytest.raises(SpecError, match=r"`twins\.near`: .* it is 7"):
        made(raw, sets=["twins.near=7"])
    with pytest.raises(SpecError, match=r"`--on` takes ray://HOST:PORT .* it is `http://x`"):
        made(raw, on="http://x")


def test_without_ray_the_line_that_installs_it_is_told(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        NotSupported, match=r"needs Ray; it is not installed.*pip install 'penjing\[cluster\]'"
    ):
        made(raw, on="ray")


def test_text_as_it_lies_is_a_corpus_too(raw: Path) -> None:
    corpus = open_corpus(raw / "en")
    assert len(list(corpus.texts())) == 63
    assert corpus.manifest == {}
    put(raw.parent, "lie/a.train.txt", "one\n\ntwo")
    put(raw.parent, "lie/a.valid.txt", "three")
    put(raw.parent, "lie/a.test.txt", "four")
    lie = open_corpus(raw.parent / "lie")
    assert [list(lie.texts(split)) for split in ("train", "valid")] == [
        [("one", "a"), ("two", "a")],
        [("three", "a")],
    ]
    with pytest.raises(DataError, match=r"empty\.txt was to be a document; it has 0 bytes"):
        list(open_corpus(raw / "odd").texts())


def test_the_command_prepares_and_shows(raw: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "c")
    done = CliRunner().invoke(
        app, ["corpus", "prepare", str(raw), "-o", out, "--processes", "1", "--set", "valid_share=0.1"]
    )
    assert done.exit_code == 0, done.output
    assert "near_twin" in done.output
    shown = CliRunner().invoke(app, ["corpus", "show", out, "--json"])
    assert json.loads(shown.output)["sources"]["en"]["valid"]["documents"] == 6
    assert (
        CliRunner().invoke(app, ["corpus", "show", str(raw / "en"), "--texts", "1"]).output.count("[a]") == 1
    )
    with_text = CliRunner().invoke(app, ["corpus", "show", str(raw / "en"), "--texts", "1", "--json"])
    assert [one["source"] for one in json.loads(with_text.stdout)["texts"]] == ["a"]
    refused = CliRunner().invoke(app, ["corpus", "prepare", str(tmp_path / "nowhere"), "-o", out])
    assert refused.exit_code == 1
    page = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert "documents stay" in page
    assert "<script" not in page


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.slow
def test_the_page_has_the_same_words_in_both_languages(raw: Path, language: str) -> None:
    from penjing.jobs.corpus_words import WORDS as PAGE_WORDS

    assert PAGE_WORDS["en"].keys() == PAGE_WORDS["zh"].keys()
    corpus = made(raw, report=language)
    page = (corpus.folder / "report.html").read_text(encoding="utf-8")
    assert PAGE_WORDS[language]["richness"] in page


@pytest.mark.slow
def test_a_killed_preparation_goes_on_and_ends_the_same(raw: Path) -> None:
    whole = made(raw, "whole")
    out = raw.parent / "killed"
    words = ["corpus", "prepare", str(raw), "-o", str(out), "--processes", "1", "--set", "part_mib=0.004"]
    rng = random.Random(3)
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-m", "penjing", *words], start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        n_before = len(list(out.glob(".work/*/*.json")))
        limit = time.monotonic() + 60
        while len(list(out.glob(".work/*/*.json"))) < n_before + rng.randint(1, 4) and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.005)
        kills += process.poll() is None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (out / "manifest.json").is_file():
            break
    assert kills >= 2
    ended = prepare(raw=str(raw), out=str(out), processes=1, part_mib=0.004)
    assert ended.sha256 == whole.sha256
    assert dropped(ended) == dropped(whole)
    assert not (out / ".work").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_makes_the_same_corpus(raw: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra `cluster`)")
    assert made(raw, "ray", on="ray").sha256 == made(raw, "here").sha256
