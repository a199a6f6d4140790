"""What every task promises, on a tiny base: it counts its targets, micro-batches add up, packed equals
padded, saved equals before, and a bundle answers.

A task of a file is found by itself; `SAMPLES` says what rows it reads. To add a task: one function there.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import tickets
from penjing import bundle as bundles
from penjing import plugin
from penjing.data.batches import halves, packed
from penjing.data.parts import part_of
from penjing.data.parts import rows_of as given_texts
from penjing.device import Machine
from penjing.errors import DataError
from penjing.jobs.prepare import rows_from
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.models.packing import NATIVE, Way
from penjing.records import Batch, Part
from penjing.task import Task

Tiny = Callable[..., Path]
# The first three ask a base in words (tests/tasks/test_few_shot.py), `see` reads images (test_see.py), and
# `multitask` holds several of these (test_multitask.py).
ELSEWHERE = {"few_shot", "zero_shot", "soft", "see", "multitask"}
UNTAUGHT = {"prefer", "code"}  # what is said of one answer makes no row of theirs
CPU = Machine(torch.device("cpu"), "fp32", 1)
LONGEST = 24


@dataclass(frozen=True)
class Sample:
    """Rows of a file, settings of the task, and inputs to answer."""

    file: str
    content: str
    asked: list[Any]
    settings: dict[str, Any] = field(default_factory=dict)
    base: str = "bert"
    longest: int = LONGEST


def _as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _texts(**settings: Any) -> Sample:
    lines = "".join(f'"{text}",{label}\n' for text, label in tickets(18))
    return Sample("rows.csv", f"text,label\n{lines}", ["my parcel is late"], settings)


def _entities(**settings: Any) -> Sample:
    rows = []
    for i, (text, label) in enumerate(tickets(18)):
        words = text.split() * (1 if i % 3 else 5)  # some are longer than a window
        tags = ["B-thing" if word in ("card", "parcel", "password") else "O" for word in words]
        rows.append({"tokens": words, "tags": tags, "intent": label})
    return Sample("rows.jsonl", _as_lines(rows), ["my parcel is late", "x"], settings)


def _pairs(**settings: Any) -> Sample:
    lines = [f"{text},{text if i % 2 else 'the fee'},{i % 2}\n" for i, (text, _) in enumerate(tickets(18))]
    asked = [["my parcel is late", "it is lost"]]
    return Sample("rows.csv", "sentence1,sentence2,label\n" + "".join(lines), asked, settings)


def _numbers(**settings: Any) -> Sample:
    lines = [f"{text},{len(label)}\n" for text, label in tickets(18)]
    return Sample("rows.csv", "text,stars\n" + "".join(lines), ["my parcel is late"], settings)


def _choices(**settings: Any) -> Sample:
    rows = []
    for i, (text, label) in enumerate(tickets(18)):
        choices = [label, "the fee", "an order"][: 2 + i % 2]
        rows.append({"question": text, "choices": choices, "answer": "AB"[i % 2]})
    asked = [{"question": "my parcel is late", "choices": ["delivery", "the fee"]}]
    return Sample("rows.jsonl", _as_lines(rows), asked, settings)


def _related(**settings: Any) -> Sample:
    rows = [{"anchor": text, "positive": f"{label} {i}", "negatives": ["the fee"][: i % 2]}
            for i, (text, label) in enumerate(tickets(18))]  # fmt: skip
    return Sample("rows.jsonl", _as_lines(rows), ["my parcel is late", "x"], settings)


def _relations(**settings: Any) -> Sample:
    rows = []
    for i, (text, _) in enumerate(tickets(18)):
        first, second = ("head", "tail") if i % 2 else ("tail", "head")
        end = len(text.rsplit(" ", 1)[0])
        spans = {first: {"start": 0, "end": 2, "type": "who"}, second: {"start": end + 1, "end": len(text)}}
        rows.append(
            {"text": text * (1 + i % 3), **spans, "relation": f"Has({'e1,e2' if i % 2 else 'e2,e1'})"}
        )
    return Sample("rows.jsonl", _as_lines(rows), ["<e1>my</e1> parcel is <e2>late</e2>"], settings)


def _questions(**settings: Any) -> Sample:
    rows = []
    for i, (text, _) in enumerate(tickets(18)):
        words = text.split()
        text = " ".join([*words[:2], *(["late"] * (i % 3) * 12), *words[2:]])  # some need several windows
        last = {"text": words[-1], "answer_start": len(text) - len(words[-1])}
        answers = [last] if i % 4 else []
        rows.append({"question": "which order ?", "context": text, "answers": answers})
    asked = [{"question": "which order ?", "context": "my parcel is late"}, {"question": "x", "context": "y"}]
    return Sample("rows.jsonl", _as_lines(rows), asked, settings)


def _talks(**settings: Any) -> Sample:
    rows = [{"instruction": text, "output": label} for text, label in tickets(18)]
    asked = ["my parcel is late", [{"role": "user", "content": "i was billed twice"}]]
    settings = {"template": "chatml", "max_new": 6, **settings}
    return Sample("rows.jsonl", _as_lines(rows), asked, settings, base="qwen3", longest=96)


def _preferences(**settings: Any) -> Sample:
    rows = [{"prompt": text, "chosen": label, "rejected": "no idea"} for text, label in tickets(18)]
    settings = {"template": "chatml", "max_new": 6, **settings}
    return Sample("rows.jsonl", _as_lines(rows), ["my parcel is late"], settings, base="qwen3", longest=96)


def _said(base: str, **settings: Any) -> Sample:
    rows = [{"source": text, "target": label} for text, label in tickets(18)]
    asked = ["my parcel is late", "i was billed too much"]
    return Sample("rows.jsonl", _as_lines(rows), asked, {"longest": 6, **settings}, base)


def _code(**settings: Any) -> Sample:
    lines = [
        f"def {label}_{i}(a, b):\n    return a + b  # {text}\n" for i, (text, label) in enumerate(tickets(18))
    ]
    rows: list[dict[str, Any]] = [
        {"content": "\n".join([line] * (1 + i % 4))} for i, line in enumerate(lines)
    ]
    if "run" in settings:
        rows = [{"prompt": line[:20], "completion": line[20:], "test": "pass"} for line in lines]
    asked = ["def add(a, b):\n", {"prompt": "def f():\n", "suffix": "\n    return x\n"}]
    return Sample("rows.jsonl", _as_lines(rows), asked, {"longest": 6, **settings}, base="gpt2", longest=64)


SAMPLES: dict[str, dict[str, Sample]] = {
    "answer": {"squad": _questions(longest=4)},
    "answer_in_words": {
        "encoder-decoder": replace(_questions(longest=4), base="marian"),
        "decoder": replace(_questions(longest=4), base="gpt2"),
    },
    "prefer": {"dpo": _preferences(), "orpo": _preferences(loss="orpo")},
    "chat": {"replies": _talks(), "last": _talks(learn="last")},
    "classify": {"plain": _texts(), "weighted": _texts(class_weights="balanced")},
    "choose": {"plain": _choices()},
    "code": {"files": _code(), "tested": _code(run=True, judge="pass_at_1", samples=2, memory_mib=2048)},
    "embed": {"plain": _related(), "first dimensions too": _related(dimensions=[8], both_ways=False)},
    "generate": {"encoder-decoder": _said("marian"), "decoder": _said("gpt2", beams=2)},
    "pair": {
        "one sequence": _pairs(),
        "two towers": _pairs(how="two_tower"),
        "scores": _pairs(scores=True),
        "near scores": _pairs(how="two_tower", scores=True, ranking=False),
        "ranked scores": _pairs(how="two_tower", scores=True),
    },
    "regress": {"plain": _numbers()},
    "relate": {
        "plain": _relations(),
        "typed": _relations(markers="typed"),
        "bare": _relations(markers="none"),
    },
    "summarize": {"plain": _said("t5")},
    "tag": {
        "bio": _entities(),
        "crf": _entities(crf=True, decode="bioes"),
        "span": _entities(decode="span"),
        "intents": _entities(intent="intent", units="pieces"),
    },
    "translate": {"plain": _said("bart")},
}
CASES = [(task, name) for task, samples in SAMPLES.items() for name in samples]


@dataclass(frozen=True)
class Ready:
    task: Task
    base: Base
    names: list[str]
    part: Part
    model: Model
    sample: Sample


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def made(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path) -> Ready:
    """A task's sample as batches of a tiny base, and a model whose head is no longer as it began."""
    name, kind = request.param
    sample = SAMPLES[name][kind]
    path = tmp_path / sample.file
    path.write_text(sample.content, encoding="utf-8")
    task: Task = plugin.build("tasks", plugin.Choice(name, sample.settings))
    base = load(str(tiny(sample.base)), whole=task.whole)
    rows = rows_from(task, str(path))
    names = task.label_names(rows)
    if task.measure:
        task = task.measure(rows, names)
    if task.bind:
        task = task.bind(base, names, weights=True)
    part = part_of(task, base, rows, names, sample.longest, weigh=True)
    head = task.head(base.width, names, base.pooling, base.pooler)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model = Model(base.trunk, head, base.way).prepare("fp32")
    return Ready(task, base, names, part, model.eval(), sample)


