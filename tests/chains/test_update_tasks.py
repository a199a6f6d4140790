"""Rounds of tasks whose answers are more than a label: what people say of answers is learned, and judged by
the task's own score."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import tickets
from penjing import load, plugin, tune
from penjing.chains import rounds
from penjing.chains.new_rows import line_of
from penjing.chains.update import _names as names_of
from penjing.chains.update import update
from penjing.data.entities import Entity, Tagged
from penjing.data.fields import given_rows
from penjing.errors import DataError
from penjing.jobs.evaluate import evaluate
from penjing.serve import registry
from penjing.serve.traffic import Traffic

OPEN = {"slower_by": 50.0, "worse_by": 1.0, "below_old_by": None, "suspects": None}
LEARN = {"steps": 40, "lr": 0.003, "evals": 1}


def lined(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def spans(n: int, word: str, label: str, start: int = 0) -> list[dict[str, Any]]:
    """Texts with one entity each."""
    texts = [f"{'please ' * (i % 3)}look at my {word} {i} now" for i in range(start, start + n)]
    return [
        {
            "text": text,
            "entities": [{"start": (at := text.index(word)), "end": at + len(word), "label": label}],
        }
        for text in texts
    ]


def lengths(n: int, times: float, start: int = 0) -> list[dict[str, Any]]:
    """Texts and a number that says how many words they have."""
    return [
        {"text": " ".join(["card"] * (i % 9 + 1) + [str(i)]), "size": times * (i % 9 + 1)}
        for i in range(start, start + n)
    ]


def live_model(folder: Path, rows: dict[str, str], **given: Any) -> dict[str, Any]:
    run = tune(train=rows["old"], device="cpu", precision="fp32", out=folder, evals=1, **given)
    registry.add(folder / "models", "desk", run.folder)
    place, store = folder / "models" / "desk", folder / "traffic.db"
    asked = {"model": str(place), "out": str(folder / "updates"), "traffic": str(store), "train": LEARN}
    return asked | {"gate": OPEN, "least_new": 20, "replay": 1, **rows}


def heard(asked: dict[str, Any], inputs: list[Any], truths: list[Any]) -> None:
    """Requests that were answered, and what people said of them."""
    with Traffic(asked["traffic"]) as traffic:
        for i, (one, truth) in enumerate(zip(inputs, truths, strict=True)):
            traffic.record(f"r{i}", one, {"confidence": 0.5}, model="desk", version=1)
            traffic.feedback(f"r{i}", truth)


@pytest.mark.slow
def test_a_tagger_learns_a_kind_of_entity_that_it_never_heard_of(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    files = {
        "old": lined(tmp_path / "old.jsonl", spans(60, "card", "thing")),
        "test": lined(tmp_path / "test.jsonl", spans(30, "card", "thing", 60)),
        "must_pass": lined(tmp_path / "must.jsonl", spans(4, "card", "thing")),
    }
    asked = live_model(tmp_path, files, base=tiny("bert"), task="tag", method="full", steps=60, lr=0.003)
    new = spans(60, "parcel", "goods")
    truths: list[Any] = [row["entities"] for row in new]
    truths[0] = [{"start": 900, "end": 905, "label": "goods"}]  # nowhere in the text
    heard(asked, [row["text"] for row in new], truths)
    done = update(asked)
    assert done.what == "promoted", done.bars
    bundle = load(registry.find(tmp_path / "models", "desk")[0].folder)
    assert bundle.labels == ["thing", "goods"]
    (found,) = bundle.predict(["look at my parcel 99 now"])
    assert [(e["text"], e["label"]) for e in found["entities"]] == [("parcel", "goods")]
    known = {"gain on new rows", "loss on old rows", "must pass", "time of an answer"}
    assert {bar.name for bar in done.bars} == known
    learned = rounds.read_lines(tmp_path / "updates" / "1", "new_train")
    tested = rounds.read_lines(tmp_path / "updates" / "1", "new_test")
    assert len(learned) + len(tested) == 59


@pytest.mark.slow
def test_numbers_are_learned_on_the_old_scale_and_judged_by_their_own_score(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    files = {
        "old": lined(tmp_path / "old.jsonl", lengths(90, 1.0)),
        "test": lined(tmp_path / "test.jsonl", lengths(30, 1.0, 200)),
    }
    asked = live_model(tmp_path, files, base=tiny("bert"), task="regress", method="full", steps=60, lr=0.003)
    new = lengths(90, 3.0, 400)  # the same texts are worth three times as much now
    heard(asked, [row["text"] for row in new], [row["size"] for row in new])
    done = update({**asked, "replay": 0, "least_replay": 0})
    bars = {bar.name: bar for bar in done.bars}
    assert (bars["gain on new rows"].passed, bars["loss on old rows"].passed) == (True, False), done.bars
    live, made = (load(tmp_path / place) for place in ("models/desk/1", "updates/1/run"))
    assert made.card["task"] == live.card["task"]
    assert live.card["task"]["regress"]["mean"]
    ours, theirs = (evaluate(model, files["test"])["values"]["r2"] for model in (made, live))
    found = float(bars["loss on old rows"].found.split()[0])
    assert found == pytest.approx(theirs - ours, abs=6e-4)


@pytest.mark.slow
def test_pairs_and_replies_go_through_the_same_round(tiny: Callable[..., Path], tmp_path: Path) -> None:
    pairs = [{"text_a": text, "text_b": text if i % 2 else "the fee", "label": "same" if i % 2 else "other"}
             for i, (text, _) in enumerate(tickets(150))]  # fmt: skip
    talks = [{"prompt": text, "completion": label} for text, label in tickets(150)]
    chat = {"chat": {"template": "alpaca"}}
    for task, rows, base, answer in (("pair", pairs, "bert", "label"), (chat, talks, "gpt2", "completion")):
        folder = tmp_path / base
        folder.mkdir()
        files = {"old": rows[:40], "test": rows[40:60], "must_pass": rows[:3]}
        written = {key: lined(folder / f"{key}.jsonl", own) for key, own in files.items()}
        asked = live_model(folder, written, base=tiny(base), task=task, method="full", steps=1)
        inputs = [[row["text_a"], row["text_b"]] if task == "pair" else row["prompt"] for row in rows[60:]]
        heard(asked, inputs, [row[answer] for row in rows[60:]])
        done = update(asked)
        (bar,) = [bar for bar in done.bars if bar.name == "gain on new rows"]
        assert bar.passed, (task, done.bars)
        assert (folder / "updates" / "1" / "run" / "best" / "card.json").is_file()
        assert update(asked).what == "waiting"


def test_what_cannot_be_right_is_told_by_the_form_that_was_wanted(tuned: Callable[..., Any]) -> None:
    bundle = tuned("lora").bundle
    assert json.loads(line_of(bundle, "a text", ["billing"])) == {"text": "a text", "label": "billing"}
    for asked, truth, wanted in (
        ("a text", ["a", "b"], "was wanted as one label; it is \"['a', 'b']\""),
        ("a text", None, "was wanted as one label; it is 'None'"),
        (" ", "billing", "A text was wanted; it is empty"),
        ({"a": 1}, "billing", "takes a list of texts"),
    ):
        with pytest.raises(DataError) as error:
            line_of(bundle, asked, truth)
        assert wanted in str(error.value)


def test_a_kind_of_entity_that_only_rows_to_test_with_hold_is_known_too(tuned: Callable[..., Any]) -> None:
    task = plugin.build("tasks", plugin.Choice("tag", {"intent": True}))
    bundle = replace(tuned("lora").bundle, task=task, card={"labels": ["thing", "intent: a"]})
    items = [Tagged("my card", (), (Entity(3, 7, kind),)) for kind in ("thing", "rare")]
    rows = replace(given_rows(items, ["my card"] * 2), labels=[("a",), ("b",)])
    assert names_of(bundle, rows) == ["thing", "intent: a", "intent: b", "rare"]
    asked = task.label_names(rows)
    ordered = plugin.build("tasks", plugin.Choice("tag", {"intent": True, "labels": names_of(bundle, rows)}))
    assert asked == ["rare", "thing", "intent: a", "intent: b"]
    assert ordered.label_names(rows) == ["thing", "rare", "intent: a", "intent: b"]
