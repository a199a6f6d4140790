"""Several tasks on one base: each learns and answers as by itself, and steps are dealt fairly."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import put, told
from conftest import tickets
from penjing import evaluate, load, tune
from penjing import spec as specs
from penjing.data import questions
from penjing.data.batches import packed
from penjing.data.multitask import dealt, own_rows, shares, together
from penjing.errors import DataError, SpecError
from penjing.jobs.prepare import stream, task_of
from penjing.jobs.training import opened, parts_of
from penjing.models.load import load as load_base
from penjing.models.many import Acting
from penjing.models.model import Model
from penjing.task import Task

Tiny = Callable[..., Path]


@pytest.fixture
def asks(small: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A spec of two tasks with files of their own: 90 tickets to classify, 30 to find things in."""
    lines = []
    for text, _ in tickets(30, seed=1):
        for word in text.split():
            thing = word in ("card", "parcel", "password", "order")
            lines.append(f"{word} {'B-thing' if thing else 'O'}")
        lines.append("")
    put(tmp_path, "slots.conll", "\n".join(lines))
    tasks = {
        "topic": {"task": "classify", "train": small["data"]["train"]},
        "things": {"task": "tag", "train": str(tmp_path / "slots.conll"), "weight": 2},
    }
    return {**{k: v for k, v in small.items() if k != "data"}, "tasks": tasks}


@pytest.mark.slow
def test_a_run_learns_all_and_its_bundle_answers_each(asks: dict[str, Any]) -> None:
    run = tune(asks, **{"train.steps": 90, "train.lr": 3e-3})
    values = run.result["after"]["values"]
    assert values["mean"] == pytest.approx((values["topic_accuracy"] + values["things_micro_f1"]) / 2)
    assert values["topic_accuracy"] > run.result["before"]["values"]["topic_accuracy"]
    assert {"topic_accuracy", "things_micro_f1"} <= run.result["baseline"]["values"].keys()
    losses = run.lines("log.jsonl")
    assert {name for line in losses for name in line["parts"] if " " not in name} == {"topic", "things"}
    bundle = load(run.folder)
    both, one = bundle.predict(["my card was charged twice", {"topic": "my parcel is late"}])
    assert both.keys() == {"topic", "things"}
    assert one.keys() == {"topic"}
    assert "topic: " in bundle.task.say(both)
    alone = bundle.predict(["my card was charged twice"])[0]
    assert alone["topic"]["label"] == both["topic"]["label"]
    again = evaluate(run, {name: said["train"] for name, said in asks["tasks"].items()})
    assert {"mean", "topic_accuracy", "things_micro_f1"} <= again["values"].keys()


@pytest.mark.slow
def test_tasks_may_read_columns_of_one_file(small: dict[str, Any], tmp_path: Path) -> None:
    rows = "".join(f'"{text}",{label},{len(text)}\n' for text, label in tickets(60))
    path = str(put(tmp_path, "all.csv", "text,topic,length\n" + rows))
    tasks = [
        {"task": "classify", "name": "topic", "label": "topic"},
        {"task": "regress", "label": "length"},
    ]
    spec = specs.read({**small, "tasks": tasks, "data": {"train": path}})
    job = opened(spec, lambda news: None)
    assert len(job.data.train) + len(job.data.valid) == 60
    train, _ = parts_of(job)
    assert [len(member) for member in train.members] == [54, 54]
    answer = tune(spec).bundle.predict(["my card was charged twice"])[0]
    assert answer.keys() == {"topic", "regress"}


def made(asks: dict[str, Any], **settings: Any) -> tuple[Task, Model, Any, Any]:
    spec = specs.read({**asks, "task": {"multitask": settings}})
    job = opened(spec, lambda news: None)
    train, _ = parts_of(job)
    torch.manual_seed(0)
    head = job.task.head(job.base.width, job.data.names, job.base.pooling, job.base.pooler)
    return job.task, Model(job.base.trunk, head, job.base.way).prepare("fp32").eval(), train, job


def test_several_rows_of_one_place_stay_several(tmp_path: Path) -> None:
    asked = [{"id": str(i), "question": f"q{i}", "answers": []} for i in range(3)]
    article = {"paragraphs": [{"context": "a text", "qas": asked}]}
    rows = questions.read(put(tmp_path, "squad.json", json.dumps({"data": [article]})))
    both = together({"one": rows, "two": rows}, shared=True)
    assert both.texts == rows.texts
    assert [item.name for item in own_rows(both, 1)[0].items or ()] == ["0", "1", "2"]


def test_a_step_s_loss_is_the_task_s_own_times_its_weight(asks: dict[str, Any]) -> None:
    from penjing.tasks.tag import tag

    task, model, train, _ = made(asks)
    assert task.vary is not None
    first = len(train.members[0])
    shown = task.vary(train, np.arange(first + 3, first + 9), 0)
    own: Any = Acting(model, 1)
    with torch.no_grad():
        mixed = task.loss(model, packed(shown, np.arange(6)))
        alone = tag().loss(own, packed(train.members[1], np.arange(3, 9)))
    assert float(mixed.mean) == pytest.approx(2 * float(alone.mean), rel=1e-6)


