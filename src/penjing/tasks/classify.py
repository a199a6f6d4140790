"""Text classification: one label a row, or any number of them.

Legend: S sequences (rows), C classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data import taught
from penjing.data.labels import LISTING, split_label
from penjing.errors import DataError, SpecError, nearest
from penjing.models.heads import ClassHead
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Fitted, Task


def classify(
    *,
    multi_label: bool = False,
    labels: list[str] | None = None,
    pooling: Literal["auto", "cls", "mean", "last"] = "auto",
    head_dropout: float = 0.1,
    label_smoothing: float = 0.0,
    class_weights: Literal["balanced"] | dict[str, float] | None = None,
) -> Task:
    """Give each text one label, or with `multi_label` any number of them.

    labels: their names in order; those of the train rows, sorted, when not given. pooling: how the sequence
    is summed up; `auto` is what the base's family wants. head_dropout: before the last layer.
    label_smoothing: share of the target spread over all classes (0 to 1). class_weights: `balanced` weighs
    classes by n / (C n_c), or a weight a label.
    """
    check_settings("classify", labels, head_dropout, label_smoothing)
    if class_weights is not None and multi_label:
        raise SpecError(
            "`classify.class_weights` weighs single labels; with `multi_label: true` it would be ignored. "
            "Drop one."
        )

    best = "macro_f1" if multi_label else "accuracy"

    def label_names(rows: Rows) -> list[str]:
        found = sorted({name for row in rows.labels for name in row}, key=_natural)
        if labels is not None:
            extra = [n for n in found if n not in labels]
            if extra:
                raise _unseen(rows, extra[0], labels, "`classify.labels`")
            found = list(labels)
        wanted = 1 if multi_label else 2
        if len(found) < wanted:
            only = f"only `{found[0]}`" if found else "none"
            least = "one label was" if multi_label else "two classes were"
            raise DataError(
                f"At least {least} wanted in the train rows; {len(rows):,} rows hold {only}. Check "
                f"`data.label` (the column the labels are read from) or add rows with other labels."
            )
        return found

    def encode(rows: Rows, names: list[str]) -> np.ndarray:
        place = {name: i for i, name in enumerate(names)}
        if multi_label:
            marks = np.zeros((len(rows), len(names)), dtype=np.float32)
            for i, row in enumerate(rows.labels):
                for name in row:
                    if name not in place:
                        raise _unseen(rows, name, names, "training", i)
                    marks[i, place[name]] = 1.0
            return marks
        targets = np.empty(len(rows), dtype=np.int64)
        for i, row in enumerate(rows.labels):
            if len(row) != 1:
                raise DataError(
                    f"{rows.where(i)}: one label was wanted; the row has {len(row)} ({', '.join(row)}). "
                    f"For several labels a row say `task: {{classify: {{multi_label: true}}}}`."
                )
            if row[0] not in place:
                raise _unseen(rows, row[0], names, "training", i)
            targets[i] = place[row[0]]
        return targets

    weights_C: Tensor | None = None  # set by `weigh`: label smoothing needs those of the other classes, too

    def weigh(targets: np.ndarray, names: list[str]) -> np.ndarray | None:
        nonlocal weights_C
        if class_weights is None:
            return None
        if class_weights == "balanced":
            counts = np.maximum(np.bincount(targets, minlength=len(names)), 1)
            each = len(targets) / (len(names) * counts)
        else:
            for name, weight in class_weights.items():
                if name not in names or not 0 < weight < float("inf"):
                    raise SpecError(
                        f"`classify.class_weights` gives `{name}` the weight {weight}; wanted are positive "
                        f"weights of labels of the train rows.{nearest(name, names)}"
                    )
            each = np.array([class_weights.get(name, 1.0) for name in names])
        weights_C = torch.from_numpy(each.astype(np.float32))
        return np.asarray(each[targets], dtype=np.float32)

    def head(width: int, names: list[str], base_pooling: str, dense: nn.Linear | None) -> nn.Module:
        how = base_pooling if pooling == "auto" else pooling
        return ClassHead(
            width, len(names), pooling=how, dropout=head_dropout, dense=dense if how == "cls" else None
        )

    def loss(model: nn.Module, batch: Batch) -> Loss:
        logits = model(batch).float()  # (S, C)
        assert batch.labels is not None
        if multi_label:
            targets = batch.labels.float()
            if label_smoothing:
                targets = targets * (1 - label_smoothing) + 0.5 * label_smoothing
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
        else:
            each = _cross_entropy(
                logits, batch.labels, label_smoothing, weights_C if batch.weights is not None else None
            )
        if batch.weights is not None:
            each = each * batch.weights
        return Loss(each.sum() / batch.n_targets, outputs=logits)

    def probabilities(logits: Tensor) -> np.ndarray:
        p = torch.sigmoid(logits) if multi_label else logits.softmax(-1)
        return p.double().cpu().numpy()

    def tune(p: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        if not multi_label:
            return {}
        from penjing.measures import best_thresholds

        return {"thresholds": [float(t) for t in best_thresholds(p, targets > 0.5)]}

    def score(
        p: np.ndarray, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
    ) -> Scores:
        from penjing import measures

        if multi_label:
            return measures.multi_label(p, targets > 0.5, names, _thresholds(chosen, len(names)), seed)
        return measures.single_label(p, targets, names, seed)

    def answers(p: np.ndarray, names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
        if multi_label:
            limits = _thresholds(chosen, len(names))
            return [
                {
                    "labels": [names[c] for c in np.flatnonzero(row >= limits)],
                    "confidence": float(np.where(row >= limits, row, 1 - row).min()),
                    "scores": {n: float(x) for n, x in zip(names, row, strict=True)},
                }
                for row in p
            ]
        best = p.argmax(1)
        return [
            {
                "label": names[c],
                "confidence": float(row[c]),
                "scores": {n: float(x) for n, x in zip(names, row, strict=True)},
            }
            for c, row in zip(best, p, strict=True)
        ]

    def decide(p: np.ndarray, chosen: dict[str, Any]) -> np.ndarray:
        return np.asarray(p >= _thresholds(chosen, p.shape[1])) if multi_label else _marks(p.argmax(1), p)

    def difference(
        ours: np.ndarray,
        theirs: np.ndarray,
        targets: np.ndarray,
        chosen: dict[str, Any],
        their_chosen: dict[str, Any],
        seed: int,
    ) -> tuple[float, tuple[float, float]]:
        from penjing.intervals import paired_difference

        truth = np.asarray(targets > 0.5) if multi_label else _marks(targets, ours)
        return paired_difference(truth, decide(ours, chosen), decide(theirs, their_chosen), best, seed=seed)

    def mistakes(
        p: np.ndarray, rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
    ) -> list[dict[str, Any]]:
        found = []
        for row, answer in enumerate(answers(p, names, chosen)):
            predicted = answer["labels"] if multi_label else [answer["label"]]
            if set(predicted) != set(rows.labels[row]):
                found.append(
                    {
                        "where": rows.where(row),
                        "text": rows.texts[row][:600],
                        "given": ", ".join(rows.labels[row]),
                        "predicted": ", ".join(predicted) or "none",
                        "confidence": answer["confidence"],
                    }
                )
        return found

    def baseline(
        rows: Rows, targets: np.ndarray, names: list[str], seed: int
    ) -> Callable[[Rows], np.ndarray]:
        from penjing.baseline import fit_baseline

        fitted = fit_baseline(rows.texts, targets, len(names), multi_label=multi_label, seed=seed)
        return Fitted(lambda rows: fitted(rows.texts), fitted.notes)

    def reference(part: Part, names: list[str]) -> dict[str, Any]:
        marks = part.targets if multi_label else np.eye(len(names))[part.targets]
        return {"label_shares": {n: float(s) for n, s in zip(names, marks.mean(0), strict=True)}}

    return Task(
        name="classify",
        label_names=label_names,
        encode=encode,
        weigh=weigh,
        head=head,
        loss=loss,
        probabilities=probabilities,
        tune=tune,
        score=score,
        answers=answers,
        mistakes=mistakes,
        difference=difference,
        baseline=baseline,
        reference=reference,
        untuned=None if multi_label else "names",
        best=best,
        multi_label=multi_label,
        teach=taught.texts(multi_label=multi_label),
        outputs="marks" if multi_label else "classes",
    )


def check_settings(name: str, labels: list[str] | None, head_dropout: float, label_smoothing: float) -> None:
    """Settings that every task with one label of the whole has.

    Raises:
        SpecError: a share out of its range, or a label named twice.
    """
    for key, value in (("label_smoothing", label_smoothing), ("head_dropout", head_dropout)):
        if not 0 <= value < 1:
            raise SpecError(f"`{name}.{key}` must be at least 0 and below 1; it is {value}.")
    if labels is not None and len(set(labels)) < len(labels):
        double = next(one for one in labels if labels.count(one) > 1)
        raise SpecError(f"`{name}.labels` names `{double}` twice; each label is named once. Drop one.")


def _marks(classes: np.ndarray, like: np.ndarray) -> np.ndarray:
    """(S, C) True at each row's class."""
    return np.asarray(classes[:, None] == np.arange(like.shape[1]))


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, weights_C: Tensor | None) -> Tensor:
    """Cross-entropy a row, (S,), yet to be multiplied by the row's own weight.

    As in torch, each class's part of a smoothed target has that class's weight.
    """
    if not smoothing or weights_C is None:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    weights_C = weights_C.to(logits)
    each = F.cross_entropy(logits, labels, weights_C, reduction="none", label_smoothing=smoothing)
    return each / weights_C[labels]