def batch_of(made: Ready) -> Batch:
    return packed(made.part, np.arange(min(16, len(made.part))))


def test_every_task_has_a_sample() -> None:
    assert set(plugin.found("tasks")) - ELSEWHERE == set(SAMPLES)


def test_the_loss_is_a_mean_over_counted_targets(made: Ready) -> None:
    batch = batch_of(made)
    found = made.task.loss(made.model, batch)
    assert batch.n_targets > 0
    assert torch.isfinite(found.mean)
    assert found.mean.ndim == 0


def test_micro_batches_add_up_to_the_whole(made: Ready) -> None:
    if made.task.joint:
        pytest.skip("its loss compares the rows of a step with each other")
    batch = batch_of(made)
    parts = halves(batch)
    assert parts is not None
    with torch.no_grad():
        whole = float(made.task.loss(made.model, batch).mean)
        pieces = [float(made.task.loss(made.model, part).mean) * part.n_targets for part in parts]
    assert sum(part.n_targets for part in parts) == batch.n_targets
    assert sum(pieces) / batch.n_targets == pytest.approx(whole, rel=1e-5)


def test_packed_equals_padded(made: Ready) -> None:
    batch = batch_of(made)
    with torch.no_grad():
        one = float(made.task.loss(made.model, batch).mean)
        made.model.trunk.set_attn_implementation(NATIVE)
        made.model.way = Way(False)
        other = float(made.task.loss(made.model, batch).mean)
    assert one == pytest.approx(other, abs=1e-5)


