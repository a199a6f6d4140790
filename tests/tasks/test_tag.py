"""Tagging on a tiny base: windows, joint intents, settings, errors, and whole runs that learn."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import put
from penjing.data.batches import packed
from penjing.data.entities import Entity
from penjing.engine.scoring import predictions
from penjing.entities.scores import Said, Truth
from penjing.errors import DataError, SpecError
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Batch, Part, Rows
from penjing.tasks.tag import tag

Tiny = Callable[..., Path]
NAMES = ["city", "who"]


def rows_of(*texts: str, entities: tuple[Entity, ...] = (), task: Any = None) -> Rows:
    """Rows whose first has these entities."""
    rows = (task or tag()).ask(list(texts))
    rows.items[0] = replace(rows.items[0], entities=entities)
    return rows


class Teller(nn.Module):
    """A model that says of each token what its labels say, as sure as can be."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.head.transitions = None  # type: ignore[assignment]
        self.n_outputs = n_outputs

    def forward(self, batch: Batch) -> tuple[Tensor, None]:
        assert batch.labels is not None
        return 20.0 * F.one_hot(batch.labels.clamp(min=0), self.n_outputs).float(), None


@pytest.fixture
def base(tiny: Tiny) -> Base:
    return load(str(tiny("bert")))


def part_of(task: Any, base: Base, rows: Rows, longest: int = 24, names: list[str] = NAMES) -> Part:
    part = task.part(base, rows, names, longest, labelled=True)
    assert isinstance(part, Part)
    return part


# ---- long texts


@pytest.mark.parametrize("units", ["words", "characters", "pieces"])
@pytest.mark.parametrize("longest", [12, 17, 24])
def test_no_entity_is_lost_at_a_windows_border(units: Any, longest: int, base: Base) -> None:
    """An entity of three words at every place of a long text comes back whole, as one."""
    task = tag(units=units)
    words = ["late", "parcel", "card", "order", "lost", "fee"] * 8
    for first in range(0, len(words) - 3, 5):
        text = " ".join(words)
        start = len(" ".join(words[:first])) + (first > 0)
        end = start + len(" ".join(words[first : first + 3]))
        rows = rows_of(text, entities=(Entity(start, end, "city"),), task=task)
        part = part_of(task, base, rows, longest)
        assert len(part) > 2
        (found,) = predictions(task, Teller(5), part)
        assert found.places == {(start, end, 0)}


def test_a_site_is_learned_and_answered_in_one_window_only(base: Base) -> None:
    part = part_of(tag(), base, rows_of(" ".join(["late"] * 60)))
    assert part.tokens.labels is not None
    assert int((part.tokens.labels != -100).sum()) == 60
    assert part.owners is not None
    assert set(part.owners.tolist()) == {0}


def test_the_share_that_windows_have_in_common_can_be_set(base: Base) -> None:
    rows = rows_of(" ".join(["late"] * 60))
    none, half = (len(part_of(tag(overlap=share), base, rows)) for share in (0.0, 0.5))
    assert half > none == 3


# ---- targets


def test_entities_inside_words_are_learned_as_whole_words_and_told(base: Base) -> None:
    task = tag()
    rows = rows_of("a Paris-based parcel", entities=(Entity(2, 7, "city"),), task=task)
    part = part_of(task, base, rows)
    assert any(
        "1 entities begin or end inside a word (such as `Paris` in `Paris-based`)" in n
        for n in part.rows.notes
    )
    assert part.targets[0].entities == {(2, 7, 0)}  # and scored as they are
    finer = tag(units="pieces")
    part = part_of(finer, base, rows)
    (found,) = predictions(finer, Teller(5), part)
    assert found.places == {(2, 7, 0)}


def test_every_window_knows_the_intent_once(base: Base) -> None:
    task = tag(intent=True)
    rows = rows_of(" ".join(["late"] * 60), "lost", task=task)
    rows = replace(rows, labels=[("b",), ("a",)])
    part = part_of(task, base, rows, names=["city", "intent: a", "intent: b"])
    assert part.marks is not None
    assert part.marks.tolist() == [1, *[-100] * (len(part) - 2), 0]


def test_the_joint_loss_is_that_of_tags_and_that_of_intents(base: Base) -> None:
    task = tag(intent=True, intent_weight=0.5, head_dropout=0.0)
    rows = replace(rows_of("late parcel", "lost card", task=task), labels=[("b",), ("a",)])
    names = ["city", "intent: a", "intent: b"]
    part = part_of(task, base, rows, names=names)
    model = Model(base.trunk, task.head(base.width, names, base.pooling, base.pooler), base.way).eval()
    batch = packed(part, np.arange(2))
    with torch.no_grad():
        found = task.loss(model, batch)
        logits, whole = model(batch)
    assert batch.labels is not None
    tags = F.cross_entropy(logits, batch.labels, ignore_index=-100)
    intents = F.cross_entropy(whole, torch.tensor([1, 0]))  # both rows have two words
    assert float(found.mean) == pytest.approx(float(tags + 0.5 * intents), rel=1e-5)
    assert found.parts == pytest.approx({"entities": float(tags), "intent": float(intents)}, rel=1e-5)


# ---- answers


def test_an_answer_names_its_characters() -> None:
    said = [Said("to Bonn now", ((3, 7, 0, 0.9),), np.array([0.2, 0.8]))]
    (answer,) = tag().answers(said, ["city", "intent: a", "intent: b"], {})
    entity = {"start": 3, "end": 7, "label": "city", "text": "Bonn", "confidence": 0.9}
    assert answer == {"entities": [entity], "intent": "b", "confidence": 0.8}
    assert tag().say(answer) == "b 0.800\tBonn city 0.900"
    assert tag().say({"entities": []}) == "(none)"


