"""Answers said in words: what is read, learned and judged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import put, told
from penjing import load as open_bundle
from penjing import plugin, tune
from penjing.data.parts import part_of
from penjing.errors import NotSupported, SpecError
from penjing.jobs.prepare import rows_from
from penjing.models.load import load
from penjing.task import Task
from penjing.tasks.generate import Answer

Tiny = Callable[..., Path]
ROWS = [
    {"question": "what is late ?", "context": "my parcel is late", "answers": ["the parcel", "parcel"]},
    {"question": "what was billed ?", "context": "i was billed too much", "answers": []},
]


def built(**settings: Any) -> Task:
    task: Task = plugin.build("tasks", plugin.Choice("answer_in_words", {"longest": 6, **settings}))
    return task


def lines(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    return put(folder, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("family", "wanted"), [
    ("gpt2", "my parcel is late\nquestion: what is late ?\nanswer: the parcel"),
    ("t5", "question: what is late ? context: my parcel is late"),
])  # fmt: skip
def test_the_question_stands_where_nothing_is_cut(
    tiny: Tiny, tmp_path: Path, family: str, wanted: str
) -> None:
    task, base = built(longest=16), load(str(tiny(family)), whole=True)
    assert task.bind
    task = task.bind(base, [], weights=True)
    part = part_of(task, base, rows_from(task, str(lines(tmp_path))), [], 64)
    ids = part.tokens.ids[: part.tokens.starts[1]].tolist()
    if family == "gpt2":
        assert base.tokenizer.decode(ids[:-1]) == wanted
        assert part.tokens.labels is not None
        said = part.tokens.labels[part.tokens.labels != -100].tolist()
        # of the question without an answer the stop token alone is learned
        eos = base.tokenizer.eos_token_id
        assert said == [*base.tokenizer("the parcel").input_ids, eos, eos]
    assert part.rows.notes == ("1 of 2 questions have no answer in their text",)
    assert part.targets.tolist() == [["the parcel", "parcel"], []]


def test_any_right_answer_counts_and_saying_nothing_where_there_is_none() -> None:
    task, right = built(), np.empty(3, dtype=object)
    right[:] = [["the parcel", "a box"], [], ["Rome"]]
    found = [Answer("Box!", True, 2.0, 4), Answer("", True, 1.0, 1), Answer("Oslo", False, 3.0, 1)]
    scores = task.score(found, right, [], {}, 0)
    assert scores.values["exact_match"] == pytest.approx(2 / 3)
    assert scores.values["loss"] == pytest.approx(1.0)
    assert scores.values["unended"] == pytest.approx(1 / 3)
    right[:] = [["北京市"], ["上海"], ["广州"]]
    chinese = task.score([Answer("北京", True)] * 3, right, [], {}, 0)
    assert chinese.values["f1"] == pytest.approx(0.8 / 3)


@pytest.mark.slow
def test_a_run_learns_and_its_bundle_answers(tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"question": "which order ?", "context": f"my card was charged: {i}", "answers": ["my card"]}
            for i in range(10, 60)]  # fmt: skip
    run = tune(
        base=tiny("gpt2"), train=lines(tmp_path, rows), out=tmp_path / "runs", device="cpu", precision="fp32",
        steps=50, evals=2, batch=16, lr=5e-3, max_length=96, task={"answer_in_words": {"longest": 8}},
    )  # fmt: skip
    result = run.read("result.json")
    assert result["best_name"] == "f1"
    assert result["after"]["values"]["f1"] > 0.9
    asked = {"question": "which order ?", "context": "my card was charged on order 99"}
    (answer,) = open_bundle(run.folder).predict([asked], form={"choices": ["my card", "late"]})
    assert answer["text"] == "my card"


def test_what_cannot_be_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    task = built()
    assert task.bind
    with pytest.raises(NotSupported, match="needs a base that says words"):
        task.bind(load(str(tiny("bert"))), [], weights=True)
    base = load(str(tiny("gpt2")))
    bound = task.bind(base, [], weights=True)
    with pytest.raises(SpecError) as error:
        part_of(bound, base, rows_from(task, str(lines(tmp_path))), [], 10)
    told(error, "`answer_in_words.longest` is 6", "`data.max_length` 10", "Raise the latter")
