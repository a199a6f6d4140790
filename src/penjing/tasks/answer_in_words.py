"""Generative question answering: an answer said from a question and a text, in whatever words.

`answer` points at a span of the text; this says the answer, so it need not stand there. Rows, exact match and
F1 are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from penjing import answering, saying
from penjing.baselines.questions import fit_questions
from penjing.data import questions, taught
from penjing.data.questions import Question
from penjing.errors import SpecError
from penjing.models.answering import part_of_both
from penjing.models.load import Base
from penjing.records import Part, Rows, Scores
from penjing.task import Fitted, Task
from penjing.tasks.generate import TRAIN, Answer, decoding_of, said_task

__all__ = ["TRAIN", "answer_in_words"]


def answer_in_words(
    *,
    longest: int = 32,
    beams: int = 1,
    no_repeat: int = 0,
    rules: Literal["auto", "squad", "cmrc"] = "auto",
    form: dict[str, Any] | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Task:
    """Say the answer to a question about a text; F1 picks the best.

    longest: tokens of an answer. beams: as in generation. no_repeat: as in generation. rules: how answers are
    compared, as SQuAD or as CMRC does; auto is by their language. form: what answers look like:
    `{schema: …}`, `{regex: …}` or `{choices: […]}` (docs/forms.md).
    source_language, target_language: of a base that knows several (mBART, NLLB, M2M100), its codes, such as
    `en_XX` or `eng_Latn`.
    """
    how = decoding_of(longest, beams, 1.0, no_repeat, 1.0)
    languages = (source_language, target_language)
    said = said_task(
        "answer_in_words", "rouge_l", "", "", how, baseline="nearest", languages=languages, form=form
    )

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
        if base.kind == "decoder" and max_length < longest + 8:
            raise SpecError(
                f"`answer_in_words.longest` is {longest} tokens of an answer, and `data.max_length` "
                f"{max_length}, for text, question and answer in one row. Raise the latter, or lower the "
                "former."
            )
        items = _items(rows)
        asked = [_asked(one, base.kind) for one in items]
        wanted = [one.answers[0].text if one.answers else "" for one in items] if labelled else None
        found = part_of_both(
            base, rows, [a for a, _ in asked], [b for _, b in asked], wanted, max_length, longest
        )
        return replace(found, targets=_targets(rows, names))

    def judged(targets: np.ndarray) -> str:
        if rules != "auto":
            return rules
        return "cmrc" if saying.is_chinese([text for row in targets[:500] for text in row]) else "squad"

    def score(
        found: list[Answer], targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        texts = [one.text for one in found]
        scores = answering.scores_of(texts, targets.tolist(), judged(targets), seed)
        tokens = sum(one.tokens for one in found)
        more = {"loss": sum(one.loss for one in found) / tokens} if tokens else {}
        more["unended"] = sum(not one.ended for one in found) / max(1, len(found))
        return Scores(scores.values | more, scores.intervals)

    def difference(
        ours: list[Answer], theirs: list[Answer], targets: np.ndarray, chosen: Any, other: Any, seed: int
    ) -> tuple[float, tuple[float, float]]:
        both = [[one.text for one in some] for some in (ours, theirs)]
        return answering.difference_of(both[0], both[1], targets.tolist(), judged(targets), seed)

    def mistakes(
        found: list[Answer], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
    ) -> list[dict[str, Any]]:
        wrong = []
        for i, (one, right) in enumerate(zip(found, targets, strict=True)):
            near = answering.judged(one.text, right, judged(targets))[1]
            if near < 0.5:
                about = {"where": rows.where(i), "text": rows.texts[i][:600], "given": " | ".join(right)}
                wrong.append({**about, "predicted": one.text, "error": 1 - near})
        return wrong

    own: dict[str, Any] = {
        "part": part,
        "score": score,
        "difference": difference,
        "mistakes": mistakes,
        "best": "f1",
        "encode": _targets,
        "rows": lambda source, **reading: questions.read(source, placing=False, **reading),
        "ask": questions.asked,
        "teach": taught.questions(placing=False),
        "baseline": _baseline,
    }

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        assert said.bind is not None
        bound: Task = said.bind(base, names, weights=weights)
        shaped = bound.formed
        assert shaped is not None
        return replace(bound, **own, formed=lambda form: replace(shaped(form), **own))

    return replace(said, **own, bind=bind)


def _items(rows: Rows) -> Sequence[Question]:
    assert rows.items is not None
    return rows.items


def _asked(one: Question, kind: str) -> tuple[str, str]:
    """What the model reads, and what stays behind it where its end is cut: of a long text the end is lost."""
    if kind == "decoder":
        return one.context, f"\nquestion: {one.question}\nanswer: "
    return f"question: {one.question} context: {one.context}", ""


def _targets(rows: Rows, names: list[str]) -> np.ndarray:
    """(n,) the right answers of each question; none where the text holds none."""
    found = np.empty(len(rows), dtype=object)
    found[:] = [[answer.text for answer in one.answers] for one in _items(rows)]
    return found


def _baseline(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Callable[[Rows], list[Answer]]:
    predict = fit_questions(_items(rows))

    def of_rows(rows: Rows) -> list[Answer]:
        items = _items(rows)
        return [Answer(one.context[a:b], True) for one, (a, b, _) in zip(items, predict(items), strict=True)]

    return Fitted(of_rows, ("the baseline points at words near those of the question",))