def test_mistakes_say_what_was_missed_and_what_made_up() -> None:
    task = tag()
    rows = rows_of("to Bonn with Ann")
    said = [Said("to Bonn with Ann", ((3, 7, 1, 0.9), (13, 16, 1, 0.8)))]
    targets = np.empty(1, dtype=object)
    targets[0] = Truth(frozenset({(3, 7, 0), (13, 16, 1)}))
    assert task.mistakes is not None
    (wrong,) = task.mistakes(said, rows, targets, NAMES, {})
    assert (wrong["given"], wrong["predicted"], wrong["confidence"]) == ("Bonn (city)", "Bonn (who)", 0.9)


# ---- errors


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"crf": True, "decode": "span"}, r"`tag.crf`.*`decode: span` has none"),
        ({"overlap": 0.9}, r"`tag.overlap` must lie between 0 and 0.5; it is 0.9"),
        ({"head_dropout": -0.1}, r"`tag.head_dropout`.*-0.1"),
        ({"intent_weight": 0.0}, r"`tag.intent_weight` must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        tag(**settings)


def test_a_label_that_training_did_not_have_is_told_with_its_place() -> None:
    rows = rows_of("to Bonn", entities=(Entity(3, 7, "ciry"),))
    with pytest.raises(
        DataError, match=r"line 1: the entity label `ciry`.*Did you mean `city`\? 1 of 1 rows"
    ):
        tag().encode(rows, NAMES)
    with pytest.raises(DataError, match=r"`ciry` is not among the 1 of `tag.labels`"):
        tag(labels=["city"]).label_names(rows)


def test_an_intent_that_training_did_not_have_is_told_with_its_place() -> None:
    rows = replace(rows_of("to Bonn"), labels=[("Fyl",)])
    with pytest.raises(DataError, match=r"line 1: the intent `Fyl`.*Did you mean `Fly`"):
        tag(intent=True).encode(rows, ["city", "intent: Fly"])


def test_rows_without_any_entity_are_refused() -> None:
    with pytest.raises(DataError, match=r"At least one entity was wanted.*1 rows hold none"):
        tag().label_names(rows_of("nothing"))


# ---- whole runs


CITIES, PEOPLE = ["bonn", "rome", "oslo", "lima"], ["ann", "bob", "eve"]


def trips(n: int, seed: int) -> str:
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        city, who, late = draw.choice(CITIES), draw.choice(PEOPLE), draw.random() < 0.5
        words = [
            "the",
            "parcel",
            *(["is", "late"] if late else ["was", "lost"]),
            "in",
            str(city),
            "says",
            str(who),
        ]
        tags = ["O"] * 5 + ["B-city", "O", "B-who"]
        rows.append({"tokens": words, "tags": tags, "intent": "late" if late else "lost"})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def spec(tiny: Tiny, tmp_path: Path) -> dict[str, Any]:
    train, test = put(tmp_path, "train.jsonl", trips(96, 0)), put(tmp_path, "test.jsonl", trips(24, 1))
    where = {
        "base": str(tiny("bert")),
        "data": {"train": str(train), "test": str(test)},
        "out": str(tmp_path / "runs"),
    }
    return {
        **where,
        "train": {"steps": 70, "evals": 1, "batch": 16, "lr": 3e-3},
        "device": "cpu",
        "precision": "fp32",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"crf": True}, marks=pytest.mark.slow),
        pytest.param({"decode": "span"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_learns_entities_and_intents_and_reports_them(
    settings: dict[str, Any], spec: dict[str, Any]
) -> None:
    from penjing import evaluate, load, tune

    run = tune({**spec, "task": {"tag": {"intent": "intent", **settings}}})
    values = run.result["after"]["values"]
    assert values["micro_f1"] > 0.9
    assert values["intent_accuracy"] > 0.9
    assert run.result["labels"] == ["city", "who", "intent: late", "intent: lost"]
    (answer,) = load(run.folder).predict(["the parcel is late in rome says eve"])
    assert [(e["text"], e["label"]) for e in answer["entities"]] == [("rome", "city"), ("eve", "who")]
    assert answer["intent"] == "late"
    assert evaluate(run, spec["data"]["test"])["values"] == pytest.approx(values)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "micro F1" in page
    assert "Intent accuracy" in page
    assert "TF-IDF" not in page


@pytest.mark.slow
def test_a_batch_shown_names_each_tokens_tag(spec: dict[str, Any]) -> None:
    from penjing.jobs.check import check, show_batch

    whole = {**spec, "task": {"tag": {"intent": "intent"}}}
    (shown,) = show_batch(whole, rows=1)
    assert shown.learned in ("late", "lost")
    assert len(shown.each) == len(shown.tokens)
    assert shown.each[0] == ""
    assert {"B-city", "B-who", "O"} <= set(shown.each)
    assert not [finding for finding in check(whole) if finding.state == "error"]


@pytest.mark.slow
def test_a_search_finds_settings_of_a_tagger(spec: dict[str, Any]) -> None:
    from penjing.chains.search import search

    rates = {"lr": {"choose": [3e-3, 2e-3]}, "steps": 60}
    run = search({**spec, "task": "tag", "train": {**spec["train"], **rates}, "search": {"trials": 2}})
    assert run.result["after"]["values"]["micro_f1"] > 0.3
