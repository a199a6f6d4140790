"""Two texts: how they stand to each other, as a class (entailment, paraphrase, match) or as a score.

Legend: S rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data import taught
from penjing.data.batches import shuffled
from penjing.data.fields import read_fields
from penjing.data.numbers import numbers_of, pointed
from penjing.data.split import split
from penjing.data.text_pairs import asked_pairs, pair_columns
from penjing.data.tokenize import has_pair_frame, in_parts, tokenize
from penjing.errors import DataError, SpecError
from penjing.models.contrast import cosent
from penjing.models.heads import ClassHead
from penjing.models.load import Base
from penjing.models.towers import Nearness, Towers
from penjing.records import Batch, Loss, Part, Rows
from penjing.task import Fitted, Task
from penjing.tasks.classify import classify
from penjing.tasks.regress import check_range, numbers_task, refuse_delimiter

FEW_CLASSES = 20  # more labels that are numbers, some with a fraction, are scores


def pair(
    *,
    how: Literal["cross", "two_tower"] = "cross",
    scores: bool = False,
    low: float | None = None,
    high: float | None = None,
    scale: list[float] | None = None,
    ranking: bool = True,
    swap: bool = False,
    labels: list[str] | None = None,
    pooling: Literal["auto", "cls", "mean", "last"] = "auto",
    head_dropout: float = 0.1,
    class_weights: Literal["balanced"] | dict[str, float] | None = None,
) -> Task:
    """Say how two texts stand to each other: entailment, paraphrase, match (classes) or similarity (scores).

    how: `cross` reads both as one sequence, `two_tower` each by itself, so that vectors can be kept. scores:
    labels are numbers. low, high: what no score may be below or above (as in `regress`). scale: the scores
    that stand for nothing alike and for the same; `low` and `high`, else the least and greatest of the train
    rows. ranking: rows are to stand in the order of their scores (CoSENT), else each is to meet its own
    (two_tower, scores). swap: learn each train row the other way round, too. labels: their names in order.
    pooling, head_dropout, class_weights: as in `classify`.
    """
    _check(how, scores, low, high, scale, labels, class_weights)
    given: dict[str, Any] = {
        "how": how, "scores": scores, "low": low, "high": high, "scale": scale, "ranking": ranking,
        "swap": swap, "labels": labels, "pooling": pooling, "head_dropout": head_dropout,
        "class_weights": class_weights,
    }  # fmt: skip

    def rows(source: Any, *, labelled: bool = True, **reading: Any) -> Rows:
        return read_pairs(source, labelled=labelled, scores=scores, **reading)

    def part(base: Base, rows: Rows, names: list[str], max_length: int, *, labelled: bool = True) -> Part:
        firsts, seconds = [item[0] for item in rows.items or ()], [item[1] for item in rows.items or ()]
        if how == "cross":
            lead = "" if has_pair_frame(base.tokenizer) else "\n"
            tokens = tokenize(
                base.tokenizer,
                firsts,
                max_length=max_length,
                cache=False,
                seconds=[lead + b for b in seconds],
            )
        else:
            both = [text for two in zip(firsts, seconds, strict=True) for text in two]
            tokens = in_parts(tokenize(base.tokenizer, both, max_length=max_length, cache=False), 2)
        return Part(rows, tokens, task.encode(rows, names) if labelled else np.zeros(len(rows), np.int64))

    def draw(
        rows: Rows, valid: Rows | None, names: list[str], share: float, seed: int
    ) -> tuple[Rows, Rows, tuple[str, ...]]:
        train, notes = rows, []
        if valid is None:
            kept, held = split(rows, share=share, seed=seed)
            train, valid = rows.take(kept), rows.take(held)
            notes.append(f"{len(held):,} of {len(rows):,} train rows are held out for validation "
                         f"(`data.valid_share`)")  # fmt: skip
        if swap:
            train = _and_swapped(train)
            notes.append(f"each of the {len(train) // 2:,} train rows is learned the other way round, too")
        return train, valid, tuple(notes)

    def bind(base: Base, names: list[str], *, weights: bool = True) -> Task:
        if how == "two_tower" or has_pair_frame(base.tokenizer):
            return task
        note = "this tokenizer has no frame for pairs: the second text follows the first after a line end"
        return replace(task, notes=(note,))

    own = _scores(given) if scores else _classes(given)
    task = replace(
        own,
        name="pair",
        rows=rows,
        ask=asked_pairs,
        part=part,
        draw=draw,
        bind=bind,
        teach=taught.pairs(scores=scores),
    )
    return task


def read_pairs(
    source: Any,
    *,
    labelled: bool,
    scores: bool,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Pairs and their labels; scores stand with the pairs in `items`, as they are no names.

    Raises:
        DataError: no two columns of texts, an empty text or label.
    """
    refuse_delimiter(delimiter)
    found = read_fields(
        source,
        pair_columns(text=text, label=label, labelled=labelled, scores=scores),
        text=text,
        label=label,
        encoding=encoding,
        drop_empty=drop_empty,
        labelled=labelled,
    )
    if not scores:
        return found
    found = pointed(found)
    items = [(*item, own) for item, own in zip(found.items or (), found.labels, strict=True)]
    return replace(found, items=items, labels=[()] * len(found))


