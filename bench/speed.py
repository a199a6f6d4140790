"""`speed`: systems take turns, A B C D, A B C D, …, each in blocks of its own training's steps.

Each system lives in a process of its own and sleeps between its turns; data loading is inside its time.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from statistics import median
from typing import Any

from bench.machine import facts, load_average, matrix_peaks, table, while_others, write
from bench.sets import Split
from bench.systems import SYSTEMS, Job, Settings
from bench.worker import Child

BUSY = 0.15  # cores in use by others above which a block is marked


def speed(
    split: Split,
    settings: Settings,
    out: Path,
    names: list[str],
    *,
    block: int = 25,
    rounds: int = 6,
    warm: int = 15,
) -> dict[str, Any]:
    """Race the systems on one data set; print the table, write speed-<data>.json, return what was written."""
    _warn_of_cycle(split, settings, block * rounds)
    loads, peaks = [load_average()], [matrix_peaks(settings.device)]
    log = out / f"speed-{split.name}.log"
    log.unlink(missing_ok=True)
    steps = max(settings.steps(split.n_rows["train"]), warm + block * rounds + 10)
    blocks: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    told: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        children: dict[str, Child] = {}
        for name in names:
            job = Job("turns", SYSTEMS[name], settings, split, steps)
            children[name] = stack.enter_context(Child(job, log))
            told[name] = children[name].hear()
            if warm:
                children[name].go(warm)
        for number in range(rounds):
            for name in names:
                child = children[name]
                blocks[name].append(while_others(lambda child=child: child.go(block)))  # type: ignore[misc]
            rates = ", ".join(f"{n} {_rate(blocks[n][-1]):,.0f}" for n in names)
            print(f"round {number + 1}/{rounds}, real tokens/s: {rates}", flush=True)
    loads.append(load_average())
    peaks.append(matrix_peaks(settings.device))
    found = {name: _summary(name, names, blocks, told, peaks, split) for name in names}
    _show(split, settings, found, loads, peaks)
    whole = {**facts(settings, split), "load": loads, "peaks_gflops": peaks, "block": block, "rounds": rounds}
    whole |= {"warm_steps": warm, "systems": found, "blocks": blocks, "told": told}
    write(out / f"speed-{split.name}.json", whole)
    return whole


def _rate(one: dict[str, Any]) -> float:
    return float(one["tokens"] / one["seconds"])


def _summary(
    name: str,
    names: list[str],
    blocks: dict[str, list[dict[str, Any]]],
    told: dict[str, dict[str, Any]],
    peaks: list[dict[str, float]],
    split: Split,
) -> dict[str, Any]:
    mine, system = blocks[name], SYSTEMS[name]
    seconds, n_tokens = sum(b["seconds"] for b in mine), sum(b["tokens"] for b in mine)
    rates = [_rate(b) for b in mine]
    known = next(
        (t for n, t in told.items() if "flops_a_token" in t and SYSTEMS[n].method == system.method), None
    )
    types = mine[-1]["types"]
    precision = "bf16" if "bfloat16" in types else "fp32"
    peak = max(p[precision] for p in peaks)
    reached = median(rates) * known["flops_a_token"] / 1e9 / peak if known else None
    ratios = {}
    for other in names:
        if other != name and SYSTEMS[other].method == system.method and not SYSTEMS[other].ours:
            each = [_rate(a) / _rate(b) for a, b in zip(mine, blocks[other], strict=True)]
            whole = (n_tokens / seconds) / (
                sum(b["tokens"] for b in blocks[other]) / sum(b["seconds"] for b in blocks[other])
            )
            ratios[other] = {"median": median(each), "min": min(each), "max": max(each), "whole": whole}
    mean = known["tokens_a_row"] if known else n_tokens / sum(b["rows"] for b in mine)
    return {
        "about": system.about,
        "types": types,
        "tokens_per_s": median(rates),
        "tokens_per_s_range": [min(rates), max(rates)],
        "samples_per_s": median(rates) / mean,  # rows of the data set's mean length
        "samples_per_s_raw": sum(b["rows"] for b in mine) / seconds,
        "ms_a_step": 1e3 * median(median(b["each"]) for b in mine),
        "ms_a_step_of_blocks": 1e3 * median(b["seconds"] / len(b["each"]) for b in mine),
        "tokens_a_row": n_tokens / sum(b["rows"] for b in mine),
        "padding": 1 - n_tokens / sum(b["padded"] for b in mine),
        "peak_share": reached,
        "peak_mib": mine[-1]["peak_mib"],
        "peak_after_steps": mine[-1]["peak_after"],
        "loaded_mib": told[name]["loaded_mib"],
        "ratios": ratios,
        "others": [b["others"] for b in mine],
    }


def _show(
    split: Split,
    settings: Settings,
    found: dict[str, dict[str, Any]],
    loads: list[list[float]],
    peaks: list[dict[str, float]],
) -> None:
    on_cpu = settings.device == "cpu"
    lines = []
    for name, one in found.items():
        share = "" if one["peak_share"] is None else f"{one['peak_share']:.1%}"
        ratios = {
            "fast"
            if SYSTEMS[other].grouped
            else "plain": f"{r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})"
            for other, r in one["ratios"].items()
            if SYSTEMS[name].ours
        }
        lines.append(
            {
                "system": name,
                "type": "+".join(one["types"]),
                "samples/s": f"{one['samples_per_s']:.1f}",
                "real tokens/s": f"{one['tokens_per_s']:,.0f}",
                "ms/step": f"{one['ms_a_step' if on_cpu else 'ms_a_step_of_blocks']:.1f}",
                "padding": f"{one['padding']:.0%}",
                "tokens/row": f"{one['tokens_a_row']:.1f}",
                "of peak": share,
                "peak MiB": f"{one['peak_mib']:,.0f}",
                "vs plain peer": ratios.get("plain", ""),
                "vs fast peer": ratios.get("fast", ""),
            }
        )
    rows = f"{split.n_rows['train']:,} rows"
    print(f"\nSpeed on {split.name} ({rows}), batch {settings.batch}, {settings.device}:")
    table(lines)
    print(
        "samples/s: rows of the set's mean length, from real tokens/s. vs: real tokens/s over the peer's in "
        "the same round, median (min-max)."
    )
    print(
        "Matrix peak before and after, GFLOP/s: "
        + "; ".join(f"fp32 {p['fp32']:,.0f}, bf16 {p['bf16']:,.0f}" for p in peaks)
        + f". Load average before {loads[0]}, after {loads[1]}."
    )
    busy = [share for one in found.values() for share in one["others"]]
    if median(busy) > BUSY or max(busy) > 0.5:
        print(
            f"WARNING: others used {median(busy):.2f} cores in the median block, {max(busy):.2f} at most. "
            f"These times are not to be trusted; run it again on a quiet machine."
        )


def _warn_of_cycle(split: Split, settings: Settings, timed: int) -> None:
    """transformers' length grouping runs from long rows to short over a cycle of batches, again and again."""
    cycle = max(1, min(split.n_rows["train"] // (4 * settings.batch), 50))
    if timed % cycle:
        print(
            f"Note: the Trainer's length grouping goes from long to short rows every {cycle} steps; {timed} "
            f"timed steps are not a multiple of it. Compare real tokens/s, and see the column tokens/row."
        )
