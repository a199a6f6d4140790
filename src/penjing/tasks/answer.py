"""Answers to questions that stand in a given text: where they begin and end, or that there is none.

Legend: S windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from penjing.answering import best_threshold, difference_of, judged, scores_of
from penjing.data import contexts, questions, taught
from penjing.data.questions import Question
from penjing.data.split import split
from penjing.errors import DataError, SpecError
from penjing.models.heads import TagHead
from penjing.models.load import Base
from penjing.models.spans import best_spans, losses, padded
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Each, Task

HAN = 0.3  # share of Chinese characters in answers from which on CMRC's rules are taken


@dataclass(frozen=True)
class Said:
    """The best span of a text as an answer. `doubt`: how much higher "no answer" scores; `sure` and
    `none_sure`: probabilities of the span and of none, in 0..1."""

    text: str
    start: int
    end: int
    doubt: float
    sure: float
    none_sure: float


def answer(
    *,
    longest: int = 30,
    overlap: float = 0.25,
    question: int = 64,
    rules: Literal["auto", "squad", "cmrc"] = "auto",
    head_dropout: float = 0.1,
) -> Task:
    """Find the answer to a question in a text, or say that it holds none.

    longest: tokens of an answer, at most. overlap: share of a window that neighbouring windows of a long text
    have in common, at least `longest` tokens. question: tokens of a question that are read. rules: how
    answers are compared: SQuAD's, or CMRC's for Chinese; by the train rows' answers when `auto`.
    head_dropout: before the last layer.
    """
    for name, value, most in (("overlap", overlap, 0.5), ("head_dropout", head_dropout, 0.99)):
        if not 0 <= value <= most:
            raise SpecError(
                f"`answer.{name}` must lie between 0 and {most:g}; it is {value:g}. Leave it out."
            )
    for name, size in (("longest", longest), ("question", question)):
        if size < 1:
            raise SpecError(f"`answer.{name}` must be 1 or more tokens; it is {size}. Leave it out.")
    own = "squad" if rules == "auto" else rules

    def label_names(rows: Rows) -> list[str]:
        if not any(right.start >= 0 for one in items_of(rows) for right in one.answers):
            raise DataError(
                f"At least one answer that stands in its text was wanted in the train rows; {len(rows):,} "
                "rows hold none. Check `data.label` (the column of answers), or add rows with answers."
            )
        return []

    def encode(rows: Rows, names: list[str]) -> np.ndarray:
        targets = np.empty(len(rows), dtype=object)
        for i, one in enumerate(items_of(rows)):
            targets[i] = tuple(right.text for right in one.answers)
        return targets

    def measure(rows: Rows, names: list[str]) -> Task:
        if rules != "auto":
            return task
        signs = "".join(right.text for one in items_of(rows) for right in one.answers)
        share = sum("\u4e00" <= sign <= "\u9fa5" for sign in signs) / max(1, len(signs))
        found = {"rules": "cmrc" if share > HAN else "squad"}
        made = answer(longest=longest, overlap=overlap, question=question, head_dropout=head_dropout, **found)  # type: ignore[arg-type]
        return replace(made, settled=found)

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool) -> Part:
        laid = contexts.lay(
            base.tokenizer,
            items_of(rows),
            max_length=max_length,
            overlap=overlap,
            longest=longest,
            most_question=question,
            last=base.kind == "decoder",
            labelled=labelled,
        )
        rows = replace(rows, items=list(laid.items), notes=(*rows.notes, *laid.notes))
        targets = encode(rows, names) if labelled else np.zeros(len(rows), dtype=np.int64)
        weights = laid.weights if labelled else None
        return Part(rows, laid.tokens, targets, weights, owners=laid.owners, marks=laid.marks)

    def head(width: int, names: list[str], pooling: str, dense: nn.Linear | None) -> nn.Module:
        return TagHead(width, 2, dropout=head_dropout)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        scores, marks = scored(model, batch)
        each = losses(scores, marks[:, : contexts.FIRST])
        if batch.weights is not None:
            each = each * batch.weights
        return Loss(each.sum() / max(batch.n_targets, 1.0), outputs=scores)

    def infer(model: nn.Module, each: Each, part: Part) -> list[Said]:
        def compute(batch: Batch) -> Tensor:
            scores, marks = scored(model, batch)
            return best_spans(scores, marks[:, contexts.FIRST : contexts.SHIFT], longest).double().cpu()

        found = each(part, compute)
        assert part.owners is not None
        assert part.marks is not None
        windows: list[list[tuple[list[float], np.ndarray]]] = [[] for _ in range(len(part.rows))]
        for one, row, marks in zip(found, part.owners, part.marks, strict=True):
            windows[row].append((one.tolist(), marks))
        return [_said(item, own) for item, own in zip(items_of(part.rows), windows, strict=True)]

    def tune(found: list[Said], targets: np.ndarray) -> dict[str, Any]:
        if all(len(right) for right in targets):
            return {}
        doubt = np.array([one.doubt for one in found])
        return {"most_doubt": best_threshold([one.text for one in found], doubt, list(targets), own)}

    def score(
        found: list[Said], targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        return scores_of(_told(found, chosen), list(targets), own, seed)

    def mistakes(
        found: list[Said], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
    ) -> list[dict[str, Any]]:
        wrong = []
        for i, (one, told) in enumerate(zip(found, _told(found, chosen), strict=True)):
            exact, f1 = judged(told, targets[i], own)
            if exact < 1:
                item = items_of(rows)[i]
                wrong.append(
                    {
                        "where": rows.where(i),
                        "text": f"{item.question} — {_around(item, one)}",
                        "given": " / ".join(dict.fromkeys(targets[i])) or "(no answer)",
                        "predicted": told or "(no answer)",
                        "confidence": (one.sure if told else one.none_sure) * (1 - f1),
                    }
                )
        return wrong

    def versus(
        ours: list[Said],
        theirs: list[Said],
        targets: np.ndarray,
        chosen: dict[str, Any],
        their_chosen: dict[str, Any],
        seed: int,
    ) -> tuple[float, tuple[float, float]]:
        told = _told(ours, chosen), _told(theirs, their_chosen)
        return difference_of(*told, list(targets), own, seed)

    task = Task(
        name="answer",
        rows=questions.read,
        ask=questions.asked,
        label_names=label_names,
        encode=encode,
        draw=_by_context,
        groups=_contexts,
        measure=measure,
        part=part,
        learned=_learned,
        head=head,
        loss=loss,
        infer=infer,
        tune=tune,
        score=score,
        answers=_answers,
        say=lambda one: f"{one['answer'] or '(no answer)'}\t{one['confidence']:.3f}",
        mistakes=mistakes,
        difference=versus,
        baseline=_baseline,
        reference=_reference,
        teach=taught.questions(placing=True),
        best="f1",
    )
    return task


def items_of(rows: Rows) -> list[Question]:
    """The questions of rows."""
    assert rows.items is not None
    return rows.items


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """(S, 2, L) scores of begins and ends of a batch, and its marks."""
    logits, _ = model(batch)
    assert batch.marks is not None
    return padded(logits, batch.lengths, batch.marks[:, contexts.FIRST : contexts.SHIFT]), batch.marks


def _said(item: Question, windows: list[tuple[list[float], np.ndarray]]) -> Said:
    """The best span of all windows; "no answer" scores as in the window where it scores least."""
    best, marks = max(windows, key=lambda one: one[0][0])
    score, begin, end, _, sure, none_sure = best
    nothing = min(one[0][3] for one in windows)
    if not np.isfinite(score):  # a window without a piece of the text
        return Said("", 0, 0, 0.0, 0.0, float(none_sure))
    shift = int(marks[contexts.SHIFT] - marks[contexts.FIRST])
    start, stop = item.pieces[int(begin) + shift][0], item.pieces[int(end) + shift][1]
    return Said(item.context[start:stop], start, stop, nothing - score, sure, none_sure)


def _told(found: Sequence[Said], chosen: dict[str, Any]) -> list[str]:
    """The answers; empty where there is said to be none."""
    most = chosen.get("most_doubt")
    return [one.text if most is None or one.doubt <= most else "" for one in found]


def _answers(found: list[Said], names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
    answers = []
    for one, told in zip(found, _told(found, chosen), strict=True):
        place = {"start": one.start, "end": one.end} if told else {"start": None, "end": None}
        answers.append({"answer": told, **place, "confidence": one.sure if told else one.none_sure})
    return answers


def _around(item: Question, one: Said, most: int = 160) -> str:
    """The text near the answer that was given."""
    first = max(0, one.start - most)
    last = min(len(item.context), one.end + most)
    return ("…" if first else "") + item.context[first:last] + ("…" if last < len(item.context) else "")


def _contexts(rows: Rows) -> np.ndarray:
    """(n,) which rows ask of one text; of fewer than ten texts each row is by itself."""
    texts = np.array([one.context for one in items_of(rows)], dtype=object).astype(str)
    kinds, groups = np.unique(texts, return_inverse=True)
    return groups if len(kinds) >= 10 else np.arange(len(rows))


def _by_context(
    train: Rows, valid: Rows | None, names: list[str], share: float, seed: int
) -> tuple[Rows, Rows, tuple[str, ...]]:
    """Where no validation rows are given: whole texts are held out, as questions about one text help each
    other."""
    if valid is not None:
        return train, valid, ()
    groups = _contexts(train)
    kept, held = split(train, share=share, seed=seed, groups=groups)
    what = "of texts of their own " if len(np.unique(groups)) < len(train) else ""
    note = (
        f"{len(held):,} of {len(train):,} train rows {what}are held out for validation (`data.valid_share`)"
    )
    return train.take(kept), train.take(held), (note,)


def _learned(part: Part, sequence: int, names: list[str]) -> tuple[str, list[str]]:
    """The answer in this window, and which tokens begin and end it."""
    assert part.marks is not None
    assert part.owners is not None
    start, end, _, _, none, _ = (int(x) for x in part.marks[sequence])
    size = int(part.tokens.lengths[sequence])
    each = [""] * size
    for place, word in ((end, "end"), (start, "begin")):
        each[place] = "begin and end" if start == end else word
    item = items_of(part.rows)[int(part.owners[sequence])]
    if start == none:
        each[none] = "no answer"
        return "no answer in this window", each
    return next(right.text for right in item.answers if right.start >= 0), each


def _baseline(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Callable[[Rows], list[Said]]:
    from penjing.baselines.questions import fit_questions

    predict = fit_questions(items_of(rows))

    def of_rows(rows: Rows) -> list[Said]:
        items = items_of(rows)
        return [
            Said(item.context[a:b], a, b, 1 - 2 * met, met, 1 - met)
            for item, (a, b, met) in zip(items, predict(items), strict=True)
        ]

    return of_rows


def _reference(part: Part, names: list[str]) -> dict[str, Any]:
    """What a watch for drift compares with: how many windows a question takes, and whether it is answered."""
    sizes = [len(right[0]) for right in part.targets if len(right)]
    return {
        "windows_a_row": len(part) / max(1, len(part.rows)),
        "answered_share": len(sizes) / max(1, len(part.rows)),
        "answer_characters": float(np.median(sizes)) if sizes else 0.0,
    }
