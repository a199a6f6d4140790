"""Replies learned on a tiny base: masks, packing, the contract before step 1, and a whole run that learns."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from common import put, told
from penjing.data.batches import packed
from penjing.data.fields import given_rows
from penjing.data.messages import Conversation, Message
from penjing.errors import DataError, NotSupported, SpecError
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Part, Rows
from penjing.task import Task
from penjing.tasks.chat import chat

Tiny = Callable[..., Path]


def talk(*said: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[i % 2], text) for i, text in enumerate(said)))


def rows_of(*items: Conversation) -> Rows:
    return given_rows(items, [str(i) for i in range(len(items))])


def bound(base: Base, **settings: Any) -> Task:
    task = chat(**{"template": "chatml", **settings})
    assert task.bind
    return task.bind(base, ["replies"], weights=True)  # type: ignore[no-any-return]


def part_of(task: Task, base: Base, rows: Rows, longest: int = 64) -> Part:
    assert task.part
    return task.part(base, rows, ["replies"], longest, labelled=True)  # type: ignore[no-any-return]


@pytest.fixture
def base(tiny: Tiny) -> Base:
    return load(str(tiny("qwen3")))


ROWS = rows_of(talk("my card", "billing"), talk("late", "which order ?", "order 12", "it is lost"))


@pytest.mark.parametrize(
    ("learn", "wanted"),
    [
        ("replies", ["billing<|im_end|>", "which order ?<|im_end|>it is lost<|im_end|>"]),
        ("last", ["billing<|im_end|>", "it is lost<|im_end|>"]),
    ],
)
def test_each_state_is_asked_for_the_next_token_of_a_reply(learn: str, wanted: list[str], base: Base) -> None:
    part = part_of(bound(base, learn=learn), base, ROWS)
    tokens = part.tokens
    assert tokens.labels is not None
    for i, text in enumerate(wanted):
        ids, labels = (x[tokens.starts[i] : tokens.starts[i + 1]] for x in (tokens.ids, tokens.labels))
        asked = labels != -100
        assert base.tokenizer.decode(labels[asked]) == text
        assert labels[asked].tolist() == ids[1:][asked[:-1]].tolist()


def test_all_is_learned_only_where_it_is_asked_for(base: Base) -> None:
    part = part_of(bound(base, learn="all"), base, ROWS)
    assert part.tokens.labels is not None
    assert int((part.tokens.labels == -100).sum()) == len(part)  # the last state of each


def test_the_loss_is_transformers_own_and_conversations_do_not_see_each_other(tiny: Tiny, base: Base) -> None:
    """Packed, it equals the mean over targets of each conversation run alone by transformers' model."""
    task = bound(base)
    part = part_of(task, base, ROWS)
    model = Model(base.trunk, task.head(), base.way).eval()
    own = AutoModelForCausalLM.from_pretrained(tiny("qwen3")).eval()
    total = count = 0.0
    with torch.no_grad():
        ours = float(task.loss(model, packed(part, np.arange(2))).mean)
        for i in range(2):
            ids, labels = (
                torch.from_numpy(x[part.tokens.starts[i] : part.tokens.starts[i + 1]].astype(np.int64))
                for x in (part.tokens.ids, part.tokens.labels)
            )
            logits = own(ids[None]).logits[0]
            total += float(F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
            count += int((labels != -100).sum())
    assert ours == pytest.approx(total / count, rel=1e-4)


def test_scores_are_loss_perplexity_and_accuracy_of_replies(base: Base) -> None:
    from penjing.engine.scoring import predictions

    task = bound(base)
    part = part_of(task, base, ROWS)
    model = Model(base.trunk, task.head(), base.way).eval()
    found = predictions(task, model, part)
    with torch.no_grad():
        loss = float(task.loss(model, packed(part, np.arange(2))).mean)
    values = task.score(found, part.targets, ["replies"], {}, 0).values
    assert values["loss"] == pytest.approx(loss, rel=1e-5)
    assert values["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    assert set(values) == {"loss", "perplexity", "token_accuracy"}


# ---- the contract


LONG = talk("my parcel is late", "which order ?", "order 12", "it is lost")


def test_a_long_conversation_loses_its_oldest_turns_and_no_reply_is_cut(base: Base) -> None:
    whole = int(part_of(bound(base), base, rows_of(LONG)).tokens.lengths[0])
    part = part_of(bound(base), base, rows_of(LONG), whole - 1)
    assert base.tokenizer.decode(part.tokens.ids).count("it is lost<|im_end|>") == 1
    assert any("2 of their oldest messages are left out, no reply is cut" in note for note in part.rows.notes)


def test_thoughts_that_the_template_does_not_write_are_told(base: Base) -> None:
    rows = rows_of(talk("a", "b"))
    one = (rows.items or [])[0]
    thinking = replace(one, messages=(one.messages[0], replace(one.messages[1], thought="hm")))
    part = part_of(bound(base), base, replace(rows, items=[thinking]))
    assert "1 reply with `reasoning_content`, which the template" in part.rows.notes[-1]


def test_what_does_not_fit_is_refused_or_left_out_and_counted(base: Base) -> None:
    rows = rows_of(talk("a", "b"), talk("my parcel is late", "it is lost " * 20))
    with pytest.raises(DataError) as error:
        part_of(bound(base), base, rows, 40)
    told(error, "line 2", "at most 40 tokens was wanted", "its last turn alone", "1 of 2", "too_long: rows")
    part = part_of(bound(base, too_long="rows"), base, rows, 40)
    assert part.owners is not None
    assert part.owners.tolist() == [0]
    assert any("1 conversation longer than 40 tokens left out" in note for note in part.rows.notes)
    with pytest.raises(DataError, match=r"none of 1 rows is.*`data.max_length`"):
        part_of(bound(base, too_long="rows"), base, rows.take([1]), 40)
    with pytest.raises(DataError, match=r"`chat.too_long` is `refuse`"):
        part_of(bound(base, too_long="refuse"), base, rows_of(LONG), 30)


def test_an_error_of_the_template_names_its_row(base: Base) -> None:
    call = Message("assistant", "", (("find", "{}"),))
    calls = Conversation((Message("user", "a"), call, Message("tool", "b")))
    with pytest.raises(NotSupported, match=r"line 2: The template `auto` was to write the reply 'find'"):
        part_of(bound(base, template="auto"), base, rows_of(talk("a", "b"), calls))


def test_bases_and_templates_that_cannot_be_are_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match=r"`chat` needs a base whose tokens see only those before"):
        bound(load(str(tiny("bert"))))
    with pytest.raises(NotSupported, match=r"A chat template was wanted"):
        bound(load(str(tiny("gpt2"))), template="auto")
    with pytest.raises(SpecError, match=r"Did you mean `alpaca`"):
        chat(template="alpacca")


# ---- whole runs


def talks(n: int, seed: int) -> str:
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        city = str(draw.choice(["bonn", "rome"]))
        asked, told_ = f"order {i} went to {city}", f"lost in {city}"
        pair = [{"role": "user", "content": asked}, {"role": "assistant", "content": told_}]
        rows.append({"messages": pair})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_run_learns_to_reply_and_keeps_its_template(method: str, tiny: Tiny, tmp_path: Path) -> None:
    from penjing import evaluate, load, tune
    from penjing.jobs.check import check, show_batch

    train, test = put(tmp_path, "train.jsonl", talks(64, 0)), put(tmp_path, "test.jsonl", talks(12, 1))
    spec = {
        "base": str(tiny("llama")),
        "task": {"chat": {"template": "alpaca"}},
        "method": method,
        "data": {"train": str(train), "valid": str(test), "test": str(test)},
        "out": str(tmp_path / "runs"),
        "train": {"steps": 40, "evals": 1, "batch": 8, "lr": 3e-3},
        "device": "cpu",
        "precision": "fp32",
    }
    (shown,) = show_batch(spec, rows=1)
    text = "".join(token for token, learned in zip(shown.tokens, shown.marks, strict=True) if learned)
    assert text.startswith("lost in ")
    assert text.endswith("<|end_of_text|>")
    run = tune(spec)
    before, after = (run.result[name]["values"] for name in ("before", "after"))
    assert after["loss"] < 0.5 * before["loss"]
    assert run.result["lower"] is True
    assert evaluate(run, str(test))["values"] == pytest.approx(after)
    bundle = load(run.folder)
    assert "### Response:" in bundle.tokenizer.chat_template
    (reply,) = bundle.predict(["order 7 went to rome"])
    assert (reply["reply"], reply["ended"]) == ("lost in rome", True)
    assert 0 < reply["confidence"] <= 1
    assert not [finding for finding in check(spec) if finding.state == "error"]
    if method == "full":
        own = AutoModelForCausalLM.from_pretrained(run.folder / "best" / "trunk")
        assert own.generation_config.eos_token_id in (end := bundle.tokenizer.eos_token_id, [end])


def test_a_batch_is_shown_with_what_is_learned_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    from penjing.jobs.check import Shown
    from penjing.screen import print_batch

    shown = Shown("a.jsonl, line 3", ["Q:", " hi", "\n", " yes", "</s>"], "", [], [False] * 3 + [True] * 2)
    print_batch([shown])
    out = capsys.readouterr().out
    assert "a.jsonl, line 3\n  read     5 tokens\n" in out
    assert "learned  2 of 5 tokens" in out
    assert "Q: hi\n  ⟦ yes</s>⟧" in out


def test_replies_have_the_form_asked_for(base: Base) -> None:
    from penjing.data.conversations import asked
    from penjing.engine.scoring import predictions

    task = bound(base, max_new=12, form={"choices": ["billing", "delivery"]})
    assert task.part
    part = task.part(base, asked(["my card", "late"]), ["replies"], 64, labelled=False)
    model = Model(base.trunk, task.head(), base.way).prepare("fp32").eval()
    for found in (task, task.formed({"regex": "[a-z]{3}"})):  # type: ignore[misc]
        said = found.answers(predictions(found, model, part), ["replies"], {})
        pattern = "billing|delivery" if found is task else "[a-z]{3}"
        assert all(re.fullmatch(pattern, one["reply"]) and 0 < one["confidence"] <= 1 for one in said)
    with pytest.raises(SpecError, match="one of `schema`, `regex` and `choices`"):
        chat(form={"choice": ["a"]})


@pytest.mark.slow
def test_what_is_left_out_stands_in_the_result_and_in_what_evaluate_and_check_tell(
    tiny: Tiny, tmp_path: Path
) -> None:
    from penjing import check, evaluate, tune

    rows = [{"prompt": f"my {word}", "completion": word} for word in ("card", "parcel", "order", "fee")]
    rows.append({"prompt": "my", "completion": "parcel " * 60})
    path = put(tmp_path, "talk.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    task = {"chat": {"template": "alpaca", "too_long": "rows", "max_new": 4}}
    asked = {"base": tiny("gpt2"), "train": path, "valid": path, "test": path, "task": task, "max_length": 64,
             "device": "cpu", "steps": 2, "batch": 4, "evals": 1, "out": tmp_path / "runs"}  # fmt: skip
    run, note = tune(**asked), "1 conversation longer than 64 tokens left out"
    for name in ("train", "validation", "test"):
        assert f"{name} rows: {note}" in run.result["notes"]
    assert note in evaluate(run.folder, path)["notes"]
    assert f"of 5 train rows: {note}" in [one.text for one in check(**asked)]
