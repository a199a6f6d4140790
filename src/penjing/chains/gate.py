"""The gate: whether a new model may take the live one's place, by measurement on the same rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.bundle import Bundle
from penjing.chains.update_spec import Gate
from penjing.intervals import paired_difference
from penjing.jobs.seen import rightly
from penjing.records import Rows

TIMED = 64  # texts
TIMES = 5


@dataclass(frozen=True)
class Bar:
    """One thing that was asked of the new model: what was wanted, what was found, in words, and whether it is
    so."""

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Measured:
    """Which rows each model answers rightly, (n,) bool; a label that the live one does not know is one that
    it gets wrong."""

    live: np.ndarray
    new: np.ndarray


def measure(live: Bundle, new: Bundle, rows: Rows) -> Measured:
    """Both models on the same rows."""
    found = [rightly(bundle.predict(rows.texts), rows.labels) for bundle in (live, new)]
    empty = np.zeros(0, dtype=bool)
    return Measured(*(empty if one is None else one for one in found))


def judge(
    gate: Gate,
    *,
    new: Measured,
    old: Measured,
    must: Measured | None,
    slices: Mapping[str, Measured],
    ratio: float,
    suspects: tuple[float, float],
    seed: int = 0,
) -> list[Bar]:
    """Every bar of the gate. ratio: the new model's time over the live one's. suspects: share of the new
    train rows, and of old ones beside them, whose label is likely wrong."""
    bars = [_better(gate, new, seed), _below(gate, new, old), _worse(gate, old, seed)]
    if gate.at_least is not None:
        right = float(new.new.mean())
        wanted = f"at least {gate.at_least:.1%} right"
        bars.append(Bar("new rows", wanted, f"{right:.1%}", right >= gate.at_least))
    if must is not None:
        right = float(must.new.mean())
        bars.append(
            Bar("must pass", f"{gate.must_pass:.0%} right", f"{right:.1%}", right >= gate.must_pass - 1e-9)
        )
    slower = ratio - 1
    wanted = f"at most {gate.slower_by:.0%} longer"
    bars.append(Bar("time of an answer", wanted, f"{slower:+.0%}", slower <= gate.slower_by))
    bars += _slices(gate, slices)
    if gate.suspects is not None:
        ours, theirs = suspects
        wanted = f"at most {gate.suspects:.0%} more than of old rows"
        found = f"{ours:.1%}, old {theirs:.1%}"
        bars.append(Bar("suspect labels", wanted, found, ours <= theirs + gate.suspects + 1e-9))
    return bars


def _better(gate: Gate, rows: Measured, seed: int) -> Bar:
    mean, (low, high) = difference(rows, seed)
    wanted = f"better by more than {gate.better_by:.1%}, surely"
    return Bar("gain on new rows", wanted, f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]", low > gate.better_by)


def _below(gate: Gate, new: Measured, old: Measured) -> Bar:
    """Wrong labels among the new rows show here: no model answers them rightly."""
    ours, theirs = float(new.new.mean()), float(old.new.mean())
    wanted = f"at most {gate.below_old_by:.0%} below that of old rows"
    found = f"{ours:.1%}, old {theirs:.1%}"
    return Bar("share right of new rows", wanted, found, ours >= theirs - gate.below_old_by - 1e-9)


def _worse(gate: Gate, rows: Measured, seed: int) -> Bar:
    mean, (low, high) = difference(rows, seed)
    found = f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]"
    return Bar("loss on old rows", f"at most {gate.worse_by:.1%}", found, mean >= -gate.worse_by - 1e-9)


def difference(rows: Measured, seed: int) -> tuple[float, tuple[float, float]]:
    """Share right of the new model less that of the live one, and its 95 % interval (paired bootstrap)."""
    truth = np.ones((len(rows.new), 1), dtype=bool)
    return paired_difference(truth, rows.new[:, None], rows.live[:, None], "accuracy", seed=seed)


def _slices(gate: Gate, slices: Mapping[str, Measured]) -> list[Bar]:
    if not slices:
        return []
    live = {name: float(one.live.mean()) for name, one in slices.items()}
    new = {name: float(one.new.mean()) for name, one in slices.items()}
    worst = min(new, key=lambda name: new[name] - live[name])
    change = new[worst] - live[worst]
    bars = [
        Bar(
            "slices",
            f"none loses more than {gate.slice_worse_by:.1%}",
            f"{worst} {change:+.1%}",
            change >= -gate.slice_worse_by - 1e-9,
        )
    ]
    if len(slices) > 1:
        wider = (max(new.values()) - min(new.values())) - (max(live.values()) - min(live.values()))
        wanted = f"the gap widens by at most {gate.gap_wider_by:.1%}"
        bars.append(Bar("gap of slices", wanted, f"{wider:+.1%}", wider <= gate.gap_wider_by + 1e-9))
    return bars


def time_ratio(live: Bundle, new: Bundle, texts: Sequence[str]) -> float:
    """Time of the new model's answers over the live one's, one text at a time, in turn; the best of five."""
    some = list(texts[:TIMED])
    best = {"live": float("inf"), "new": float("inf")}
    for _ in range(TIMES):
        for name, bundle in (("live", live), ("new", new)):
            began = time.perf_counter()
            for text in some:
                bundle.predict([text])
            best[name] = min(best[name], time.perf_counter() - began)
    return best["new"] / best["live"]
