"""Multiple choice: what is asked is read with each choice, and the likeliest is taken.

Legend: S rows, Q choices of the row that has most, T tokens, n sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data import taught
from penjing.data.choices import asked_choices, read_choices
from penjing.data.tokenize import has_pair_frame, in_parts, tokenize
from penjing.errors import DataError, SpecError
from penjing.models.asking import way_of
from penjing.models.continuations import Continuations, read_continuations, token_scores
from penjing.models.heads import ClassHead
from penjing.models.load import Base
from penjing.models.own_head import own_head
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Each, Fitted, Task
from penjing.tasks.regress import refuse_delimiter


def choose(
    *,
    how: Literal["cross", "likelihood"] = "cross",
    first: Literal[0, 1] | None = None,
    pooling: Literal["auto", "cls", "mean", "last"] = "auto",
    head_dropout: float = 0.1,
) -> Task:
    """Choose the right one of several choices (COPA, ARC, HellaSwag), as many as each row has.

    how: `cross` reads what is asked with each choice and learns a score; `likelihood` trains nothing and
    takes the choice whose words a language model finds likeliest, by their mean. first: as which number rows
    count the first choice; as each file seems to when not given, or
    the train rows where it does not tell. pooling, head_dropout: as in
    `classify`.
    """
    if not 0 <= head_dropout < 1:
        raise SpecError(f"`choose.head_dropout` must be at least 0 and below 1; it is {head_dropout}.")

    def rows(source: Any, *, delimiter: str | None = None, **reading: Any) -> Rows:
        refuse_delimiter(delimiter)
        return read_choices(source, first=first, **reading)

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
        items = rows.items or ()
        lead = "" if has_pair_frame(base.tokenizer) else "\n"
        asked = [item[0] for item in items for _ in item[1]]
        choices = [lead + one for item in items for one in item[1]]
        tokens = tokenize(base.tokenizer, asked, max_length=max_length, cache=False, seconds=choices)
        tokens = in_parts(tokens, [len(item[1]) for item in items])
        return Part(rows, tokens, encode(rows, names) if labelled else np.zeros(len(rows), np.int64))

    def head(width: int, names: list[str], base_pooling: str, dense: nn.Linear | None) -> nn.Module:
        own = base_pooling if pooling == "auto" else pooling
        return ClassHead(width, 1, pooling=own, dropout=head_dropout, dense=dense if own == "cls" else None)

    task = Task(
        name="choose",
        rows=rows,
        ask=asked_choices,
        part=part,
        encode=encode,
        head=head,
        loss=_loss,
        infer=_infer,
        score=_score,
        answers=_answers,
        say=lambda answer: f"{answer['choice']}\t{answer['confidence']:.3f}",
        mistakes=_mistakes,
        difference=_difference,
        baseline=_baseline,
        teach=taught.choices(),
        best="accuracy",
    )
    return _by_likelihood(task) if how == "likelihood" else task


@dataclass(frozen=True)
class Chosen:
    """A row's choices, and how likely each is the right one."""

    choices: tuple[str, ...]
    p: np.ndarray  # (Q,), sums to 1


def encode(rows: Rows, names: list[str]) -> np.ndarray:
    """(S,) places of the right choices.

    Raises:
        DataError: a row does not say which is right.
    """
    places = [item[2] for item in rows.items or ()]
    lacking = next((i for i, place in enumerate(places) if place is None), None)
    if lacking is not None:
        raise DataError(
            f"{rows.where(lacking)}: it was to be told which choice is right; the row does not. Fill it, or "
            f"leave the row out."
        )
    return np.asarray(places, dtype=np.int64)


def _scores(model: nn.Module, batch: Batch) -> Tensor:
    """(S, Q) scores of the choices, -inf where a row has fewer."""
    flat = model(batch).float().reshape(-1)  # (n,)
    ends = batch.ends()
    own = [flat[a:b] for a, b in pairwise(ends)]
    return nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=float("-inf"))


def _loss(model: nn.Module, batch: Batch) -> Loss:
    assert batch.labels is not None
    scores = _scores(model, batch)
    each = F.cross_entropy(scores, batch.labels, reduction="sum")
    return Loss(each / batch.n_targets, outputs=scores.flatten()[torch.isfinite(scores.flatten())])


def _infer(model: nn.Module, each: Each, part: Part) -> list[Chosen]:
    found = each(part, lambda batch: _scores(model, batch).double().softmax(-1).cpu())
    items = part.rows.items or ()
    return [Chosen(item[1], p.numpy()[: len(item[1])]) for item, p in zip(items, found, strict=True)]


def _score(
    found: Sequence[Chosen], targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
) -> Scores:
    from penjing.intervals import bootstrap
    from penjing.measures import TINY, calibration

    right, p = _right(found, targets), np.array([one.p[t] for one, t in zip(found, targets, strict=True)])
    truth = np.ones((len(right), 1), bool)
    ece, reliability = calibration(np.array([one.p.max() for one in found]), right)
    values = {
        "accuracy": float(right.mean()),
        "ece": ece,
        "nll": float(-np.log(np.maximum(p, TINY)).mean()),
    }
    return Scores(
        values,
        bootstrap(truth, right[:, None], ("accuracy",), seed=seed),
        {"reliability": reliability},
    )


