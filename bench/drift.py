"""How often a watch cries wolf, and how soon it sees another world.

    .venv/bin/python bench/drift.py                     # 200 shuffled splits, banking77 -> clinc150
    .venv/bin/python bench/drift.py --smoke             # a minute, to see that it runs

Tunes one bundle on banking77, measures its test rows and those of clinc150 once, and then draws from what was
measured: (1) shuffled splits, where nothing moved, at the level of one look and at that of 30 looks in a row;
(2) windows in which a share of the rows is of clinc150; (3) a stream that turns from one to the other, looked
at every 25 requests over the last 200: after how many does it alarm. Writes bench/out/drift.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from penjing.drift.verdict import Seen, compare

ROOT = Path(__file__).resolve().parents[1]

WINDOW, STEP = 200, 25
SHARES = (0.05, 0.1, 0.2, 0.4, 1.0)


def take(seen: Seen, rows: np.ndarray) -> Seen:
    """Those rows of what is known of more."""
    found: dict[str, Any] = {}
    for one in fields(Seen):
        value = getattr(seen, one.name)
        found[one.name] = None if value is None else np.asarray(value)[rows]
    return Seen(**found)


def joined(a: Seen, b: Seen) -> Seen:
    """The rows of both."""
    pairs = {one.name: (getattr(a, one.name), getattr(b, one.name)) for one in fields(Seen)}
    both = {k: None if x is None or y is None else np.concatenate([x, y]) for k, (x, y) in pairs.items()}
    return Seen(**both)


def measured(given: argparse.Namespace, folder: Path) -> tuple[Seen, Seen]:
    """What a bundle of banking77 sees of rows of banking77 that it did not learn, and of clinc150."""
    from bench.sets import write
    from penjing import tune
    from penjing.data.read import read
    from penjing.jobs.seen import measure, read_reference

    ours, theirs = write("banking77", folder / "ours"), write("clinc150", folder / "theirs")
    files = {"train": ours.train, "valid": ours.valid, "text": "text", "label": "label"}
    run = tune(base="minilm", method="lora", steps=given.steps, out=folder, evals=1, **files)
    bundle, known = run.bundle, read_reference(run.bundle)

    def of(path: str) -> Seen:
        rows = read(path, text="text", label="label")
        rows = rows.take(np.random.default_rng(0).permutation(len(rows))[: given.rows])
        return measure(bundle, rows, known.axes, known=known.known, labelled=False)

    return of(ours.test), of(theirs.test)


def false_alarms(still: Seen, splits: int, size: int, **how: Any) -> float:
    """Share of shuffled splits with an alarm."""
    alarms = 0
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(still))
        new, old = take(still, order[:WINDOW]), take(still, order[WINDOW : WINDOW + size])
        alarms += compare(old, new, seed=seed, least=0.01, **how).moved
    return alarms / splits


def power(still: Seen, moved: Seen, share: float, repeats: int, size: int) -> float:
    """Share of windows with an alarm where so many rows are of another world."""
    alarms, n = 0, round(share * WINDOW)
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        order, others = rng.permutation(len(still)), rng.permutation(len(moved))
        own = take(still, order[: WINDOW - n])
        new = joined(own, take(moved, others[:n]))
        alarms += compare(take(still, order[WINDOW : WINDOW + size]), new, seed=seed).moved
    return alarms / repeats


def until_seen(still: Seen, moved: Seen, seed: int, size: int) -> int:
    """Requests of the other world until the first alarm; looks every 25 requests over the last 200."""
    rng = np.random.default_rng(seed)
    order, others = rng.permutation(len(still)), rng.permutation(len(moved))
    old = take(still, order[WINDOW : WINDOW + size])
    for n in range(STEP, len(moved) + 1, STEP):
        new = take(moved, others[max(0, n - WINDOW) : n])
        if n < WINDOW:
            new = joined(take(still, order[: WINDOW - n]), new)
        if compare(old, new, seed=seed).moved:
            return n
    return -1


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--splits", type=int, default=200)
    asked.add_argument("--repeats", type=int, default=40)
    asked.add_argument("--steps", type=int, default=600)
    asked.add_argument("--rows", type=int, default=2000, help="of each data set, measured once")
    asked.add_argument("--smoke", action="store_true")
    given = asked.parse_args()
    if given.smoke:
        given.splits, given.repeats, given.steps, given.rows = 10, 3, 3, 500
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import processor, write

    size, began = min(1000, given.rows - WINDOW), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="penjing-drift-") as folder:
        still, moved = measured(given, Path(folder))
    starts = [until_seen(still, moved, seed, size) for seed in range(given.repeats)]
    found = {
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "processor": processor(),
        "settings": {**vars(given), "window": WINDOW, "reference": size},
        "false_alarms_one_look": false_alarms(still, given.splits, size, alpha=0.05, looks=1),
        "false_alarms_default": false_alarms(still, given.splits, size),
        "power": {str(s): power(still, moved, s, given.repeats, size) for s in SHARES},
        "requests_until_seen": {"median": float(np.median(starts)), "most": max(starts), "all": starts},
        "seconds": time.perf_counter() - began,
    }
    out = ROOT / "bench" / "out" / "drift.json"
    write(out, found)
    print(f"| shuffled splits with an alarm, {given.splits} | share |\n|---|---|")
    print(f"| level 0.05 a look | {found['false_alarms_one_look']:.3f} |")
    print(f"| level 0.05 in 30 looks | {found['false_alarms_default']:.3f} |")
    print("\n| rows of clinc150 in 200 | windows with an alarm |\n|---|---|")
    for share, value in found["power"].items():
        print(f"| {float(share):.0%} | {value:.2f} |")
    print(f"\nA turned stream is seen after {np.median(starts):.0f} requests, {max(starts)} at most. {out}")


if __name__ == "__main__":
    main()
