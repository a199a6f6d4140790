"""One text to a number, or to several: grades, prices, ratings, similarities.

Legend: S rows, K numbers a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.data import taught
from penjing.data.fields import Columns, read_fields
from penjing.data.numbers import number_columns, numbers_of, pointed
from penjing.data.table import Table
from penjing.errors import DataError, SpecError
from penjing.models.heads import ClassHead
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.regression import straight
from penjing.task import Fitted, Task

LOSSES: dict[str, Callable[..., Tensor]] = {
    "squares": F.mse_loss,
    "absolute": F.l1_loss,
    "huber": F.huber_loss,
}
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def regress(
    *,
    low: float | None = None,
    high: float | None = None,
    mean: list[float] | None = None,
    spread: list[float] | None = None,
    loss: Literal["squares", "absolute", "huber"] = "squares",
    pooling: Literal["auto", "cls", "mean", "last"] = "auto",
    head_dropout: float = 0.0,
) -> Task:
    """Give each text a number, or several (`data.label: price+stars`).

    low, high: what no number may be below or above; answers are held to them, scores are of what the model
    said before. mean, spread: what the model's numbers are shifted by and
    stretched with; mean and standard deviation of the train rows when not given. loss: of the scaled errors.
    pooling: as in `classify`. head_dropout: before the last layer; noise there biases a number, so none.
    """
    check_range("regress", low, high)
    if not 0 <= head_dropout < 1:
        raise SpecError(
            f"`regress.head_dropout` must be at least 0 and below 1; it is {head_dropout}. Mend it."
        )
    if (mean is None) != (spread is None) or (spread is not None and not all(s > 0 for s in spread)):
        raise SpecError(
            f"`regress.mean` and `regress.spread` go together, every spread above 0; they are {mean} and "
            f"{spread}. Give both or none."
        )

    def encode(rows: Rows, names: list[str]) -> np.ndarray:
        return numbers_of(rows, [_values(rows, i, names) for i in range(len(rows))], low=low, high=high)

    def measure(rows: Rows, names: list[str]) -> Task:
        if mean is not None:
            return task
        y = encode(rows, names).astype(np.float64)
        still = np.flatnonzero(y.std(0) == 0)
        if len(still):
            raise DataError(
                f"Numbers that differ were wanted; all {len(y):,} train rows have `{names[still[0]]}` "
                f"{y[0, still[0]]:g}. Check `data.label` (the column they are read from) or add other rows."
            )
        found = {"mean": y.mean(0).tolist(), "spread": y.std(0).tolist()}
        made = regress(low=low, high=high, loss=loss, pooling=pooling, head_dropout=head_dropout, **found)
        return replace(made, settled=found)

    def head(width: int, names: list[str], base_pooling: str, dense: nn.Linear | None) -> nn.Module:
        own = base_pooling if pooling == "auto" else pooling
        return ClassHead(
            width, len(names), pooling=own, dropout=head_dropout, dense=dense if own == "cls" else None
        )

    def of_batch(model: nn.Module, batch: Batch) -> Loss:
        found = model(batch).float()  # (S, K)
        assert batch.labels is not None
        shift, stretch = torch.tensor([mean or [0.0], spread or [1.0]], device=found.device)
        wanted = (batch.labels.float() - shift) / stretch
        each = LOSSES[loss](found, wanted, reduction="none").mean(1)
        return Loss(each.sum() / batch.n_targets, outputs=found)

    def probabilities(outputs: Tensor) -> np.ndarray:
        return np.asarray(mean or 0.0) + np.asarray(spread or 1.0) * outputs.double().cpu().numpy()

    task = replace(
        numbers_task("r2", low, high),
        name="regress",
        rows=read_numbers,
        encode=encode,
        measure=measure,
        head=head,
        loss=of_batch,
        probabilities=probabilities,
        baseline=_baseline,
        teach=taught.numbers(),
    )
    return task


def numbers_task(best: str, low: float | None, high: float | None) -> Task:
    """What all tasks of numbers have in common; `found` are (S, K) numbers, and what was chosen on validation
    rows may shift and stretch them. `best` is one of `regression.SCORES`, the higher the better. Answers lie
    from `low` to `high`; scores do not know them, as rows that meet at an end would lose their order."""

    def answers(found: np.ndarray, names: list[str], chosen: dict[str, Any]) -> list[dict[str, Any]]:
        told = straight(found, chosen)
        held = told.clip(-np.inf if low is None else low, np.inf if high is None else high)
        return [{name: float(x) for name, x in zip(names, row, strict=True)} for row in held]

    def difference(
        ours: np.ndarray,
        theirs: np.ndarray,
        targets: np.ndarray,
        chosen: dict[str, Any],
        their_chosen: dict[str, Any],
        seed: int,
    ) -> tuple[float, tuple[float, float]]:
        from penjing.regression import paired_difference

        return paired_difference(straight(ours, chosen), straight(theirs, their_chosen), targets, best, seed)

    return Task(
        name="",
        head=_nothing,
        loss=_nothing,
        label_names=lambda rows: list(rows.items[0]) if rows.items else ["score"],
        score=_score,
        answers=answers,
        say=lambda answer: "\t".join(f"{x:.4g}" for x in answer.values()),
        mistakes=_mistakes,
        difference=difference,
        reference=_reference,
        best=best,
        outputs="numbers",
        within=(low, high),
    )


def read_numbers(
    source: Any,
    *,
    labelled: bool = True,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop_empty: bool = False,
) -> Rows:
    """Texts, and in `items` their numbers by column, as they were written.

    Raises:
        DataError: no column of texts or of numbers, an empty cell.
    """
    refuse_delimiter(delimiter)
    find, names = number_columns(text=text, label=label, labelled=labelled), []

    def noted(table: Table) -> Columns:
        columns = find(table)
        names.append(columns.labels)
        return columns

    found = pointed(
        read_fields(
            source, noted, text=text, label=label, encoding=encoding, drop_empty=drop_empty, labelled=labelled
        )
    )
    items = [dict(zip(names[0], own, strict=False)) for own in found.labels]
    return replace(found, items=items, labels=[()] * len(found))


def refuse_delimiter(delimiter: str | None) -> None:
    """`data.delimiter` takes several labels apart, of which these tasks know none."""
    if delimiter is not None:
        raise SpecError(
            f"`data.delimiter` is {delimiter!r}; it takes several labels of one cell apart, and this task "
            f"reads one a column. Leave it out; `label: a+b` names several columns."
        )


def check_range(name: str, low: float | None, high: float | None) -> None:
    """`low` is below `high`."""
    if low is not None and high is not None and not low < high:
        raise SpecError(f"`{name}.low` must be below `{name}.high`; they are {low:g} and {high:g}. Mend one.")


def _nothing(*given: Any) -> Any:
    raise AssertionError("a task of numbers has its own head and loss")


def _values(rows: Rows, i: int, names: list[str]) -> list[str]:
    """The numbers of a row as written, in the order of their names; one alone may be called otherwise."""
    item: dict[str, str] = (rows.items or [{}] * len(rows))[i]
    if len(names) == len(item) == 1:
        return list(item.values())
    lacking = next((name for name in names if name not in item), None)
    if lacking is not None:
        raise DataError(
            f"{rows.where(i)}: a number `{lacking}` was wanted; the row has {', '.join(item) or 'none'}. "
            f"Give all rows the columns {', '.join(names)}, or name theirs with `label:`."
        )
    return [item[name] for name in names]


def _score(
    found: np.ndarray, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0
) -> Scores:
    from penjing.regression import numbers

    return numbers(straight(found, chosen), targets, names, seed)


def _mistakes(
    found: np.ndarray, rows: Rows, targets: np.ndarray, names: list[str], chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    """All rows, with how far off they are in standard deviations of the truth."""
    told = straight(found, chosen)
    off = (np.abs(told - targets) / np.maximum(targets.std(0), 1e-9)).mean(1)
    said = lambda row: ", ".join(f"{x:.4g}" for x in row)  # noqa: E731
    return [
        {
            "where": rows.where(i),
            "text": rows.texts[i][:600],
            "given": said(targets[i]),
            "predicted": said(told[i]),
            "error": float(off[i]),
        }
        for i in range(len(rows))
    ]


def _reference(part: Part, names: list[str]) -> dict[str, Any]:
    each = np.quantile(part.targets.astype(np.float64), QUANTILES, axis=0)
    return {
        "numbers": {n: {str(q): float(x) for q, x in zip(QUANTILES, each[:, k], strict=True)}
                    for k, n in enumerate(names)}
    }  # fmt: skip


def _baseline(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Callable[[Rows], np.ndarray]:
    from penjing.baselines.numbers import fit_numbers

    predict, notes = fit_numbers(rows.texts, targets, seed)
    return Fitted(lambda rows: predict(rows.texts), notes)
