"""Score a bundle on labelled rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penjing.bundle import Bundle, load
from penjing.data.read import read
from penjing.jobs.conclude import worst
from penjing.records import Scores
from penjing.run import Run


def evaluate(
    model: Bundle | Run | str | Path, data: str | list[str], *, seed: int = 0, **reading: Any
) -> dict[str, Any]:
    """Scores of a bundle (or a run's best one) on rows with labels.

    `reading` is as in a spec's `data` section: text, label, encoding, delimiter, drop_empty.
    Returns values (floats), intervals (95 %, bootstrap), tables, the worst errors and notes on how the rows were read.

    Raises:
        DataError: the rows cannot be read, or hold a label the bundle does not know.
    """
    bundle = model if isinstance(model, Bundle) else model.bundle if isinstance(model, Run) else load(model)
    task = bundle.task
    rows = read(data, multi_label=task.multi_label, **reading)
    targets = task.encode(rows, bundle.labels)
    probabilities = bundle.probabilities(rows.texts)
    scores: Scores = task.score(probabilities, targets, bundle.labels, bundle.card["chosen"], seed)
    return {
        "rows": len(rows),
        "values": scores.values,
        "intervals": scores.intervals,
        "tables": scores.tables,
        "worst": worst(task, rows, probabilities, targets, bundle),
        "notes": list(rows.notes),
    }
