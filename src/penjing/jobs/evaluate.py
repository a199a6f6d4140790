"""Score a bundle on labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.bundle import Bundle, load
from penjing.errors import SpecError, nearest
from penjing.jobs.conclude import worst
from penjing.jobs.feeding import READ, corpus_to_judge
from penjing.jobs.odd import cut_said
from penjing.jobs.prepare import READING
from penjing.jobs.rows_for import rows_for
from penjing.records import Scores
from penjing.run import Run


def opened(model: Bundle | Run | str | Path, *, base: str | None = None, trust: Sequence[str] = ()) -> Bundle:
    """The bundle meant: itself, a run's best one, or that of a folder."""
    if isinstance(model, Bundle):
        return model
    return load(model.folder if isinstance(model, Run) else model, base=base, trust=trust)


def evaluate(
    model: Bundle | Run | str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    seed: int = 0,
    base: str | None = None,
    trust: Sequence[str] = (),
    **reading: Any,
) -> dict[str, Any]:
    """Scores of a bundle (or a run's best one) on rows with labels.

    `reading` is as in a spec's `data` section: text, label, encoding, delimiter, drop_empty; columns not
    named are those that the run's spec names. `base` says where the bundle's base is, if it has moved;
    `trust` is as in `load`.
    Returns values (floats), intervals (95 %, bootstrap), tables, the worst errors and notes on how the rows
    were read.

    Raises:
        DataError: the rows cannot be read, or hold a label the bundle does not know.
        SpecError: an unknown way to read, or one that would be ignored.
    """
    unknown = [key for key in reading if key not in READING]
    if unknown:
        raise SpecError(
            f"`{unknown[0]}` is not a way to read rows.{nearest(unknown[0], READING)} Those of `evaluate`: "
            f"{', '.join(READING)}."
        )
    bundle = opened(model, base=base, trust=trust)
    task = bundle.task
    if task.feed:
        return _on_text(bundle, data, seed, reading)
    rows = rows_for(bundle, data, **reading)
    part = bundle.part(rows)
    cut = cut_said(part.tokens.cut, "row", bundle.card["max_length"])
    notes = [*part.rows.notes, *([cut] if cut else [])]
    found = bundle.infer(part)
    scores: Scores = task.score(found, part.targets, bundle.labels, bundle.card["chosen"], seed)
    return {
        "rows": len(rows),
        "values": scores.values,
        "intervals": scores.intervals,
        "tables": scores.tables,
        "worst": worst(bundle, found, part),
        "notes": notes,
    }


def _on_text(
    bundle: Bundle, data: str | Path | Sequence[str | Path], seed: int, reading: dict[str, Any]
) -> dict[str, Any]:
    """How well a language is known that a corpus holds; all of its text is read."""
    unused = next((key for key, value in reading.items() if value and key not in READ), None)
    if unused:
        raise SpecError(
            f"`{unused}` says how labelled rows are read; `{bundle.task.name}` is judged on a corpus, and it "
            "would be ignored. Leave it out; `text` and `encoding` say how a corpus is read."
        )
    part, names = corpus_to_judge(bundle, data, reading)
    scores: Scores = bundle.task.score(bundle.infer(part), part.targets, names, {}, seed)
    found = {"values": scores.values, "intervals": scores.intervals, "tables": scores.tables}
    return {"rows": len(part), **found, "worst": [], "notes": []}
