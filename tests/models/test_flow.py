"""Texts that begin at different times and share each step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common import each
from penjing.models.decoding import Decoding, one_of
from penjing.models.flow import Flow, Line, line_of
from penjing.models.generate import generate
from penjing.models.load import load
from penjing.models.model import Model
from penjing.models.word_head import word_head

Tiny = Callable[..., Path]
ROWS = [[50, 61, 72, 83, 94], [60], [101, 50, 90, 44, 45, 46, 47, 80, 81], [70, 71], [99, 98, 97]]
HOWS = [
    Decoding(max_new=9),
    Decoding(max_new=12, sample=True, temperature=1.3, seed=4),
    Decoding(max_new=5, repetition_penalty=1.4),
    Decoding(max_new=14, sample=True, top_k=20, seed=1),
    Decoding(max_new=7, min_new=3, no_repeat=2),
]


def model_of(tiny: Tiny, family: str) -> Model:
    base = load(str(tiny(family)), whole=family == "t5")
    head, _ = word_head(base, "answer" if family == "t5" else "causal", weights=True)
    return Model(base.trunk, head, base.way).requires_grad_(False).prepare("fp32").eval()


@pytest.mark.parametrize("family", [*each(["gpt2", "llama", "qwen3"]), "t5"])
def test_lines_that_join_at_any_time_say_what_each_says_alone(family: str, tiny: Tiny) -> None:
    model = model_of(tiny, family)
    alone = [
        generate(model, [row], how, stop=(7,), limit=128)[0][0] for row, how in zip(ROWS, HOWS, strict=True)
    ]
    flow = Flow(model)
    lines = [line_of(model, row, how, stop=(7,), limit=128) for row, how in zip(ROWS, HOWS, strict=True)]
    waiting: list[Line] = []
    with torch.inference_mode():
        for when in range(40):
            come = [lines[i] for i in range(len(lines)) if when == 2 * i]
            waiting = flow.join([*waiting, *come])
            flow.step()
    assert not waiting
    assert not flow.lines
    for line, wanted in zip(lines, alone, strict=True):
        assert line.answer.ids == wanted.ids
        assert line.answer.ended == wanted.ended
        assert line.answer.score == pytest.approx(wanted.score, abs=1e-3)


def test_a_line_that_nobody_waits_for_leaves_the_others_as_they_are(tiny: Tiny) -> None:
    model = model_of(tiny, "gpt2")
    wanted = generate(model, [ROWS[0]], HOWS[0], stop=(), limit=128)[0][0]
    flow = Flow(model)
    stays, goes = (line_of(model, row, HOWS[0], stop=(), limit=128) for row in (ROWS[0], ROWS[2]))
    with torch.inference_mode():
        flow.join([goes, stays])
        flow.step()
        flow.sweep([goes])
        while flow.lines:
            flow.step()
    assert stays.answer.ids == wanted.ids
    assert not goes.over


def test_a_line_may_be_held_to_given_answers(tiny: Tiny) -> None:
    model = model_of(tiny, "gpt2")
    flow = Flow(model)
    line = line_of(model, ROWS[0], Decoding(max_new=9), stop=(7,), allow=one_of([[9, 9, 8], [5]], 7))
    with torch.inference_mode():
        flow.join([line])
        while flow.lines:
            flow.step()
    assert list(line.answer.ids) in ([9, 9, 8], [5])
    assert line.ended
