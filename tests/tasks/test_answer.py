"""Answers in texts on a tiny base: windows, targets, thresholds, errors, and a whole run that learns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import put
from penjing.data import contexts
from penjing.data.fields import given_rows
from penjing.data.questions import Answer, Question
from penjing.engine.scoring import predictions
from penjing.errors import DataError, SpecError
from penjing.models.load import Base, load
from penjing.records import Batch, Part, Rows
from penjing.tasks.answer import Said, answer

Tiny = Callable[..., Path]


def rows_of(*items: Question) -> Rows:
    return given_rows(items, [one.question for one in items])


def part_of(base: Base, rows: Rows, longest: int = 32, **settings: Any) -> Part:
    task = answer(longest=4, question=4, rules="squad", **settings)
    assert task.part
    return task.part(base, rows, [], longest, labelled=True)


class Teller(nn.Module):
    """A model that says of each window what its marks say, as sure as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(1, 1)

    def forward(self, batch: Batch) -> tuple[Tensor, None]:
        assert batch.marks is not None
        pieces = []
        for size, marks in zip(batch.lengths.tolist(), batch.marks, strict=True):
            each = [F.one_hot(marks[i], size).float() for i in (contexts.START, contexts.END)]
            none = marks[contexts.START] == marks[contexts.NONE]
            pieces.append((10.0 if none else 20.0) * torch.stack(each, 1))
        return torch.cat(pieces), None


@pytest.fixture
def base(tiny: Tiny) -> Base:
    return load(str(tiny("bert")))


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "roberta"])
def test_no_answer_is_lost_at_a_windows_border(family: str, tiny: Tiny) -> None:
    """An answer at every place of a long text comes back to the letter."""
    base = load(str(tiny(family)))
    words = ["late", "parcel", "card", "order", "lost", "fee"] * 6
    text = " ".join(words)
    items = []
    for first in range(len(words) - 1):
        start = len(" ".join(words[:first])) + (first > 0)
        right = " ".join(words[first : first + 1])
        items.append(Question("order ?", text, (Answer(right, start, start + len(right)),)))
    part = part_of(base, rows_of(*items))
    assert len(part) >= 2 * len(items)
    found = predictions(answer(longest=4, rules="squad"), Teller(), part)
    for one, item in zip(found, items, strict=True):
        assert (one.text, one.start) == (item.answers[0].text, item.answers[0].start)
        assert one.doubt < 0


def test_a_question_without_answer_asks_every_window_for_none(base: Base) -> None:
    part = part_of(base, rows_of(Question("order ?", " ".join(["late"] * 60))))
    assert part.marks is not None
    assert (part.marks[:, contexts.START] == part.marks[:, contexts.NONE]).all()
    (one,) = predictions(answer(longest=4, rules="squad"), Teller(), part)
    assert one.doubt > 0


def test_windows_share_as_much_as_the_longest_answer(base: Base) -> None:
    part = part_of(base, rows_of(Question("order ?", " ".join(["late"] * 60))), overlap=0.0)
    assert part.marks is not None
    first = part.marks[:, contexts.SHIFT]
    end = first + part.marks[:, contexts.AFTER] - part.marks[:, contexts.FIRST]
    assert (end[:-1] - first[1:] >= 4).all()
    assert end[-1] == 60


def test_an_answer_that_stands_nowhere_is_scored_and_not_learned(base: Base) -> None:
    lost, right = (
        Question("a ?", "late fee", (Answer("Oslo"),)),
        Question("a ?", "late fee", (Answer("fee", 5, 8),)),
    )
    part = part_of(base, rows_of(lost, right))
    assert part.weights is not None
    assert part.weights.tolist() == [0.0, 1.0]
    assert part.targets[0] == ("Oslo",)


def test_an_answer_that_no_window_holds_whole_is_not_learned_as_none(base: Base) -> None:
    text = " ".join(["late"] * 60)
    torn = Question("order ?", text, (Answer(text, 0, len(text)),))
    part = part_of(base, rows_of(torn))
    assert part.weights is not None
    assert len(part) > 1
    assert not part.weights.any()
    assert any("1 questions have no answer whole in one window" in note for note in part.rows.notes)


def test_answers_that_are_too_long_or_inside_tokens_are_told(base: Base) -> None:
    text = "late parcel card order lost fee"
    long = Question("a ?", text, (Answer(text, 0, len(text)),))
    inside = Question("a ?", text, (Answer("arcel", 6, 11),))
    notes = part_of(base, rows_of(long, inside)).rows.notes
    assert any("1 answers have over 4 tokens (`answer.longest`)" in note for note in notes)
    assert any("1 answers begin or end inside a token" in note for note in notes)
    notes = part_of(base, rows_of(Question("late parcel card order lost", text))).rows.notes
    assert any("1 questions are longer than 4 tokens; their ends are cut" in note for note in notes)


