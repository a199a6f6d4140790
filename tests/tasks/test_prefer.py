"""Preferences learned on a tiny base: the loss by hand, the reference, and whole runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from common import put, told
from penjing.data.batches import packed
from penjing.data.fields import given_rows
from penjing.data.messages import Conversation, Message
from penjing.data.preferences import Preference
from penjing.errors import DataError, NotSupported, SpecError
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Part, Rows
from penjing.task import Task
from penjing.tasks.prefer import prefer

Tiny = Callable[..., Path]


def pair(asked: str, chosen: str, rejected: str) -> Preference:
    asked_ = Conversation((Message("user", asked),))
    return Preference(asked_, Message("assistant", chosen), Message("assistant", rejected))


PAIRS = [pair("late", "which order ?", "no"), pair("my card", "billing", "it is lost fee fee")]


def rows_of(*items: Preference) -> Rows:
    return given_rows(items, [str(i) for i in range(len(items))])


def bound(base: Base, **settings: Any) -> Task:
    task = prefer(**{"template": "chatml", **settings})
    assert task.bind
    return task.bind(base, ["replies"], weights=True)  # type: ignore[no-any-return]


def part_of(task: Task, base: Base, rows: Rows, longest: int = 64) -> Part:
    assert task.part
    return task.part(base, rows, ["replies"], longest, labelled=True)  # type: ignore[no-any-return]


@pytest.fixture
def base(tiny: Tiny) -> Base:
    return load(str(tiny("qwen3")))


def by_hand(own: Any, base: Base, items: list[Preference]) -> np.ndarray:
    """(n, 2) log-probabilities of the replies by transformers' model, a sequence at a time."""
    found = np.zeros((len(items), 2))
    for i, item in enumerate(items):
        for k, whole in enumerate(item.whole()):
            plain = [{"role": m.role, "content": m.content} for m in whole.messages]
            make = base.tokenizer.apply_chat_template
            text, asked = (
                make(plain, tokenize=False),
                make(plain[:1], tokenize=False, add_generation_prompt=True),
            )
            ids = base.tokenizer(text.rstrip("\n"), return_tensors="pt", add_special_tokens=False)[
                "input_ids"
            ]
            first = len(base.tokenizer(asked, add_special_tokens=False)["input_ids"])
            with torch.no_grad():
                log_p = own(ids).logits[0, :-1].double().log_softmax(-1)
            found[i, k] = log_p.gather(1, ids[0, 1:, None])[first - 1 :].sum()
    return found


def n_learned(part: Part, row: int, reply: int) -> int:
    """Tokens learned of one of a pair's replies."""
    assert part.tokens.parts is not None
    assert part.tokens.labels is not None
    ends = part.tokens.starts[row] + np.concatenate([[0], np.cumsum(part.tokens.parts[row])])
    return int((part.tokens.labels[ends[reply] : ends[reply + 1]] != -100).sum())


@pytest.mark.parametrize("kind", ["dpo", "ipo", "orpo"])
def test_the_loss_is_the_formula_on_transformers_own_log_probabilities(
    kind: Any, tiny: Tiny, base: Base
) -> None:
    task = bound(base, loss=kind, beta=0.2)
    part = part_of(task, base, rows_of(*PAIRS))
    reference = by_hand(AutoModelForCausalLM.from_pretrained(tiny("qwen3")).eval(), base, PAIRS)
    model = Model(base.trunk, task.head(), base.way).eval()
    own = AutoModelForCausalLM.from_pretrained(tiny("qwen3")).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # both move alike, away from the reference
        ours = dict(model.trunk.named_parameters())
        for name, parameter in own.base_model.named_parameters():
            noise = 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter += noise
            ours[name] += noise
        found = float(task.loss(model, packed(part, np.arange(2))).mean)
    policy = by_hand(own, base, PAIRS)
    lengths = np.array([[n_learned(part, i, k) for k in (0, 1)] for i in (0, 1)])
    gain = policy - reference
    if kind == "dpo":
        wanted = -np.log(1 / (1 + np.exp(-0.2 * (gain[:, 0] - gain[:, 1]))))
    elif kind == "ipo":
        each = gain / lengths
        wanted = (each[:, 0] - each[:, 1] - 1 / 0.4) ** 2
    else:
        mean = policy / lengths
        odds = mean - np.log1p(-np.exp(mean))
        wanted = -mean[:, 0] - 0.2 * np.log(1 / (1 + np.exp(-(odds[:, 0] - odds[:, 1]))))
    assert found == pytest.approx(float(wanted.mean()), rel=1e-5, abs=1e-5)


