"""Classification from a few rows a class: by prompts that are tuned, or by contrast and a solved-for head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import nn
from torch.nn import functional as F

from penjing.baseline import unwarned
from penjing.data import shots as drawing
from penjing.data.batches import in_pairs
from penjing.data.split import split
from penjing.errors import DataError, SpecError
from penjing.models.asking import ask
from penjing.models.contrast import supervised_contrast
from penjing.models.load import Base
from penjing.records import Batch, Loss, LossFunction, Rows, Tokens
from penjing.task import Fit, Over, Task
from penjing.tasks.classify import classify
from penjing.tasks.zero_shot import bound, check_words

# What `train` says where the spec says nothing: a few steps over as many rows as a step can compare.
TRAIN = {"steps": 20, "batch": 256, "evals": 2}


def few_shot(
    *,
    how: Literal["auto", "mask", "causal", "entail", "nearest"] = "auto",
    shots: int | None = None,
    labels: list[str] | None = None,
    words: dict[str, str] | None = None,
    templates: list[str] | None = None,
    hypothesis: str | None = None,
    describe: bool = True,
    tune: bool = True,
    temperature: float = 0.05,
    strength: float = 30.0,
) -> Task:
    """Label texts after a few examples a class: prompts are tuned, or sentences of a class drawn together.

    how: as in `zero_shot`. shots: rows a class to learn from, and as many others to choose on; all rows, when
    not given. labels: their names; those of the train rows when not given. words: what a label is called when
    asked for or described. templates: prompts with `{text}` and `{mask}` (mask, causal). hypothesis: sentence
    with `{}` for the label (entail). describe: each label's words are one more example of it (nearest). tune:
    without it the base stays as it is and only the head is fitted (nearest). temperature: of the contrast
    (nearest). strength: C of the head's logistic regression, the inverse of its penalty (nearest).
    """
    if shots is not None and shots < 1:
        raise SpecError(f"`few_shot.shots` must be at least 1; it is {shots}. 8, 16 and 32 are usual.")
    for name, value in (("temperature", temperature), ("strength", strength)):
        if not value > 0:
            raise SpecError(
                f"`few_shot.{name}` must be above 0; it is {value}. Leave it out for the default."
            )

    def draw(
        rows: Rows, valid: Rows | None, names: list[str], share: float, seed: int
    ) -> tuple[Rows, Rows, tuple[str, ...]]:
        called = drawing.named(names, check_words(words, names))
        if shots is None:
            kept, held = np.arange(len(rows)), np.arange(0)
            if valid is None:
                kept, held = split(rows, share=share, seed=seed)
            notes = [f"{len(held):,} of {len(rows):,} train rows are held out for validation"]
        else:
            kept, held = drawing.draw(rows, shots=shots, seed=seed, valid=valid is None)
            notes = [
                f"{len(kept):,} of {len(rows):,} train rows are taken, {shots} a label (`few_shot.shots`)"
            ]
            notes += [f"{len(held):,} others are taken for validation"] if valid is None else []
        train = rows.take(kept)
        if describe:
            train = drawing.joined(train, drawing.descriptions(called))
            notes.append(f"the words of the {len(names)} labels are one more train row each")
        return train, rows.take(held) if valid is None else valid, tuple(notes)

    task = replace(classify(labels=labels), name="few_shot", draw=draw, teach=None)

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        called = drawing.named(names, check_words(words, names))
        asked = ask(base, called, how=how, templates=templates, hypothesis=hypothesis, weights=weights)
        made = replace(bound(task, asked, base), bind=bind)
        if asked.how == "nearest":
            return replace(
                made,
                loss=_contrast(temperature),
                fit=_solve(strength, names),
                order=in_pairs,
                joint=True,
                learns=tune,
            )
        if not tune:
            raise SpecError(
                f"`few_shot.tune` is false and the base is asked by `how: {asked.how}`, so nothing would be "
                f"learned. Take `task: zero_shot`, or `how: nearest`."
            )
        return replace(made, loss=_prompted)

    return replace(task, bind=bind)


def _contrast(temperature: float) -> LossFunction:
    """Sentences of a class are drawn together and others pushed apart (SetFit's aim, Tunstall et al. 2022,
    arXiv 2209.11055), comparing all rows of a step at once in place of drawn pairs."""

    def loss(model: nn.Module, batch: Batch) -> Loss:
        head, states = _inside(model)
        embedded = head.embed(states(batch), batch.lengths)
        assert batch.labels is not None
        each = supervised_contrast(embedded, batch.labels, temperature=temperature)
        return Loss(each.sum() / batch.n_targets, outputs=head.out(embedded))

    return loss


def _solve(strength: float, names: list[str]) -> Fit:
    """Logistic regression on the embedded train rows, put into the head.

    Raises:
        DataError: a label has no train row.
    """

    def fit(model: nn.Module, over: Over, tokens: Tokens, targets: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        lacking = [name for i, name in enumerate(names) if i not in targets]
        if lacking:
            raise DataError(
                f"A train row of each of the {len(names)} labels was wanted, to fit the head on; "
                f"`{lacking[0]}` has none. Add some, or set `few_shot.describe: true`, which takes its words "
                "for one."
            )
        head, states = _inside(model)
        embedded = over(tokens, lambda b: head.embed(states(b), b.lengths)).double().numpy()
        with unwarned():  # a label has one row or two here, as was asked
            found = LogisticRegression(C=strength, max_iter=1000).fit(embedded, targets)
        if len(found.classes_) == 2:  # one row of weights, for the second class against the first
            halves = np.array([[-0.5], [0.5]])
            head.put(halves * found.coef_, halves[:, 0] * found.intercept_)
        else:
            head.put(found.coef_, found.intercept_)

    return fit


def _prompted(model: nn.Module, batch: Batch) -> Loss:
    """Cross-entropy over the labels alone, the mean over templates (PET, Schick & Schütze 2021)."""
    head, states = _inside(model)
    scores = head.scores(states(batch), batch.lengths)  # (S, A, C)
    assert batch.labels is not None
    n_templates = scores.shape[1]
    each = F.cross_entropy(scores.flatten(0, 1), batch.labels.repeat_interleave(n_templates), reduction="sum")
    return Loss(each / n_templates / batch.n_targets, outputs=scores.log_softmax(-1).mean(1))


def _inside(model: Any) -> tuple[Any, Any]:
    """A model's head, and what gives its states."""
    return model.head, model.states