def _thresholds(chosen: dict[str, Any], n: int) -> np.ndarray:
    return np.asarray(chosen.get("thresholds") or [0.5] * n, dtype=np.float64)


def _natural(name: str) -> tuple[int, float, str]:
    """Numbers in their order, then words in theirs."""
    return (0, float(name), name) if re.fullmatch(r"-?\d+(\.\d+)?", name) else (1, 0.0, name)


def _unseen(rows: Rows, name: str, known: list[str], where: str, row: int | None = None) -> DataError:
    at = next(i for i, r in enumerate(rows.labels) if name in r) if row is None else row
    there = set(known)
    others = sum(1 for names in rows.labels if not there.issuperset(names))
    listed = f" ({', '.join(known)})" if len(known) <= 8 else ""
    sign = next((sign for sign in LISTING if sign in name and there.issuperset(split_label(name, sign))), "")
    several = f' What `{sign}` parts is: where cells hold several labels, say `delimiter: "{sign}"`.'
    return DataError(
        f"{rows.where(at)}: the label `{name}` is not among the {len(known)} labels of "
        f"{where}{listed}.{several if sign else nearest(name, known)} {others:,} of {len(rows):,} rows have "
        "such a label. "
        "Mend them, leave them out, or train with them; where all are named in the task's `labels`, such "
        "rows count as wrong."
    )
