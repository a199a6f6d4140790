"""The gate: whether a new model may take the live one's place, by measurement on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from penjing.bundle import Bundle
from penjing.chains.update_spec import Gate
from penjing.records import Rows
from penjing.saying import SCALES

TIMED = 64  # rows
TIMES = 5
SECONDS = 1.0  # of one model's answers, at a time


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
    """Both models on the same rows. gain: by how much the new one's score, the task's own, is better, with
    its 95 % interval. live, new: the share of rows that each answers rightly where `shares`; else, of rows
    that are not right or wrong (numbers, replies), the score itself, less being better where `lower`."""

    live: float
    new: float
    gain: float
    interval: tuple[float, float]
    shares: bool = True
    lower: bool = False

    @property
    def change(self) -> float:
        """By how much the new one is better."""
        return ahead(self, self.new, self.live)

    def said(self, value: float) -> str:
        """One of its numbers in words."""
        return f"{value:.1%}" if self.shares else f"{value:.3f}"


def ahead(one: Measured, ours: float, theirs: float) -> float:
    """By how much one value is better than another."""
    return theirs - ours if one.lower else ours - theirs


def measure(live: Bundle, new: Bundle, rows: Rows, *, seed: int = 0) -> Measured:
    """Both models, of the same labels, on the same rows; a label that the live one did not learn is one that
    it gets wrong."""
    task = new.task
    assert task.difference is not None
    parts = [bundle.part(rows) for bundle in (live, new)]
    theirs, ours = (bundle.infer(part) for bundle, part in zip((live, new), parts, strict=True))
    targets, chosen, their_chosen = parts[1].targets, new.card["chosen"], live.card["chosen"]
    gain, (low, high) = task.difference(ours, theirs, targets, chosen, their_chosen, seed)
    scale = SCALES.get(task.best, 1.0) * (-1 if task.lower else 1)
    ends = sorted((low / scale, high / scale))
    if task.mistakes is not None and task.outputs != "numbers":
        wrong = [
            len(task.mistakes(found, part.rows, targets, new.labels, own)) / max(1, len(found))
            for found, part, own in ((theirs, parts[0], their_chosen), (ours, parts[1], chosen))
        ]
        return Measured(1 - wrong[0], 1 - wrong[1], gain / scale, (ends[0], ends[1]))
    before, after = (
        float(task.score(found, targets, new.labels, own, seed).values[task.best]) / abs(scale)
        for found, own in ((theirs, their_chosen), (ours, chosen))
    )
    return Measured(before, after, gain / scale, (ends[0], ends[1]), shares=False, lower=task.lower)


def judge(
    gate: Gate,
    *,
    new: Measured,
    old: Measured,
    must: Measured | None,
    slices: Mapping[str, Measured],
    ratio: float,
    suspects: tuple[float, float] | None,
) -> list[Bar]:
    """Every bar of the gate. ratio: the new model's time over the live one's. suspects: share of the new
    train rows, and of old ones beside them, whose label is likely wrong; None where rows have not one."""
    bars = [_better(gate, new), _worse(gate, old)]
    if gate.below_old_by is not None:
        bars.insert(1, _below(gate.below_old_by, new, old))
    if gate.at_least is not None:
        side = "at most" if new.lower else "at least"
        wanted = f"{side} {new.said(gate.at_least)}{' right' if new.shares else ''}"
        enough = ahead(new, new.new, gate.at_least) >= -1e-9
        bars.append(Bar("new rows", wanted, new.said(new.new), enough))
    if must is not None:
        bars.append(_must(gate, must))
    slower = ratio - 1
    wanted = f"at most {gate.slower_by:.0%} longer"
    bars.append(Bar("time of an answer", wanted, f"{slower:+z.0%}", slower <= gate.slower_by))
    bars += _slices(gate, slices)
    if gate.suspects is not None and suspects is not None:
        ours, theirs = suspects
        wanted = f"at most {gate.suspects:.0%} more than of old rows"
        found = f"{ours:.1%}, old {theirs:.1%}"
        bars.append(Bar("suspect labels", wanted, found, ours <= theirs + gate.suspects + 1e-9))
    return bars


def _form(rows: Measured) -> str:
    """How differences are written; a nought has no minus."""
    return "+z.1%" if rows.shares else "+z.3f"


def _gained(rows: Measured) -> str:
    form, (low, high) = _form(rows), rows.interval
    return f"{rows.gain:{form}} [{low:{form}}, {high:{form}}]"


def _better(gate: Gate, rows: Measured) -> Bar:
    wanted = f"better by more than {rows.said(gate.better_by)}, surely"
    return Bar("gain on new rows", wanted, _gained(rows), rows.interval[0] > gate.better_by)


def _below(most: float, new: Measured, old: Measured) -> Bar:
    """Wrong labels among the new rows show here: no model answers them rightly."""
    name = "share right of new rows" if new.shares else "score of new rows"
    wanted = f"at most {new.said(most)} {'above' if new.lower else 'below'} that of old rows"
    found = f"{new.said(new.new)}, old {old.said(old.new)}"
    return Bar(name, wanted, found, ahead(new, new.new, old.new) >= -most - 1e-9)


def _worse(gate: Gate, rows: Measured) -> Bar:
    low, high = rows.interval
    lost = replace(rows, gain=-rows.gain, interval=(-high, -low))
    wanted = f"at most {rows.said(gate.worse_by)}"
    return Bar("loss on old rows", wanted, _gained(lost), rows.gain >= -gate.worse_by - 1e-9)


def _must(gate: Gate, rows: Measured) -> Bar:
    """Rows that are neither right nor wrong must be answered no worse than before."""
    if rows.shares:
        right = rows.new >= gate.must_pass - 1e-9
        return Bar("must pass", f"{gate.must_pass:.0%} right", f"{rows.new:.1%}", right)
    found = f"{rows.said(rows.new)}, live {rows.said(rows.live)}"
    return Bar("must pass", "no worse than the live model", found, rows.change >= -1e-9)


def _slices(gate: Gate, slices: Mapping[str, Measured]) -> list[Bar]:
    if not slices:
        return []
    worst = min(slices, key=lambda name: slices[name].change)
    one = slices[worst]
    form = _form(one)
    wanted = f"none loses more than {one.said(gate.slice_worse_by)}"
    lost = one.change < -gate.slice_worse_by - 1e-9
    bars = [Bar("slices", wanted, f"{worst} {one.change:{form}}", not lost)]
    if len(slices) > 1:
        live, new = [own.live for own in slices.values()], [own.new for own in slices.values()]
        wider = (max(new) - min(new)) - (max(live) - min(live))
        wanted = f"the gap widens by at most {one.said(gate.gap_wider_by)}"
        bars.append(Bar("gap of slices", wanted, f"{wider:{form}}", wider <= gate.gap_wider_by + 1e-9))
    return bars


def time_ratio(live: Bundle, new: Bundle, rows: Rows) -> float:
    """Time of the new model's answers over the live one's, a row at a time, in turn; of each row the best of
    five, so that a busy machine says little. As many rows as are answered in about a second, at most 64."""
    clock = time.process_time if live.machine.device.type == "cpu" else time.perf_counter
    asked = [rows.take([i]) for i in range(min(TIMED, len(rows)))]
    took = _took(live, asked[0], clock) + _took(new, asked[0], clock)  # the first answers are slow
    asked = asked[: max(4, int(2 * SECONDS / max(took, 1e-6)))]
    best = [[min(own) for own in zip(*turns, strict=True)] for turns in (
        [[_took(bundle, row, clock) for bundle in (live, new)] for _ in range(TIMES)] for row in asked
    )]  # fmt: skip
    theirs, ours = (sum(own) for own in zip(*best, strict=True))
    return ours / max(theirs, 1e-9)


def _took(bundle: Bundle, row: Rows, clock: Callable[[], float]) -> float:
    began = clock()
    bundle.answer(row)
    return clock() - began