def test_gradients_reach_all_that_the_head_brings(made: Ready) -> None:
    made.task.loss(made.model, batch_of(made)).mean.backward()
    lost = [name for name, p in made.model.head.named_parameters() if p.grad is None]
    assert lost == []


@pytest.mark.slow
def test_saved_and_loaded_answers_are_those_before(made: Ready, tmp_path: Path) -> None:
    settings = plugin.Choice(made.task.name, {**made.sample.settings, **made.task.settled})
    whole = plugin.Choice(made.task.name, plugin.settings_of("tasks", settings))
    dense = getattr(made.model.head, "dense", None) is not None
    about = {
        "task": whole.written(),
        "method": "full",
        "labels": made.names,
        "max_length": made.sample.longest,
    }
    card = {**about, "precision": "fp32", "dense": dense, "chosen": {}}
    bundles.save(tmp_path / "best", model=made.model, base=made.base, saves="full", card=card)
    loaded = bundles.load(tmp_path / "best", machine=CPU)
    before = bundles.Bundle(tmp_path, card, made.model, made.task, made.base, CPU)
    found, wanted = (bundle.predict(made.sample.asked) for bundle in (loaded, before))
    assert _near(found, wanted)
    json.dumps(found)


def test_an_answer_does_not_depend_on_who_shares_the_batch(made: Ready) -> None:
    card = {"labels": made.names, "max_length": made.sample.longest, "chosen": {}}
    bundle = bundles.Bundle(Path(), card, made.model, made.task, made.base, CPU)
    together = bundle.predict([*made.sample.asked, *reversed(made.sample.asked)])
    for one, wanted in zip(made.sample.asked, together, strict=False):
        (alone,) = bundle.predict([one])
        assert _near(alone, wanted)


