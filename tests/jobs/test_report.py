"""The report comes out of every run folder: whole, half written, dead, Chinese, large and hostile."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from penjing.errors import DataError, SpecError
from penjing.jobs.report import report
from penjing.jobs.words import LANGUAGES
from penjing.measures import single_label

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}\u202e\x07"
VOID = {"meta"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def scored(n_classes: int, n_rows: int, skill: float, labels: list[str]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, n_classes, n_rows)
    logits = rng.normal(size=(n_rows, n_classes)) + skill * np.eye(n_classes)[targets]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = single_label(p, targets, labels, seed=0)
    return {"values": found.values, "intervals": found.intervals, "tables": found.tables}


def made_run(
    folder: Path,
    *,
    n_classes: int = 4,
    language: str = "en",
    text: str = "my card has not come",
    n_steps: int = 120,
) -> Path:
    """A run folder as `penjing tune` leaves it, whole."""
    labels = [f"intent {i}" if language == "en" else f"意图{i}" for i in range(n_classes)]
    quoted = {"where": "test.csv, line 8", "text": text}
    result = {
        "state": "done", "task": "classify", "labels": labels, "splits_scored": "test",
        "best_step": 100, "best_score": 0.93, "best_name": "accuracy",
        "before": {k: v for k, v in scored(n_classes, 400, 0.3, labels).items() if k != "tables"},
        "after": scored(n_classes, 400, 5.0, labels),
        "baseline": {**scored(n_classes, 400, 3.5, labels), "seconds": 4.2},
        "difference": {"name": "accuracy", "mean": 0.043, "interval": [0.031, 0.055], "versus": "baseline"},
        "worst": [{**quoted, "given": labels[0], "predicted": labels[1], "confidence": 0.98}],
        "cost": {
            "seconds": 734.0, "tokens": 512_000, "tokens_per_s": 2816.0, "peak_mib": 1432.0,
            "peak_share": 0.43, "forecast_s": 690.0, "forecast_mib": 1500.0, "steps": n_steps,
            "stopped": "patience",
        },
        "notes": ["3 rows were cut at 128 tokens."],
    }  # fmt: skip
    data = {
        "rows": {"train": 9003, "valid": 1000, "test": 400}, "duplicates": 14,
        "labels": {label: 200 - i for i, label in enumerate(labels)},
        "lengths": {"edges": [0, 8, 16, 24, 32], "counts": [10, 300, 120, 5], "p50": 12, "p99": 30},
        "leaks": [{"train": "train.csv, line 3", "test": "test.csv, line 9", "text": text}],
        "suspects": [{**quoted, "given": labels[1], "likely": labels[0], "probability": 0.97}],
        "something new": {"depth": {"a": 1}, "width": {"a": 2, "b": 3}},
        "notes": ["The column `text` was taken as the text."],
    }  # fmt: skip
    lineage = {
        "command": ["penjing", "tune", "--train", "my tickets.csv"],
        "parent": None,
        "base": {"name": "minilm", "sha256": "ab" * 32, "parameters": 22_713_216, "trainable": 22_713_216},
        "data": {s: {"source": f"{s}.csv", "rows": 400, "sha256": "cd" * 32} for s in ("train", "test")},
        "versions": {"python": "3.11.2", "torch": "2.13.0", "penjing": "0.1.0"},
        "seed": 0, "device": "cpu", "precision": "bf16", "threads": 2, "started": "2025-11-22T04:00:00Z",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    spec = f"base: minilm\ntask: classify\nmethod: {{lora: {{rank: 8}}}}\nlanguage: {language}\n"
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")
    for name, value in (("result", result), ("data", data), ("lineage", lineage)):
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    rng = np.random.default_rng(1)
    with (folder / "log.jsonl").open("w", encoding="utf-8") as stream:
        for step in range(1, n_steps + 1):
            loss = float(4 * np.exp(-step / 30) + 0.1 + 0.05 * rng.random())
            line = {
                "step": step, "loss": loss, "parts": {"task": loss * 0.9, "consistency": loss * 0.1},
                "lr": 1e-4 / step, "grad_norm": 1.0, "n_targets": 32, "n_tokens": 500, "notes": [],
            }  # fmt: skip
            stream.write(json.dumps(line) + "\n")
    with (folder / "scores.jsonl").open("w", encoding="utf-8") as stream:
        for step in range(n_steps // 6, n_steps + 1, n_steps // 6):
            value = 0.93 - 0.5 / step
            line = {
                "step": step, "split": "valid", "values": {"accuracy": value, "nll": 0.3 + 5 / step},
                "intervals": {"accuracy": [value - 0.02, value + 0.02]},
            }  # fmt: skip
            stream.write(json.dumps(line) + "\n")
    return folder


def changed(folder: Path, **changes: Any) -> Path:
    """The run with parts of its result replaced; None leaves a part out."""
    path = folder / "result.json"
    result = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({k: v for k, v in result.items() if v is not None}), encoding="utf-8")
    return folder


def read(path: Path) -> tuple[str, Page]:
    """The page and its parse, after what must hold for every report."""
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        tree = ElementTree.fromstring(drawing)
        assert tree.find("title") is not None
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "link", "img", "base", "form"), tag
        assert not {"src", "href", "srcset", "data", "action", "style"} & set(attributes), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert not [word for word in ("http:", "https:", "url(", "@import") if word in html]
    assert len(html.encode()) < 2 * 2**20
    return html.replace("\u00a0", " "), page


def headline(page: str) -> str:
    return re.sub(r"\s+", " ", page.split("<h1>")[1].split("</h1>")[0])


def test_a_finished_run_is_told_in_one_sentence_with_its_interval_and_its_baseline(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    after = json.loads((run / "result.json").read_text(encoding="utf-8"))["after"]
    low, high = after["intervals"]["accuracy"]
    path = report(run)
    html, page = read(path)
    assert path == run / "report.html"
    accuracy, low, high = (f"{100 * v:.1f}" for v in (after["values"]["accuracy"], low, high))
    assert f"{accuracy} % [{low}, {high}] of the test rows right" in headline(html)
    assert "the large model is worth 4.3 points [3.1, 5.5]." in headline(html)
    said = " ".join(page.texts).replace("\u00a0", " ")
    words = "12 min|1.4 GiB|lora (rank 8)|22.7 M|my tickets.csv|depth|patience|3 rows were cut"
    for word in words.split("|"):
        assert word in said, word
    assert html.count("<figure") >= 8
    assert re.search(r"penjing tune \S+spec.yaml", said)


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    assert report(run).read_bytes() == report(run).read_bytes()


@pytest.mark.parametrize(
    ("mean", "interval", "told", "never"),
    [
        (-0.02, [-0.03, -0.01], "the baseline is 2.0 points [1.0, 3.0] better", "is worth"),
        (0.004, [-0.003, 0.011], "the difference of +0.4 points [−0.3, +1.1] may be chance", "is worth"),
        (-0.004, [-0.011, 0.003], "the difference of −0.4 points [−1.1, +0.3] may be chance", "is worth"),
        (0.004, [0.0, 0.008], "may be chance", "is worth"),
    ],
)
def test_a_gain_is_claimed_only_where_the_whole_interval_is_above_zero(
    tmp_path: Path, mean: float, interval: list[float], told: str, never: str
) -> None:
    run = made_run(tmp_path / "run")
    html, _ = read(report(changed(run, difference={"name": "accuracy", "mean": mean, "interval": interval})))
    assert told in headline(html)
    assert never not in headline(html)


def test_without_a_tested_difference_nothing_is_claimed(tmp_path: Path) -> None:
    html, _ = read(report(changed(made_run(tmp_path / "run"), difference=None)))
    assert "worth" not in headline(html)
    assert "not tested row by row" in html


def test_without_a_baseline_the_sentence_ends_with_the_score(tmp_path: Path) -> None:
    html, _ = read(report(changed(made_run(tmp_path / "run"), difference=None, baseline=None, before=None)))
    assert headline(html).endswith("rows right.")
    assert "baseline" not in headline(html)


def test_scores_on_validation_rows_are_said_to_flatter(tmp_path: Path) -> None:
    html, _ = read(report(changed(made_run(tmp_path / "run"), splits_scored="valid")))
    assert "of the validation rows right" in headline(html)
    assert "also chose the best step" in html


def test_a_multi_label_run_is_told_by_its_f1(tmp_path: Path) -> None:
    part = {
        "values": {"micro_f1": 0.812, "macro_f1": 0.7, "subset_accuracy": 0.6, "ece": 0.03},
        "intervals": {"micro_f1": [0.8, 0.82]},
    }
    cheap = {"values": {"micro_f1": 0.75}, "seconds": 2.0}
    difference = {"name": "micro_f1", "mean": 0.062, "interval": [0.05, 0.07], "versus": "baseline"}
    run = changed(
        made_run(tmp_path / "run"),
        after=part,
        baseline=cheap,
        difference=difference,
        best_name="micro_f1",
        before=None,
    )
    assert "reaches 81.2 % [80.0, 82.0] micro F1 on the test rows; the cheap baseline 75.0 %" in headline(
        read(report(run))[0]
    )


def test_a_run_still_going_says_how_far_it_is_and_how_to_go_on(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    (run / "result.json").unlink()
    with (run / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 121, "lo')  # cut by a kill
    html, _ = read(report(run))
    assert headline(html).startswith("This run has not finished: step 120, loss ")
    assert "penjing tune --resume" in html
    assert "log.jsonl could not be read as a whole (1 places)" in html
    assert "at step 120" in html  # best validation


def test_a_dead_run_shows_its_error(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    (run / "result.json").unlink()
    (run / "error.txt").write_text(f"TrainingFailed: the loss is nan at step 121 {HOSTILE}", encoding="utf-8")
    html, page = read(report(run))
    assert headline(html) == "This run died after step 120."
    assert "the loss is nan at step 121" in " ".join(page.texts)


@pytest.mark.parametrize(
    "kept", ["spec.yaml", "lineage.json", "data.json", "log.jsonl", "scores.jsonl", "result.json"]
)
def test_any_single_file_is_enough(tmp_path: Path, kept: str) -> None:
    run = made_run(tmp_path / "run")
    for path in run.iterdir():
        if path.name != kept:
            path.unlink()
    read(report(run))


@pytest.mark.parametrize(
    "value",
    ["", "[1, 2]", "{", "\ud7ff\x00", '{"after": [], "cost": 3, "worst": {}, "notes": 5, "before": null}'],
)
def test_damaged_files_do_not_stop_the_report(tmp_path: Path, value: str) -> None:
    run = made_run(tmp_path / "run")
    for path in run.iterdir():
        path.write_text(value, encoding="utf-8")
    read(report(run))


def test_losses_that_are_not_numbers_do_not_stop_the_report(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    with (run / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(
            '{"step": 121, "loss": NaN, "lr": Infinity, "notes": ["skipped: the loss is not a number"]}\n'
        )
    html, _ = read(report(changed(run, after={"values": {"accuracy": float("nan")}})))
    assert "skipped: the loss is not a number" in html


def test_a_chinese_run_is_told_in_chinese(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", language="zh", text="我的卡还没有到")
    html, _ = read(report(run))
    assert '<html lang="zh-Hans">' in html
    assert re.match("调优后的模型答对了.*大模型值 4.3 个百分点", headline(html))
    assert "我的卡还没有到" in html
    assert "意图0" in html
    assert "The tuned model" in read(report(run, language="en"))[0]


def test_150_classes_stay_readable_and_small(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", n_classes=150)
    html, _ = read(report(run))
    assert html.count('class="cell') == 25 * 25
    assert "the 25 with the most errors" in html
    assert "All 150 classes" in html
    assert len(html.encode()) < 400_000


def test_text_from_rows_can_do_nothing_but_be_read(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", text=HOSTILE)
    rows = scored(3, 60, 2.0, [HOSTILE, f"{HOSTILE} 2", "c"])
    data = json.loads((run / "data.json").read_text(encoding="utf-8"))
    data["labels"] = {HOSTILE: 5}
    data[HOSTILE] = [HOSTILE]
    (run / "data.json").write_text(json.dumps(data), encoding="utf-8")
    html, page = read(report(changed(run, after=rows, notes=[HOSTILE], labels=[HOSTILE])))
    assert not [
        word for word in ("<script", "<img", "49") if word in html.split("<main>")[1].split("<svg")[0]
    ]
    assert "<script" not in html
    assert "<img" not in html
    assert "<script>alert(1)</script>" in " ".join(page.texts)
    assert "{{ 7*7 }}" in html


def test_the_page_forbids_scripts_and_admits_its_own_style_by_hash(tmp_path: Path) -> None:
    import base64
    import hashlib

    html, page = read(report(made_run(tmp_path / "run")))
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_lone_surrogates_are_written_as_question_marks(tmp_path: Path) -> None:
    run = changed(made_run(tmp_path / "run"), notes=["broken \ud800 text"])
    assert "broken ? text" in report(run).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_refused_with_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"spec\.yaml.*holds none of them"):
        report(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        report(tmp_path / "nowhere")


def test_an_unknown_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="en, zh"):
        report(made_run(tmp_path / "run"), language="fr")


def test_both_languages_have_the_same_words_and_the_same_blanks() -> None:
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]
    blanks = lambda text: {name for _, name, _, _ in Formatter().parse(text) if name}  # noqa: E731
    assert english.keys() == chinese.keys()
    for key in english:
        assert blanks(english[key]) == blanks(chinese[key]), key


def with_sets(folder: Path, *, n_test: int = 400, leaked: int = 0) -> Path:
    """The run with data.json as `data.clean.summary` writes it."""
    row = {"where": "train.csv, line 3", "text": "where is my card", "label": ["intent 0"]}
    about = {
        "rows": 9003,
        "words": {"p50": 8, "p95": 20, "max": 61},
        "labels": {"n": 2, "counts": {"intent 0": 6000, "intent 1": 3003}, "imbalance": 2.0},
        "duplicates": {"exact": 12, "near": 31, "examples": [{"rows": [row, row]}], "near_examples": []},
        "conflicts": {"texts": 1, "rows": 2, "examples": []},
    }
    leak = {"from": "train", "to": "test", "exact": leaked, "near": 0, "examples": [{"in": row, "also": row}]}
    data = {
        "rows": 9403,
        "sets": {"train": about, "test": {**about, "rows": n_test}},
        "leaks": [leak],
        "notes": [],
    }
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_rows_shared_by_train_and_test_are_told_beside_the_headline(tmp_path: Path) -> None:
    html, page = read(report(with_sets(made_run(tmp_path / "run"), leaked=7)))
    assert "7 of these rows also stand, exactly or nearly, in the training rows" in html.split("<dl")[0]
    said = " ".join(page.texts)
    for word in ("8/20/61", "6,000", "where is my card", "7 exactly, 0 nearly"):
        assert word in said, word


def test_few_scored_rows_are_said_to_be_few(tmp_path: Path) -> None:
    few, _ = read(report(with_sets(made_run(tmp_path / "few"), n_test=40)))
    many, _ = read(report(with_sets(made_run(tmp_path / "many"))))
    assert "Scored rows: 40, too few" in few
    assert "were scored, too few" not in many
    assert "No row of one set was found in another." in many
