"""What a bundle weighs: bytes, parameters, time of an answer, rows a second, memory, score, calibration."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penjing.bundle import Bundle
from penjing.jobs.numbers import IN_PERCENT
from penjing.jobs.seen import FILE
from penjing.models.compiled import Compiled
from penjing.models.stored import kind_of
from penjing.records import Part, Rows

FULL = 32  # rows of a full batch
TURNS = {1: 15, FULL: 7}  # timings of an answer, by rows
MOST = 512  # rows that the rate and the memory are measured on
WAIT_S = 1800  # for the process whose memory is measured


@dataclass(frozen=True)
class Weighed:
    """Of one bundle; `latency_ms` by rows at once, `versus` the original's of the same minutes.

    Times are those of the model and the task's own work on rows that are tokens already.
    """

    n_bytes: int
    parameters: int
    latency_ms: Mapping[str, float]
    versus_ms: Mapping[str, float]
    rows_a_s: float
    versus_rows_a_s: float
    score: float
    interval: tuple[float, float] | None
    values: Mapping[str, float]
    peak_mib: float | None = None
    lost: float | None = None  # of the original's score, paired on the same rows
    lost_interval: tuple[float, float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def speed(self) -> float:
        """Rows a second over the original's in the same minutes."""
        return self.rows_a_s / self.versus_rows_a_s


def weigh(bundle: Bundle, original: Bundle, rows: Rows, *, seed: int = 0, memory: bool = True) -> Weighed:
    """Weigh a bundle beside the original, on rows with labels."""
    part, alone, task = bundle.part(rows), bundle is original, bundle.task
    found = bundle.infer(part)
    theirs = part if alone else original.part(rows)
    before = found if alone else original.infer(theirs)
    scores = task.score(found, part.targets, bundle.labels, bundle.card["chosen"], seed)
    old = original.task.score(before, theirs.targets, original.labels, original.card["chosen"], seed)
    drop = old.values[task.best] - scores.values[task.best]
    span = None
    if task.difference:
        chosen = original.card["chosen"], bundle.card["chosen"]
        drop, span = task.difference(before, found, part.targets, *chosen, seed)
    if task.lower:
        drop, span = -drop, span and (-span[1], -span[0])
    latency, versus = _latencies(bundle, original, rows)
    rate, old_rate = _rates(bundle, original, rows)
    return Weighed(
        n_bytes=bytes_of(bundle),
        parameters=parameters_of(bundle),
        latency_ms=latency,
        versus_ms=versus,
        rows_a_s=rate,
        versus_rows_a_s=old_rate,
        score=scores.values[task.best],
        interval=scores.intervals.get(task.best),
        values=scores.values,
        peak_mib=peak_of(bundle, rows) if memory else None,
        lost=drop,
        lost_interval=span,
    )


def points(one: Weighed, first: Weighed, best: str) -> float:
    """What a model loses of the original's score, which is called `best`: hundredths of a share; of one that
    is none, such as a loss or BLEU, percent of what it was.
    """
    return 100 * (one.lost or 0.0) / max(whole(first, best), 1e-12)


def whole(first: Weighed, best: str) -> float:
    """What a loss is a part of: 1 where the score is a share, else what it is."""
    return 1.0 if best in IN_PERCENT else abs(first.score)


def bytes_of(bundle: Bundle) -> int:
    """Bytes on disk of what the card names, and the card; without what only drift is compared with."""
    names = [*(name for name in bundle.card["files"] if name != FILE), "card.json"]
    return sum((bundle.folder / name).stat().st_size for name in names)


def parameters_of(bundle: Bundle) -> int:
    """Numbers that the model is made of, in however many bits they are held; one that two share once."""
    seen = {id(p): p.numel() for p in bundle.model.parameters()}
    for module in bundle.model.modules():
        if isinstance(module, Compiled):
            seen[id(module)] = module.n_weights
        if kind_of(module) is not None:
            bias = getattr(module, "bias", None)
            sizes: Any = module
            seen[id(module)] = sizes.in_features * sizes.out_features + (0 if bias is None else bias.numel())
    return sum(seen.values())


def _latencies(a: Bundle, b: Bundle, rows: Rows) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of an answer of one row and of a full batch, of both in turn, over other rows each
    time."""
    ours, theirs = {}, {}
    for n, turns in TURNS.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(turns + 1):
            taken = rows.take((np.arange(n) + turn * n) % len(rows))
            for one, kept in zip((a, b) if a is not b else (a,), times, strict=False):
                part = one.part(taken, labelled=False)
                kept.append(_timed(lambda one=one, part=part: one.infer(part)))  # type: ignore[misc]
        ours[str(n)] = theirs[str(n)] = 1000 * statistics.median(times[0][1:])
        if a is not b:
            theirs[str(n)] = 1000 * statistics.median(times[1][1:])
    return ours, theirs


def _rates(a: Bundle, b: Bundle, rows: Rows, turns: int = 3) -> tuple[float, float]:
    """Rows a second of both, sorted by length as `predict` has them: the best of turns taken one by one."""
    taken = rows.take(np.arange(min(len(rows), MOST)))
    best = [float("inf"), float("inf")]
    parts: list[Part] = [one.part(taken, labelled=False) for one in (a, b)]
    for _ in range(turns):
        for i, one in enumerate((a, b) if a is not b else (a,)):
            best[i] = min(best[i], _timed(lambda one=one, i=i: one.infer(parts[i])))  # type: ignore[misc]
    return len(taken) / best[0], len(taken) / best[a is not b]


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_of(bundle: Bundle, rows: Rows) -> float | None:
    """Highest memory, MiB, of a process of its own that opens the bundle and answers rows; None where the
    rows are more than texts, or no such process could be had."""
    if rows.items is not None or bundle.task.sees:
        return None
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "asked.json", Path(folder) / "told.json"
        base = None if bundle.card["saves"] in ("full", "ensemble") else bundle.base.name  # it may have moved
        what = {"bundle": str(bundle.folder), "base": base, "texts": rows.texts[:MOST]}
        asked.write_text(json.dumps(what), "utf-8")
        command = [sys.executable, "-m", "penjing.chains.weighed", str(asked), str(told)]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=WAIT_S)
        except (OSError, subprocess.SubprocessError):
            return None
        return float(json.loads(told.read_text("utf-8"))["mib"])


def _answered(asked: Path, told: Path) -> None:
    """In the process of its own: open, answer, tell the peak."""
    from penjing.bundle import load
    from penjing.device import peak_mib

    what = json.loads(asked.read_text("utf-8"))
    bundle = load(what["bundle"], device="cpu", base=what["base"])
    bundle.predict(what["texts"])
    told.write_text(json.dumps({"mib": peak_mib(bundle.machine.device)}), "utf-8")


if __name__ == "__main__":
    _answered(Path(sys.argv[1]), Path(sys.argv[2]))