def test_a_threshold_is_chosen_where_some_questions_have_no_answer() -> None:
    task = answer(rules="squad")
    targets = np.empty(3, dtype=object)
    targets[:] = [("fee",), (), ("late",)]
    found = [
        Said("fee", 0, 3, -4.0, 0.9, 0.1),
        Said("x", 0, 1, 3.0, 0.2, 0.8),
        Said("late", 0, 4, 1.0, 0.4, 0.5),
    ]
    chosen = task.tune(found, targets)
    assert chosen == {"most_doubt": 2.0}
    assert task.score(found, targets, [], chosen, 0).values["f1"] == 1.0
    assert task.score(found, targets, [], {}, 0).values["f1"] == pytest.approx(2 / 3)
    second = task.answers(found, [], chosen)[1]
    assert second == {"answer": "", "start": None, "end": None, "confidence": 0.8}
    assert task.say(second) == "(no answer)\t0.800"
    assert task.tune(found[:1], targets[:1]) == {}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"overlap": 0.9}, r"`answer.overlap` must lie between 0 and 0.5; it is 0.9"),
        ({"head_dropout": -0.1}, r"`answer.head_dropout`.*-0.1"),
        ({"longest": 0}, r"`answer.longest` must be 1 or more tokens; it is 0"),
        ({"question": 0}, r"`answer.question`"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        answer(**settings)


def test_rows_without_an_answer_to_learn_are_refused() -> None:
    with pytest.raises(DataError, match=r"At least one answer that stands in its text.*1 rows hold none"):
        answer().label_names(rows_of(Question("a ?", "b")))


def test_the_rules_are_chosen_by_the_answers_and_kept() -> None:
    task = answer()
    assert task.measure
    chinese = task.measure(rows_of(Question("?", "村雨城", (Answer("村雨城", 0, 3),))), [])
    assert chinese.settled == {"rules": "cmrc"}
    assert task.measure(rows_of(Question("?", "fee", (Answer("fee", 0, 3),))), []).settled == {
        "rules": "squad"
    }


def test_questions_about_one_text_are_held_out_together() -> None:
    task = answer()
    assert task.draw
    items = [Question(f"q{i} ?", f"text {i // 3}", (Answer("text", 0, 4),)) for i in range(60)]
    train, valid, notes = task.draw(rows_of(*items), None, [], 0.2, 0)
    held, kept = ({one.context for one in rows.items or []} for rows in (valid, train))
    assert held
    assert not held & kept
    assert "of texts of their own" in notes[0]


# ---- whole runs


def trips(n: int, seed: int) -> str:
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        city, who = draw.choice(["bonn", "rome", "oslo", "lima"]), draw.choice(["ann", "bob", "eve"])
        text = f"the parcel was lost in {city} says {who}"
        if i % 5 == 4:
            text, right = f"the parcel was late on order {i} says {who}", None
        else:
            right = str(city)
        answers = [] if right is None else [{"text": right, "answer_start": text.index(right)}]
        rows.append({"question": "in which place ?", "context": text, "answers": answers})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
def test_a_run_learns_where_answers_are_and_where_there_is_none(tiny: Tiny, tmp_path: Path) -> None:
    from penjing import evaluate, load, tune
    from penjing.jobs.check import check, show_batch

    train, test = put(tmp_path, "train.jsonl", trips(96, 0)), put(tmp_path, "test.jsonl", trips(25, 1))
    spec = {
        "base": str(tiny("bert")),
        "task": "answer",
        "data": {"train": str(train), "test": str(test)},
        "out": str(tmp_path / "runs"),
        "train": {"steps": 120, "evals": 1, "batch": 16, "lr": 3e-3},
        "device": "cpu",
        "precision": "fp32",
    }
    run = tune(spec)
    values = run.result["after"]["values"]
    assert values["f1"] > 0.9
    assert set(values) == {"exact_match", "f1", "f1_answerable", "unanswerable_right"}
    bundle = load(run.folder)
    asked = {"question": "in which place ?", "context": "the parcel was lost in rome says eve"}
    (one,) = bundle.predict([asked])
    assert (one["answer"], one["start"], one["end"]) == ("rome", 23, 27)
    assert bundle.card["chosen"]["most_doubt"] is not None
    assert evaluate(run, spec["data"]["test"])["values"] == pytest.approx(values)  # type: ignore[index]
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "F1 of answers" in page
    assert "SQuAD" in page
    (shown,) = show_batch(spec, rows=1)
    assert {"begin and end", "no answer"} & set(shown.each) or {"begin", "end"} <= set(shown.each)
    assert not [finding for finding in check(spec) if finding.state == "error"]
