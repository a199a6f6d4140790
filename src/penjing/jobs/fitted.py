"""A scaling law of one's own runs, from a table of sizes, tokens and losses."""

from __future__ import annotations

import csv
from pathlib import Path

from penjing.errors import DataError, nearest
from penjing.models.laws import Fit, fit

NAMES = {
    "parameters": ("parameters", "params", "n"),
    "tokens": ("tokens", "d"),
    "loss": ("loss", "validation_loss", "val_loss", "l"),
}


def fit_file(path: str | Path) -> Fit:
    """Fit a law to a CSV file with the columns `parameters`, `tokens` and `loss` (nats a token), a run a row.

    Raises:
        DataError: no such file, a missing column, or a cell that is no number.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"A table of runs was wanted at {place}; there is no such file. Give a CSV file.")
    with place.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise DataError(f"{place} holds no runs. Write a header `parameters,tokens,loss` and a row a run.")
    there = {str(name).strip().lower(): name for name in rows[0]}
    columns = {wanted: _column(place, wanted, there) for wanted in NAMES}
    found = {
        wanted: [_number(place, line, name, row[name]) for line, row in enumerate(rows, 2)]
        for wanted, name in columns.items()
    }
    return fit(found["parameters"], found["tokens"], found["loss"])


def _column(place: Path, wanted: str, there: dict[str, str]) -> str:
    for name in NAMES[wanted]:
        if name in there:
            return there[name]
    raise DataError(
        f"{place}, line 1: a column `{wanted}` was wanted; there are "
        f"{', '.join(there)}.{nearest(wanted, there)} Name one `{wanted}`."
    )


def _number(place: Path, line: int, name: str, cell: str | None) -> float:
    try:
        return float(str(cell).replace("_", ""))
    except ValueError as error:
        raise DataError(
            f"{place}, line {line}: `{name}` must be a number; it is {cell!r}. Correct it, or leave it out."
        ) from error