def test_losses_weighed_by_uncertainty_follow_the_formula(asks: dict[str, Any]) -> None:
    task, model, train, _ = made(asks, balance="uncertainty")
    assert task.vary is not None
    batch = packed(task.vary(train, np.arange(8), 0), np.arange(8))
    doubts: Any = model.head.doubts
    own = task.loss(model, batch).mean.item()  # exp(0) times itself, and nothing beside
    with torch.no_grad():
        doubts.copy_(torch.tensor([0.7, -0.3]))
    found = task.loss(model, batch).mean
    assert found.item() == pytest.approx(own * np.exp(-0.7) + 0.35, rel=1e-6)
    found.backward()
    assert doubts.grad.tolist() == pytest.approx([0.5 - own * np.exp(-0.7), 0.0], rel=1e-5)


def test_what_a_stream_gives_is_a_function_of_the_step(asks: dict[str, Any]) -> None:
    task, _, train, job = made(asks)
    whole = list(islice(stream(job.spec, task, train), 20))
    later = list(islice(stream(job.spec, task, train, start=11), 9))
    for one, other in zip(whole[11:], later, strict=True):
        assert [(b.kind, b.rows) for b in one] == [(b.kind, b.rows) for b in other]
    assert {batches[0].kind for batches in whole} == {0, 1}
    assert all(len({batch.kind for batch in batches}) == 1 for batches in whole)


def test_steps_are_shared_out_by_size_and_temperature() -> None:
    sizes = [900, 90, 10]
    assert shares(sizes, 1) == pytest.approx([0.9, 0.09, 0.01])
    assert shares(sizes, 2) == pytest.approx(np.sqrt(sizes) / np.sqrt(sizes).sum())
    for temperature in (1, 4):
        steps = dealt(sizes, shares(sizes, temperature), batch=10, seed=0, epoch=0)
        assert len(steps) == 100
        own = np.searchsorted(np.cumsum(sizes), [rows[0] for rows in steps], side="right")
        wanted = 100 * shares(sizes, temperature)
        assert np.abs(np.bincount(own) - wanted).max() <= 1
    by_size = dealt(sizes, shares(sizes, 1), batch=10, seed=0, epoch=0)
    assert sorted(np.concatenate(by_size).tolist()) == list(range(1000)), "an epoch is every row once"


def test_rows_too_few_for_a_step_each_take_turns() -> None:
    steps = [dealt([4, 3, 2], shares([4, 3, 2], 1), batch=8, seed=0, epoch=epoch) for epoch in range(3)]
    assert [len(epoch) for epoch in steps] == [2, 2, 2]
    first = [int(rows[0]) for epoch in steps for rows in epoch]
    assert {int(np.searchsorted([4, 7, 9], row, side="right")) for row in first} == {0, 1, 2}


def test_the_key_tasks_says_what_the_task_says(asks: dict[str, Any], tiny_csv: Path) -> None:
    short = specs.read(asks)
    own = {k: v for k, v in asks.items() if k != "tasks"}
    of = {"topic": {"task": "classify"}, "things": {"task": "tag", "weight": 2}}
    data = {"train": {name: said["train"] for name, said in asks["tasks"].items()}}
    assert specs.read({**own, "task": {"multitask": {"of": of}}, "data": data}).written() == short.written()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": {"a": "classify"}}, ["`multitask.of` must name two tasks", "For one say `task:`"]),
        ({"tasks": ["classify", "classify"]}, ["`tasks` names `classify` twice", "another `name`"]),
        ({"tasks": {"a": "classify", "b": "masked"}}, ["`multitask.of.b` is `masked`", "Run it by itself"]),
        ({"tasks": {"a": {"task": "tag", "trian": "x"}, "b": "tag"}}, ["`tasks.a.trian`", "mean `train`"]),
        ({"tasks": {"a": {"task": "tag", "weight": 0}, "b": "tag"}}, ["`multitask.of.a.weight`", "1 is"]),
        ({"tasks": {"a/b": "tag", "c": "tag"}}, ["`multitask.of.a/b`", "Give it another"]),
        ({"task": "tag"}, ["`task` ('tag') and `tasks`", "Keep one"]),
        ({"data": {"train": "x.csv"}}, ["`data.train` ('x.csv') and `tasks.topic.train`", "Keep one"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(asks: dict[str, Any], changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        task_of(specs.read({**asks, **changes}))
    told(caught, *said)


def test_rows_of_an_unknown_task_and_inputs_of_another_kind_are_told(asks: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        opened(specs.read(asks, sets=["data.valid={topik: x.csv}"]), lambda news: None)
    told(caught, "rows of a task `topik`", "Did you mean `topic`")
    with pytest.raises(SpecError) as caught:
        specs.read(task="classify", data={"train": {"a": "x.csv"}})
    told(caught, "`data.train` is a mapping", "say `tasks:`")
    task, *_ = made(asks)
    assert task.ask is not None
    with pytest.raises(DataError) as caught2:
        task.ask([3])
    told(caught2, "`topic` cannot be asked so", "given by its name")


@pytest.mark.slow
def test_the_dense_layer_of_a_base_is_each_head_s_own(tiny: Tiny, asks: dict[str, Any]) -> None:
    base = load_base(str(tiny("bert")))
    task, *_ = made(asks)
    names = ["topic/a", "topic/b", "things/thing"]
    head: Any = task.head(base.width, names, "cls", base.pooler)
    assert base.pooler is None or head.each[0].dense is not base.pooler