def _right(found: Sequence[Chosen], targets: np.ndarray) -> np.ndarray:
    """(S,) whether the right choice was taken."""
    return np.array([int(one.p.argmax()) == t for one, t in zip(found, targets, strict=True)])


def _difference(
    ours: Sequence[Chosen],
    theirs: Sequence[Chosen],
    targets: np.ndarray,
    chosen: dict[str, Any],
    their_chosen: dict[str, Any],
    seed: int,
) -> tuple[float, tuple[float, float]]:
    from penjing.intervals import paired_difference

    both = _right(ours, targets)[:, None], _right(theirs, targets)[:, None]
    return paired_difference(np.ones((len(targets), 1), bool), *both, "accuracy", seed=seed)


def _answers(found: Sequence[Chosen], names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "choice": one.choices[int(one.p.argmax())],
            "index": int(one.p.argmax()),
            "confidence": float(one.p.max()),
            "scores": [float(x) for x in one.p],
        }
        for one in found
    ]


def _mistakes(
    found: Sequence[Chosen], rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    return [
        {
            "where": rows.where(i),
            "text": rows.texts[i][:600],
            "given": one.choices[targets[i]],
            "predicted": one.choices[int(one.p.argmax())],
            "confidence": float(one.p.max()),
        }
        for i, one in enumerate(found)
        if int(one.p.argmax()) != targets[i]
    ]


def _baseline(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Callable[[Rows], list[Chosen]]:
    """The choice that TF-IDF and a linear model find likeliest to follow; the first, without train rows."""
    from penjing.baselines.pairs import fit_classes_of_pairs

    def pairs(rows: Rows) -> list[tuple[str, str]]:
        return [(item[0], one) for item in rows.items or () for one in item[1]]

    right = [
        int(k == t) for item, t in zip(rows.items or (), targets, strict=True) for k in range(len(item[1]))
    ]
    fitted = fit_classes_of_pairs(pairs(rows), np.array(right), 2, seed) if len(rows) else None

    def of_rows(rows: Rows) -> list[Chosen]:
        p = fitted[0](pairs(rows))[:, 1] if fitted else np.ones(sum(len(i[1]) for i in rows.items or ()))
        ends = np.cumsum([len(item[1]) for item in rows.items or ()])
        own = np.split(p, ends[:-1])
        return [
            Chosen(item[1], (x + 1e-9) / (x + 1e-9).sum())
            for item, x in zip(rows.items or (), own, strict=True)
        ]

    return Fitted(of_rows, fitted[1] if fitted else ())


# ---- by likelihood


def _by_likelihood(task: Task) -> Task:
    """The task without training: choices by how likely their words are."""

    def draw(
        rows: Rows, valid: Rows | None, names: list[str], share: float, seed: int
    ) -> tuple[Rows, Rows, tuple[str, ...]]:
        scored = valid if valid is not None else rows
        if not len(scored):
            raise SpecError(
                "`choose` by likelihood learns nothing, yet wants rows to score beside the test rows; there "
                "are none. Give some with `--valid` or `--train`."
            )
        return rows if len(rows) else scored, scored, ("nothing is learned from the rows: they are scored",)

    task = replace(task, draw=draw, learns=False)

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        kind = way_of(base)
        if kind not in ("mask", "causal"):
            raise SpecError(
                f"`choose.how` is likelihood, which a language model tells; `{base.name}` was made for "
                f"`{kind}`. Take a masked or causal language model as base, or `how: cross`."
            )

        def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
            items = [(item[0], item[1]) for item in rows.items or ()]
            tokens, owners, places = read_continuations(base.tokenizer, items, kind, max_length)
            targets = encode(rows, names) if labelled else np.zeros(len(rows), np.int64)
            return Part(rows, tokens, targets, owners=owners, marks=places)

        return replace(
            task,
            part=part,
            head=lambda width, names, pooling, dense: Continuations(own_head(base, kind, weights=weights)),
            infer=_infer_likelihood,
            bind=bind,
            notes=(f"choices are judged by the base's own words (`{kind}`)",),
        )

    return replace(task, bind=bind)


def _infer_likelihood(model: Any, each: Each, part: Part) -> list[Chosen]:
    """Softmax over the choices' mean log-probability of a token."""
    assert part.owners is not None
    assert part.marks is not None
    found = np.array(each(part, lambda batch: token_scores(model.head, model.states(batch), batch)))  # (n, 2)
    items = part.rows.items or ()
    widest = max((len(item[1]) for item in items), default=0)
    sums, counts = np.zeros((len(items), widest)), np.zeros((len(items), widest))
    np.add.at(sums, (part.owners, part.marks), found[:, 0])
    np.add.at(counts, (part.owners, part.marks), found[:, 1])
    chosen = []
    for i, item in enumerate(items):
        n = len(item[1])
        mean = sums[i, :n] / np.maximum(counts[i, :n], 1)
        p = np.exp(mean - mean.max())
        chosen.append(Chosen(item[1], p / p.sum()))
    return chosen