def test_before_the_first_step_the_model_is_its_reference(base: Base) -> None:
    task = bound(base)
    part = part_of(task, base, rows_of(*PAIRS))
    model = Model(base.trunk, task.head(), base.way).eval()
    with torch.no_grad():
        loss = task.loss(model, packed(part, np.arange(2)))
    assert float(loss.mean) == pytest.approx(np.log(2), abs=1e-5)
    assert packed(part, np.arange(2)).n_targets == 2


def test_what_asks_for_a_reply_is_no_part_of_it_even_within_tags(base: Base) -> None:
    """TRL's training templates have the line end behind `assistant` within their tags."""
    base.tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}{% generation %}"
        "{{ '\\n' + m.content + '<|im_end|>' }}{% endgeneration %}{% else %}"
        "{{ '\\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    part = part_of(bound(base, template="auto"), base, rows_of(PAIRS[0]))
    assert part.tokens.labels is not None
    learned = part.tokens.labels[part.tokens.labels != -100]
    assert base.tokenizer.decode(learned) == "which order ?<|im_end|>no<|im_end|>"


def test_pairs_that_do_not_fit_are_refused_or_left_out(base: Base) -> None:
    rows = rows_of(PAIRS[0], pair("late", "no", "it is lost " * 20))
    with pytest.raises(DataError) as error:
        part_of(bound(base), base, rows, 48)
    told(error, "line 2", "at most 48 tokens were wanted", "too_long: rows")
    part = part_of(bound(base, too_long="rows"), base, rows, 48)
    assert len(part) == 1
    assert any("1 pair longer than 48 tokens left out" in note for note in part.rows.notes)


def test_settings_and_bases_that_cannot_be_are_refused(tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=r"`prefer.beta` must be above 0; it is -1"):
        prefer(beta=-1)
    with pytest.raises(SpecError, match=r"`loss: orpo` has no reference"):
        prefer(loss="orpo", reference="x")
    with pytest.raises(NotSupported, match=r"`prefer` needs a base whose tokens see only those before"):
        bound(load(str(tiny("bert"))))


def pairs(n: int) -> str:
    rows = []
    for i in range(n):
        replies = ["lost in bonn", "late in rome"]
        rows.append({"prompt": f"order {i} of ann", "chosen": replies[0], "rejected": replies[1]})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_run_learns_what_is_preferred_and_its_bundle_scores_alike(
    method: str, tiny: Tiny, tmp_path: Path
) -> None:
    from penjing import evaluate, load, tune

    train, test = put(tmp_path, "train.jsonl", pairs(24)), put(tmp_path, "test.jsonl", pairs(6))
    spec = {
        "base": str(tiny("qwen3")),
        "task": {"prefer": {"template": "chatml", "max_new": 4}},
        "method": method,
        "data": {"train": str(train), "valid": str(test), "test": str(test)},
        "out": str(tmp_path / "runs"),
        "train": {"steps": 12, "evals": 1, "batch": 8, "lr": 3e-3},
        "device": "cpu",
        "precision": "fp32",
    }
    run = tune(spec)
    before, after = (run.result[name]["values"] for name in ("before", "after"))
    assert before["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert before["preference_accuracy"] < 1
    assert after["preference_accuracy"] == 1.0
    assert after["margin"] > 1
    assert evaluate(run, str(test))["values"] == pytest.approx(after, rel=1e-4)
    (reply,) = load(run.folder).predict(["order 3 of ann"])
    assert set(reply) == {"reply", "ended", "confidence"}
