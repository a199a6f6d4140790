"""Rows for a bundle, read by the columns that its run was told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from penjing.bundle import Bundle
from penjing.data.columns import NoColumn
from penjing.jobs.news import News, Tell
from penjing.jobs.prepare import rows_from
from penjing.keys import DataSpec
from penjing.records import Rows

TOLD = ("text", "label", "delimiter")  # keys of a spec's `data` that later rows are read by, too


def told(data: DataSpec) -> dict[str, str]:
    """What a card keeps of how a run's rows were read: what its spec says; guesses are made anew."""
    return {key: value for key in TOLD if (value := getattr(data, key)) is not None}


def rows_for(
    bundle: Bundle, source: Any, *, labelled: bool = True, warn: Tell | None = None, **reading: Any
) -> Rows:
    """The rows of a source as the bundle's task reads them, by `reading` (keys of a spec's `data`), else by
    the columns that its run was told, else by a guess.

    That a source lacks such a column is among the rows' notes, or told to `warn`. Where it has one column
    only, there is nothing to mistake.

    Raises:
        DataError: as `read`.
    """
    keys = TOLD if labelled else ("text", "label")
    own = {k: v for k, v in bundle.card.get("reading", {}).items() if k in keys and reading.get(k) is None}
    lacks: list[str] = []
    while True:
        try:
            rows = rows_from(bundle.task, source, labelled=labelled, **{**reading, **own})
            break
        except NoColumn as error:
            if error.key not in own:
                raise
            name = own.pop(error.key)
            if len(error.columns) > 1:
                lacks.append(
                    f"{source} has no column `{name}`, which the model learned from (`{error.key}: {name}`); "
                    f"another was looked for. Say `{error.key}:` to be sure"
                )
    if warn is None:
        return replace(rows, notes=(*lacks, *rows.notes))
    for text in lacks:
        warn(News("note", text))
    return rows
