"""How right forecasts were: every finished run below a folder, forecast against truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import DataError
from penjing.run import Run

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WITHIN = {"time": 0.25, "memory": 0.10}  # what a forecast is meant to be right to


@dataclass(frozen=True)
class Audited:
    """A run: what was forecast of the steps it made, what they took, and truth over forecast."""

    run: str
    base: str
    method: str
    batch: int
    steps: int
    forecast_s: float
    seconds: float
    forecast_mib: float
    peak_mib: float

    @property
    def time(self) -> float:
        """Seconds taken over seconds forecast."""
        return self.seconds / self.forecast_s

    @property
    def memory(self) -> float:
        """Highest memory over that forecast."""
        return self.peak_mib / self.forecast_mib


@dataclass(frozen=True)
class Audit:
    """All runs, worst forecast first, and the `unfinished`, which say nothing of their end."""

    runs: tuple[Audited, ...]
    unfinished: int

    def ratios(self, name: str) -> dict[str, float]:
        """Truth over forecast of `time` or `memory`: quantiles, and the share that is `within` its limit."""
        values = np.array([getattr(one, name) for one in self.runs])
        found = {f"{q:.0%}": float(np.quantile(values, q)) for q in QUANTILES}
        return {**found, "within": float((np.abs(values - 1) <= WITHIN[name]).mean())}

    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        runs = [{**asdict(one), "time": one.time, "memory": one.memory} for one in self.runs]
        ratios = {name: self.ratios(name) for name in WITHIN} if self.runs else {}
        return {"runs": runs, "ratios": ratios, "unfinished": self.unfinished}


def audit(folder: str | Path) -> Audit:
    """Every run below `folder`, trials of searches too.

    Raises:
        DataError: there is no such folder, or no finished run in it.
    """
    top, found, unfinished = Path(folder), [], 0
    if not top.is_dir():
        raise DataError(f"A folder of runs was wanted at {top}; there is none. Give the `out` of your runs.")
    for place in sorted(top.rglob("spec.yaml")):
        run = Run(place.parent)
        one = _audited(run, top) if run.state == "done" else None
        if one is None:
            unfinished += run.state != "done"
        else:
            found.append(one)
    if not found:
        raise DataError(
            f"No finished run with a forecast lies below {top} ({unfinished} unfinished). Finish one: "
            f"`penjing tune --resume`."
        )
    found.sort(key=lambda one: -max(abs(one.time - 1), abs(one.memory - 1)))
    return Audit(tuple(found), unfinished)


def _audited(run: Run, top: Path) -> Audited | None:
    """None where a run made no steps, or is a search's own folder."""
    cost, start = run.result.get("cost", {}), run.read("start.json")
    steps, asked = cost.get("steps"), start.get("steps")
    if not steps or not asked or not cost.get("forecast_s") or not cost.get("forecast_mib"):
        return None
    spec = run.spec
    return Audited(
        run=run.folder.relative_to(top).as_posix(),
        base=Path(spec.base).name,
        method=spec.method.name,
        batch=spec.train.batch,
        steps=steps,
        forecast_s=cost["forecast_s"] * steps / asked,  # of the steps that were made
        seconds=cost["seconds"],
        forecast_mib=cost["forecast_mib"],
        peak_mib=cost["peak_mib"],
    )
