"""`quality`: test accuracy of each system over seeds, same epochs; rates are chosen on validation rows.

A cell is one training (system, rate, seed) in its own process. Finished cells stay in the JSON and do not run
again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bench.machine import facts, load_average, table, while_others, write
from bench.sets import Split
from bench.systems import SYSTEMS, Job, Settings
from bench.worker import Child

FREE = ("lr", "lora_lr", "head_lr", "seed")  # settings that a cell has of its own


def quality(
    split: Split,
    settings: Settings,
    out: Path,
    names: list[str],
    *,
    seeds: list[int],
    rates: dict[str, list[float]],
    only: list[tuple[str, str, str]],
) -> dict[str, Any]:
    """Run the cells that are not done, print the tables, write quality-<data>.json. Returns what was written.

    `rates` are the peak rates to choose from by method; with several, each system trains with each of them on
    the first seed, and the best on validation rows is taken. `only` limits what runs to (data, system, seed),
    `*` for any.
    """
    path = out / f"quality-{split.name}.json"
    kept = _kept(path, settings, split)
    cells: dict[str, dict[str, Any]] = kept.get("cells", {})
    chosen: dict[str, float] = {}
    sweeps: dict[str, dict[str, float]] = {}

    def run(name: str, rate: float, seed: int) -> dict[str, Any] | None:
        key = _key(name, rate, seed, settings)
        if key not in cells and _wanted(only, split.name, name, seed):
            cells[key] = _cell(name, rate, seed, split, settings, out)
            write(path, {**facts(settings, split), "cells": cells})
            one = cells[key]
            scores = f"valid {one['valid']:.4f}, test {one['test']:.4f}, {one['train_s']:.0f} s"
            print(f"{split.name} {key}: {scores}", flush=True)
        return cells.get(key)

    for name in names:
        choice = rates[SYSTEMS[name].method]
        if len(choice) > 1:
            tried = {rate: run(name, rate, seeds[0]) for rate in choice}
            known = {rate: one["valid"] for rate, one in tried.items() if one}
            if len(known) < len(choice):
                continue
            sweeps[name] = {f"{rate:g}": score for rate, score in known.items()}
            chosen[name] = max(known, key=lambda rate: known[rate])
            tries = ", ".join(f"{rate:g}: {score:.4f}" for rate, score in known.items())
            print(f"{split.name} {name}: rate {chosen[name]:g} chosen on validation rows ({tries})")
        else:
            chosen[name] = choice[0]
        for seed in seeds:
            run(name, chosen[name], seed)
    scores = {
        name: {seed: cells[key] for seed in seeds if (key := _key(name, rate, seed, settings)) in cells}
        for name, rate in chosen.items()
    }
    found = _summary(scores, chosen)
    _show(split, settings, found)
    whole = {**facts(settings, split), "seeds": seeds, "sweeps": sweeps, "systems": found, "cells": cells}
    write(path, whole)
    return whole


def _key(name: str, rate: float, seed: int, settings: Settings) -> str:
    head = "" if settings.head_lr is None else f" head={settings.head_lr:g}"
    return f"{name} lr={rate:g}{head} seed={seed}"


def _cell(name: str, rate: float, seed: int, split: Split, settings: Settings, out: Path) -> dict[str, Any]:
    given = replace(settings, lr=rate, lora_lr=rate, seed=seed)
    before = load_average()
    with Child(Job("cell", SYSTEMS[name], given, split), out / f"quality-{split.name}.log") as child:
        found = while_others(child.hear)
    found.pop("others")  # the cell's own use cannot be told apart here
    return {**found, "system": name, "lr": rate, "seed": seed, "load": [before, load_average()]}


def _kept(path: Path, settings: Settings, split: Split) -> dict[str, Any]:
    """What an earlier run left; an error when it was made with other settings or rows."""
    if not path.is_file():
        return {}
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(facts(settings, split)))
    for part in ("settings", "rows", "device", "versions"):
        old, new = kept.get(part), now[part]
        if part == "settings":
            old, new = ({k: v for k, v in x.items() if k not in FREE} for x in (old or {}, new))
        if part == "versions":
            old, new = ({k: v for k, v in x.items() if k != "penjing"} for x in (old or {}, new))
        if old != new:
            raise SystemExit(
                f"{path} holds cells made with other {part}:\n  there {old}\n  now   {new}\n"
                f"Move it away, or give another folder with --out."
            )
    return kept


def _wanted(only: list[tuple[str, str, str]], data: str, name: str, seed: int) -> bool:
    def fits(one: tuple[str, str, str]) -> bool:
        return all(w in ("", "*", have) for w, have in zip(one, (data, name, str(seed)), strict=True))

    return not only or any(fits(one) for one in only)


def _summary(
    scores: dict[str, dict[int, dict[str, Any]]], chosen: dict[str, float]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, cells in scores.items():
        if not cells:
            continue
        tests = {seed: cell["test"] for seed, cell in cells.items()}
        found[name] = {
            "lr": chosen[name],
            "seeds": list(tests),
            "test": mean(tests.values()),
            "sd": _sd(list(tests.values())),
            "valid": mean(cell["valid"] for cell in cells.values()),
            "train_s": mean(cell["train_s"] for cell in cells.values()),
            "differences": {},
        }
        if not SYSTEMS[name].ours:
            continue
        for other, theirs in scores.items():
            if SYSTEMS[other].ours or SYSTEMS[other].method != SYSTEMS[name].method or not theirs:
                continue
            others = [cell["test"] for cell in theirs.values()]
            error = (_sd(list(tests.values())) ** 2 / len(tests) + _sd(others) ** 2 / len(others)) ** 0.5
            found[name]["differences"][other] = {
                "mean": mean(tests.values()) - mean(others),
                "standard_error": error,
                "by_seed": {
                    str(seed): tests[seed] - theirs[seed]["test"] for seed in tests if seed in theirs
                },
            }
    return found


def _sd(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _show(split: Split, settings: Settings, found: dict[str, dict[str, Any]]) -> None:
    print(
        f"\nTest accuracy on {split.name} ({split.n_rows['test']:,} test rows), {settings.epochs:g} epochs; "
        f"heads: Penjing {settings.ours_head}, peers {settings.peer_head}, rate {settings.head_lr or 'lr'}; "
        f"validation: {split.note}"
    )
    table(
        [
            {
                "system": name,
                "lr": f"{one['lr']:g}",
                "seeds": ",".join(map(str, one["seeds"])),
                "test %": f"{100 * one['test']:.2f} ± {100 * one['sd']:.2f}",
                "valid %": f"{100 * one['valid']:.2f}",
                "train s": f"{one['train_s']:.0f}",
            }
            for name, one in found.items()
        ]
    )
    for name, one in found.items():
        for other, difference in one["differences"].items():
            seeds = ", ".join(f"{100 * d:+.2f}" for d in difference["by_seed"].values())
            print(
                f"{name} - {other}: {100 * difference['mean']:+.2f} points "
                f"(standard error {100 * difference['standard_error']:.2f}; by seed {seeds})"
            )
