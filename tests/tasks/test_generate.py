"""Translating, summarizing and any text to any text: what is learned, said and scored."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import told
from penjing import load as open_bundle
from penjing import plugin, tune
from penjing.baselines.said import lead, nearest
from penjing.bundle import Bundle
from penjing.data.batches import packed
from penjing.data.parts import part_of
from penjing.device import Machine
from penjing.engine.scoring import predictions
from penjing.errors import NotSupported, SpecError
from penjing.jobs.prepare import rows_from
from penjing.models.load import load
from penjing.models.model import Model
from penjing.task import Task

Tiny = Callable[..., Path]
PAIRS = [
    ("my card was charged", "billing"),
    ("the parcel is late", "delivery"),
    ("i cannot log in", "account"),
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = [f"{a} on order {i},{b} {i}" for i in range(20) for a, b in PAIRS]
    path = tmp_path / "rows.csv"
    path.write_text("source,target\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def made(tiny: Tiny, family: str, rows: Path, **settings: Any) -> tuple[Task, Any, Model, Any]:
    task: Task = plugin.build("tasks", plugin.Choice("generate", {"longest": 12, **settings}))
    base = load(str(tiny(family)), whole=task.whole)
    assert task.bind is not None
    task = task.bind(base, [], weights=True)
    part = part_of(task, base, rows_from(task, str(rows)), [], 32)
    model = Model(base.trunk, task.head(), base.way).prepare("fp32").eval()
    return task, base, model, part


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marian", "gpt2"])
def test_the_loss_is_that_of_the_answers_alone(tiny: Tiny, rows: Path, name: str) -> None:
    import transformers

    task, base, model, part = made(tiny, name, rows)
    batch = packed(part, np.arange(5))
    both = base.kind == "encoder-decoder"
    auto: Any = transformers.AutoModelForSeq2SeqLM if both else transformers.AutoModelForCausalLM
    theirs = auto.from_pretrained(tiny(name)).eval()
    eos = base.tokenizer.eos_token_id
    encode = lambda text: base.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    total, count = 0.0, 0
    for source, target in part.rows.items[:5]:
        said = [*encode(target), eos]
        given = [*encode(source), eos] if both else encode(f"{source}\n")
        ids = given if both else [*given, *said]
        labels = said if both else [*[-100] * len(given), *said]
        with torch.no_grad():
            loss = theirs(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        total, count = total + float(loss) * len(said), count + len(said)
    assert batch.n_targets == count
    assert task.loss(model, batch).mean.item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("name", ["marian", "gpt2"])
def test_what_is_said_does_not_depend_on_the_wanted_answer(tiny: Tiny, rows: Path, name: str) -> None:
    task, base, model, part = made(tiny, name, rows)
    asked = part_of(task, base, part.rows, [], 32, labelled=False)
    first, second = (predictions(task, model, one) for one in (part, asked))
    assert [one.text for one in first] == [one.text for one in second]
    assert all(one.tokens for one in first)
    assert not any(one.tokens for one in second)
    scores = task.score(first, part.targets, [], {}, 0)
    mean = sum(one.loss for one in first) / sum(one.tokens for one in first)
    assert scores.values["loss"] == pytest.approx(mean)
    low, high = scores.intervals["rouge_l"]
    assert low <= scores.values["rouge_l"] <= high


@pytest.mark.parametrize(
    ("task", "base"),
    [("generate", "gpt2"), ("translate", "marian"), pytest.param("summarize", "t5", marks=pytest.mark.slow)],
)
def test_a_run_learns_and_its_bundle_says(
    tiny: Tiny, rows: Path, tmp_path: Path, task: str, base: str
) -> None:
    import transformers

    run = tune(
        base=tiny(base), train=rows, out=tmp_path / "runs", device="cpu", precision="fp32", steps=60,
        evals=2, batch=16, lr=5e-3, task={task: {"longest": 12}}, max_length=32,
    )  # fmt: skip
    result = run.read("result.json")
    best = result["best_name"]
    assert result["after"]["values"]["loss"] < 3
    assert best in result["baseline"]["values"]
    assert result["difference"]["name"] == best
    bundle = open_bundle(run.folder)
    (answer,) = bundle.predict(["the parcel is late on order 3"])
    assert set(answer) == {"text", "ended"}
    auto = getattr(transformers, f"AutoModelFor{'CausalLM' if base == 'gpt2' else 'Seq2SeqLM'}")
    auto.from_pretrained(run.folder / "best/trunk")
    assert (run.folder / "report.html").is_file()


def test_cut_answers_are_counted_and_told(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    long = "my card was charged twice on order 17 and late"
    path.write_text(f"source,target\na b,c\na,{long}\n", encoding="utf-8")
    for name in ("marian", "gpt2"):
        part = made(tiny, name, path, longest=6)[3]
        assert "1 of 2 answers are longer than 6 tokens; their ends are cut" in part.rows.notes[-1]


def test_a_source_that_is_too_long_keeps_its_beginning_and_what_stands_behind_it(
    tiny: Tiny, tmp_path: Path
) -> None:
    path = tmp_path / "long.csv"
    path.write_text(f"source,target\nmy card {'parcel ' * 60},late\n", encoding="utf-8")
    for name in ("gpt2", "llama"):
        _, base, _, part = made(tiny, name, path, prefix="order ", behind=" =>", longest=6)
        head = part.tokens.ids[: 32 - 6].tolist()
        text = base.tokenizer.decode(head, skip_special_tokens=True)
        assert (part.marks.tolist(), part.tokens.cut) == ([[32 - 6]], 1)
        assert (text[:8], text[-3:]) == ("order my", " =>")
        assert head[0] == base.tokenizer("order my card").input_ids[0]  # Llama's first token stays
    _, base, _, part = made(tiny, "gpt2", path, behind="parcel " * 90 + "?", longest=6)
    assert (part.marks.tolist(), base.tokenizer.decode(part.tokens.ids[:26])[-1]) == ([[26]], "?")


def test_a_prefix_stands_before_each_source(tiny: Tiny, rows: Path) -> None:
    _, base, _, part = made(tiny, "t5", rows, prefix="my card: ")
    first = part.tokens.ids[: part.tokens.starts[1]].tolist()
    assert "my card" in base.tokenizer.decode(first, skip_special_tokens=True).partition("my card")[2]


def test_baselines_say_the_first_sentences_or_what_the_nearest_was_answered() -> None:
    says, note = lead(["one two. three four. five six."] * 3, ["one two three four"] * 3)
    assert says(["a b. c d. e f."]) == ["a b. c d."]
    assert "first 2 sentences" in note
    says, _ = nearest([a for a, _ in PAIRS], [b for _, b in PAIRS], 0)
    assert says(["the parcel was late", "log in"]) == ["delivery", "account"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marian", "gpt2"])
def test_answers_have_the_form_asked_for(tiny: Tiny, rows: Path, name: str) -> None:
    task, _, model, part = made(tiny, name, rows, form={"regex": "[a-z]{2,4}"})
    said = [one.text for one in predictions(task, model, part)]
    assert all(re.fullmatch("[a-z]{2,4}", text) for text in said)
    assert task.formed is not None
    chosen = {one.text for one in predictions(task.formed({"choices": ["late", "lost"]}), model, part)}
    assert chosen <= {"late", "lost"}
    assert [one.text for one in predictions(task, model, part)] == said


def test_of_a_schema_the_value_is_answered_too(tiny: Tiny, rows: Path) -> None:
    task, base, model, _ = made(tiny, "gpt2", rows, longest=24)
    card = {"labels": [], "max_length": 64, "chosen": {}}
    bundle = Bundle(Path(), card, model, task, base, Machine(torch.device("cpu"), "fp32", 1))
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"]}
    (answer,) = bundle.predict(["my card was charged"], form={"schema": schema})
    assert answer["value"] == json.loads(answer["text"])
    assert answer["value"]["n"] <= 99
    assert set(*bundle.predict(["my card was charged"])) == {"text", "ended"}
    with pytest.raises(NotSupported, match="answers by no text that its model says"):
        replace(bundle, task=replace(task, formed=None)).formed({"schema": schema})


def test_what_cannot_be_is_refused(tiny: Tiny, rows: Path) -> None:
    with pytest.raises(NotSupported) as error:
        made(tiny, "bert", rows)
    told(error, "needs a base that says words", "is an encoder")
    with pytest.raises(SpecError, match="`longest` must be at least 2"):
        made(tiny, "gpt2", rows, longest=1)
    with pytest.raises(SpecError, match="for source and answer in one row"):
        made(tiny, "gpt2", rows, longest=31)
