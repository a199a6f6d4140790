"""Classification without training: the base is asked for the labels by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from penjing.data.shots import descriptions, named
from penjing.errors import SpecError, nearest
from penjing.models.asking import Asked, ask
from penjing.models.load import Base
from penjing.models.queries import read
from penjing.models.verbalizers import SHARPNESS, NearestHead, WordHead
from penjing.records import Rows, Tokens
from penjing.task import Over, Task
from penjing.tasks.classify import classify

NEUTRAL = ("N/A", "...", "-")  # texts without content, whose answers are the prompt's own leaning


def zero_shot(
    *,
    how: Literal["auto", "mask", "causal", "entail", "nearest"] = "auto",
    labels: list[str] | None = None,
    words: dict[str, str] | None = None,
    templates: list[str] | None = None,
    hypothesis: str | None = None,
    calibrate: bool = True,
    multi_label: bool = False,
) -> Task:
    """Label texts without training: the base is asked for the labels by name.

    how: by the words at a mask, the words that follow, entailment or the nearest label description; `auto` is
    what the base was made for. labels: their names; those of the train rows when not given. words: what a
    label is called when asked for; its name, blanks for underscores, when not given. templates: prompts with
    `{text}` and `{mask}`, ensembled (mask, causal). hypothesis: sentence with `{}` for the label (entail).
    calibrate: take off what the prompts answer to texts without content (mask, causal). multi_label: any
    number of labels, each judged by itself (entail).
    """
    plain = classify(multi_label=multi_label, labels=labels)

    def label_names(rows: Rows) -> list[str]:
        if labels is None and not len(rows):
            raise SpecError(
                "`zero_shot.labels` must name the labels where no rows do; it is empty. Say `--set "
                "task.labels=[billing,delivery]`, or give labelled rows with `--train` or `--test`."
            )
        return plain.label_names(rows)

    def draw(
        rows: Rows, valid: Rows | None, names: list[str], share: float, seed: int
    ) -> tuple[Rows, Rows, tuple[str, ...]]:
        called = descriptions(named(names, check_words(words, names)))
        scored = valid if valid is not None else rows if len(rows) else called
        return called, scored, ("nothing is learned from the rows: they name the labels and are scored",)

    task = replace(plain, name="zero_shot", label_names=label_names, draw=draw, learns=False)

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        asked = ask(
            base,
            named(names, check_words(words, names)),
            how=how,
            templates=templates,
            hypothesis=hypothesis,
            multi_label=multi_label,
            weights=weights,
        )

        def fit(model: nn.Module, over: Over, tokens: Tokens, targets: np.ndarray) -> None:
            head: Any = model.head
            states: Any = model.states
            if isinstance(head, NearestHead):
                _be_centroids(model, over, tokens, targets)
            elif isinstance(head, WordHead) and calibrate:
                head.prior.zero_()
                neutral = read(base.tokenizer, NEUTRAL, asked.queries, base.limit)
                head.calibrate(over(neutral, lambda b: head.scores(states(b), b.lengths)))

        return replace(bound(task, asked, base), fit=fit, bind=bind)

    return replace(task, bind=bind)


def bound(task: Task, asked: Asked, base: Base) -> Task:
    """The task with what `asked` decides: head, reading, and what is told of it."""

    def reading(texts: Sequence[str], max_length: int) -> Tokens:
        return read(base.tokenizer, texts, asked.queries, max_length)

    return replace(
        task,
        head=lambda width, names, pooling, dense: asked.head(pooling),
        read=reading if asked.queries else None,
        untuned="own" if asked.queries else task.untuned,
        settled={"how": asked.how},
        notes=(asked.about,),
    )


def check_words(words: Mapping[str, str] | None, names: Sequence[str]) -> Mapping[str, str] | None:
    """`words`, looked at.

    Raises:
        SpecError: a label has none, or there is no such label.
    """
    if words is None:
        return None
    extra = next((label for label in words if label not in names), None)
    lacking = next((label for label in names if not words.get(label, "").strip()), None)
    if extra is not None:
        raise SpecError(
            f"`words` names the label `{extra}`; the labels are "
            f"{', '.join(names[:8])}.{nearest(extra, names)} Mend or drop it."
        )
    if lacking is not None:
        raise SpecError(
            f"`words` must say what each of the {len(names)} labels is called; `{lacking}` has none. Add "
            f"it, or leave `words` out to take the names."
        )
    return words


def _be_centroids(model: nn.Module, over: Over, tokens: Tokens, targets: np.ndarray) -> None:
    """Weights: the mean of each class's rows, here of its description; logits: cosines, sharpened."""
    head: Any = model.head
    states: Any = model.states
    embedded = over(tokens, lambda b: head.embed(states(b), b.lengths))
    n_classes = head.out.out_features
    sums = torch.zeros(n_classes, embedded.shape[1]).index_add(0, torch.from_numpy(targets), embedded)
    head.put(SHARPNESS * nn.functional.normalize(sums, dim=1).numpy(), np.zeros(n_classes))