def _check(how: str, scores: bool, low: Any, high: Any, scale: Any, labels: Any, weights: Any) -> None:
    for name, value in (("low", low), ("high", high), ("scale", scale)):
        if value is not None and not scores:
            raise SpecError(
                f"`pair.{name}` is {value}; it belongs to scores, and `pair.scores` is false. Set `scores: "
                f"true`, or leave it out."
            )
    for name, value in (("labels", labels), ("class_weights", weights)):
        if value is not None and scores:
            raise SpecError(
                f"`pair.{name}` is given; it belongs to classes, and `pair.scores` is true. Drop one."
            )
    check_range("pair", low, high)
    if scale is not None and (len(scale) != 2 or scale[0] == scale[1]):
        raise SpecError(f"`pair.scale` must be two different numbers, such as [0, 5]; it is {scale}.")


def _and_swapped(rows: Rows) -> Rows:
    """The rows, and each once more with its texts exchanged."""
    n = len(rows)
    both = rows.take(np.concatenate([np.arange(n), np.arange(n)]))
    items = [item if i < n else (item[1], item[0], *item[2:]) for i, item in enumerate(both.items or ())]
    return replace(both, items=items, texts=[f"{item[0]}\n{item[1]}" for item in items])


# ---- classes


def _classes(given: dict[str, Any]) -> Task:
    how, pooling, dropout = given["how"], given["pooling"], given["head_dropout"]
    plain = classify(
        labels=given["labels"], pooling=pooling, head_dropout=dropout, class_weights=given["class_weights"]
    )

    def label_names(rows: Rows) -> list[str]:
        found = sorted({name for row in rows.labels for name in row})
        if len(found) > FEW_CLASSES and all(map(_is_number, found)) and any("." in name for name in found):
            raise DataError(
                f"Classes were wanted; the labels of the train rows are {len(found):,} different numbers "
                f"({', '.join(found[:4])}, …). If they are scores, say `task: {{pair: {{scores: true}}}}`; "
                f"else name another column with `label:`."
            )
        return plain.label_names(rows)

    def head(width: int, names: list[str], base_pooling: str, dense: nn.Linear | None) -> nn.Module:
        if how == "cross":
            return plain.head(width, names, base_pooling, dense)
        own = base_pooling if pooling == "auto" else pooling
        return Towers(width, len(names), pooling=own, dropout=dropout)

    def baseline(
        rows: Rows, targets: np.ndarray, names: list[str], seed: int
    ) -> Callable[[Rows], np.ndarray]:
        from penjing.baselines.pairs import fit_classes_of_pairs

        predict, notes = fit_classes_of_pairs(_texts(rows), targets, len(names), seed)
        return Fitted(lambda rows: predict(_texts(rows)), notes)

    return replace(plain, label_names=label_names, head=head, baseline=baseline, untuned=None)