def _near(one: Any, other: Any) -> bool:
    """Equal but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_near, one, other))
    return abs(one - other) < 1e-4 if isinstance(one, float) else bool(one == other)


def test_scores_mistakes_and_lines_can_be_had(made: Ready) -> None:
    from penjing.engine.scoring import predictions

    found = predictions(made.task, made.model, made.part)
    chosen = made.task.tune(found, made.part.targets)
    scores = made.task.score(found, made.part.targets, made.names, chosen, 0)
    assert made.task.best in scores.values
    assert all(isinstance(value, float) for value in scores.values.values())
    json.dumps(scores.tables)
    asked = part_of(made.task, made.base, made.part.rows, made.names, made.sample.longest, labelled=False)
    for answer in made.task.answers(predictions(made.task, made.model, asked), made.names, chosen):
        assert "\n" not in made.task.say(answer)
    if made.task.mistakes:
        wrong = made.task.mistakes(found, made.part.rows, made.part.targets, made.names, chosen)
        assert all({"where", "text", "given", "predicted"} <= one.keys() for one in wrong)


def test_the_baseline_answers_rows_as_the_model_does(made: Ready) -> None:
    rows = made.part.rows
    if made.task.baseline is None:
        pytest.skip("no baseline")
    predict = made.task.baseline(rows, made.task.encode(rows, made.names), made.names, 0)
    scores = made.task.score(predict(rows), made.part.targets, made.names, {}, 0)
    assert np.isfinite(scores.values[made.task.best])


@pytest.mark.parametrize(("name", "case"), CASES)
def test_rows_written_down_are_read_as_they_were_and_what_they_ask_can_be_asked(
    name: str, case: str, tmp_path: Path
) -> None:
    sample = SAMPLES[name][case]
    task: Task = plugin.build("tasks", plugin.Choice(name, sample.settings))
    if task.teach is None:
        assert name in UNTAUGHT
        return
    (tmp_path / sample.file).write_text(sample.content)
    rows = rows_from(task, tmp_path / sample.file)
    names = task.label_names(rows)
    asked, truths = task.teach.asked(rows), task.teach.truths(rows)
    lines = [task.teach.row(*both, names) for both in zip(asked, truths, strict=True)]
    (tmp_path / "again.jsonl").write_text(_as_lines(lines))
    again = rows_from(task, tmp_path / "again.jsonl", **task.teach.columns(names))
    assert (again.texts, again.labels) == (rows.texts, rows.labels)
    if task.outputs == "numbers":
        assert task.encode(again, names).tolist() == task.encode(rows, names).tolist()
    else:
        assert again.items == rows.items
    inputs = [next(iter(own.values())) if len(own) == 1 else own for own in asked]
    assert task.teach.asked((task.ask or given_texts)(inputs)) == asked
    with pytest.raises(DataError, match="What would have been right was wanted as"):
        task.teach.row(asked[0], {"strange": ()}, names)