# ---- scores


def _scores(given: dict[str, Any]) -> Task:
    how, low, high, scale = (given[key] for key in ("how", "low", "high", "scale"))
    near, ranking = how == "two_tower", how == "two_tower" and given["ranking"]
    declared = [low, high] if low is not None and high is not None else None
    least, most = scale or declared or (0.0, 1.0)

    def encode(rows: Rows, names: list[str]) -> np.ndarray:
        lacking = next((i for i, item in enumerate(rows.items or ()) if not item[2:] or not item[2]), None)
        if lacking is not None:
            raise DataError(
                f"{rows.where(lacking)}: a score was wanted; the row has none. Fill it, or leave the row out."
            )
        return numbers_of(rows, [item[2] for item in rows.items or ()], low=low, high=high)

    def measure(rows: Rows, names: list[str]) -> Task:
        y = encode(rows, names)
        if y.min() == y.max():
            raise DataError(
                f"Scores that differ were wanted; all {len(y):,} train rows have {y[0, 0]:g}. Check "
                f"`data.label` (the column the scores are read from) or add rows with other scores."
            )
        if scale or declared:
            return pair(**given)
        found = [float(y.min()), float(y.max())]
        note = (
            f"scores lie from {found[0]:g} to {found[1]:g} in the train rows (say `low` and `high` to hold "
            f"all rows to a range)"
        )
        return replace(pair(**{**given, "scale": found}), settled={"scale": found}, notes=(note,))

    def head(width: int, names: list[str], base_pooling: str, dense: nn.Linear | None) -> nn.Module:
        own = base_pooling if given["pooling"] == "auto" else given["pooling"]
        if near:
            return Nearness(own)
        dense = dense if own == "cls" else None
        return ClassHead(width, 1, pooling=own, dropout=given["head_dropout"], dense=dense)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert batch.labels is not None
        found = model(batch).float().reshape(-1)  # (S,)
        wanted = (batch.labels.float().reshape(-1) - least) / (most - least)
        if ranking:
            return Loss(cosent(found, wanted), outputs=found)
        return Loss(F.mse_loss(found, wanted, reduction="sum") / batch.n_targets, outputs=found)

    def probabilities(outputs: Tensor) -> np.ndarray:
        return least + (most - least) * outputs.double().cpu().numpy().reshape(-1, 1)

    return replace(
        numbers_task("spearman", low, high),
        label_names=lambda rows: ["score"],
        encode=encode,
        measure=measure,
        head=head,
        loss=loss,
        joint=ranking,
        order=shuffled if ranking else None,
        probabilities=probabilities,
        tune=_line if near else _no_line,
        baseline=_baseline_of_scores,
        untuned="own" if near else None,
    )


def _no_line(found: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    return {}


def _line(found: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """The line by least squares from what cosines say to the validation rows' scores; level where it would
    fall: two texts are not said to be alike because they lie apart."""
    x, y = found[:, 0], targets[:, 0].astype(np.float64)
    spread = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 1e-12 else 0.0
    slope = max(slope, 0.0)
    return {"slope": slope, "shift": float(y.mean() - slope * x.mean())}


def _baseline_of_scores(
    rows: Rows, targets: np.ndarray, names: list[str], seed: int
) -> Callable[[Rows], np.ndarray]:
    from penjing.baselines.pairs import fit_numbers_of_pairs

    predict, notes = fit_numbers_of_pairs(_texts(rows), targets, seed)
    return Fitted(lambda rows: predict(_texts(rows)), notes)


def _texts(rows: Rows) -> list[tuple[str, str]]:
    return [(item[0], item[1]) for item in rows.items or ()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
