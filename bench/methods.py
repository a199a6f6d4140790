"""The methods table: quality, trainable share, memory and speed of every method, and of peft where it has it.

    .venv/bin/python bench/methods.py --data banking77 --data sst2 --seeds 0,1,2
    .venv/bin/python bench/methods.py --data banking77 --methods lora,ia3 --rates 3e-3,1e-2 --seeds 0 --own

A cell is one training (data, method, side, rate, seed) in a process of its own; a finished cell is written to
bench/out/methods-DATA.json at once and does not run again. The peer is transformers' Trainer with
group_by_length, for adapters over peft, with the same settings, head, rate, steps and precision. Rates are
each method's default when none are given; with several, every one is trained and told with its validation
score. New layers of the head have a rate of their own in every system.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.sets import Split
    from bench.systems import Settings, System

ROOT = Path(__file__).resolve().parents[1]
OPTIONS: dict[str, dict[str, Any]] = {"top": {"layers": 2}, "peft": {"peft_type": "VERA"}}
IN_PEFT = ("lora", "adalora", "ia3", "peft")  # whose adapters stand on layers; virtual tokens race elsewhere


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":
        sys.path[0] = str(ROOT)
    from bench.sets import write
    from penjing import plugin

    given = _parser().parse_args()
    names = given.methods or list(plugin.found("methods"))
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        for data in given.data or ["banking77"]:
            split = write(data, Path(folder), rows=given.rows, test_rows=given.test_rows)
            _table(split, _settings(given), given, names)
    return 0


def _settings(given: argparse.Namespace) -> Settings:
    import torch

    from bench.systems import Settings, with_lora_defaults
    from penjing.models.load import find

    device = "cuda" if given.device == "auto" and torch.cuda.is_available() else given.device
    device = "cpu" if device == "auto" else device
    plain = Settings(folder=str(find("minilm")), epochs=given.epochs, device=device, peer_head="mean")
    return replace(with_lora_defaults(plain), head_lr=given.head_lr)


def _systems(name: str, precision: str) -> list[System]:
    """Penjing's side of a method, and peft's where there is one."""
    from bench.systems import System

    options = OPTIONS.get(name, {})
    made = [System(f"{name}", True, name, precision, True, f"Penjing {name}", options=options)]
    if name in (*IN_PEFT, "full"):
        about = f"{name} by Trainer" + (" and peft" if name != "full" else "")
        made.append(System(f"{name} (peer)", False, name, precision, True, about, options=options))
    return made


def _table(split: Split, settings: Settings, given: argparse.Namespace, names: list[str]) -> None:
    """Run the cells of one data set that are not done, and print the table."""
    from bench.machine import facts, load_average, table, write
    from bench.systems import Job
    from bench.worker import Child
    from penjing import plugin

    path = given.out / f"methods-{split.name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = {**facts(settings, split), "precision": given.precision}
    _same(path, kept, known)
    cells: dict[str, dict[str, Any]] = kept.get("cells", {})
    for name in names:
        default = plugin.build("methods", plugin.Choice(name, OPTIONS.get(name, {}))).lr
        for system in _systems(name, given.precision)[: 1 if given.own else None]:
            for rate in given.rates or [default]:
                for seed in given.seeds:
                    key = f"{system.name} lr={rate:g} seed={seed}"
                    if key in cells:
                        continue
                    own = replace(settings, lr=rate, lora_lr=rate, seed=seed)
                    with Child(Job("cell", system, own, split), given.out / "methods.log") as child:
                        found = child.hear()
                    about = {"system": system.name, "lr": rate, "seed": seed, "load": load_average()}
                    cells[key] = {**found, **about}
                    write(path, {**known, "cells": cells})
                    scores = f"valid {found['valid']:.4f}, test {found['test']:.4f}"
                    print(f"{split.name} {key}: {scores}", flush=True)
    told = f"{split.n_rows}, {split.n_labels} labels, {settings.epochs:g} epochs, {given.precision}"
    print(f"\n{split.name}: {told}")
    table(_lines(cells, split.n_rows["train"] * settings.epochs))


def _same(path: Path, kept: dict[str, Any], known: dict[str, Any]) -> None:
    """Stop where the file holds cells of other settings or rows."""
    for part in ("settings", "rows", "device", "precision"):
        now = json.loads(json.dumps(known[part]))
        if kept and kept[part] != now:
            raise SystemExit(f"{path} was made with other {part}: {kept[part]}, now {now}. Move it away.")


def _lines(cells: dict[str, dict[str, Any]], rows_seen: float) -> list[dict[str, Any]]:
    """One line for each system and rate: mean and spread over the seeds."""
    lines = []
    for system, rate in dict.fromkeys((cell["system"], cell["lr"]) for cell in cells.values()):
        own = [cell for cell in cells.values() if (cell["system"], cell["lr"]) == (system, rate)]
        tests = [100 * cell["test"] for cell in own]
        spread = stdev(tests) if len(tests) > 1 else 0.0
        lines.append(
            {
                "system": system,
                "lr": f"{rate:g}",
                "seeds": len(own),
                "valid %": f"{100 * mean(cell['valid'] for cell in own):.2f}",
                "test %": f"{mean(tests):.2f} ± {spread:.2f}",
                "trains %": f"{100 * mean(cell['trainable'] / cell['parameters'] for cell in own):.2f}",
                "peak MiB": f"{mean(cell['peak_mib'] for cell in own):.0f}",
                "rows/s": f"{rows_seen / mean(cell['train_s'] for cell in own):.0f}",
            }
        )
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", action="append", help="banking77, clinc150, sst2, agnews_4k or a CSV; may be repeated")
    add("--methods", type=lambda text: text.split(","), help="names with commas; all when not given")
    add("--seeds", type=lambda text: [int(word) for word in text.split(",")], default=[0, 1, 2])
    add("--rates", type=lambda text: [float(word) for word in text.split(",")], help="for every method named")
    add("--head-lr", type=float, default=5e-3, help="of the head's layers; what Penjing takes for minilm")
    add("--own", action="store_true", help="without the peers: a sweep of rates")
    add("--epochs", type=float, default=10.0)
    add("--precision", choices=["fp32", "bf16"], default="fp32")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--rows", type=int, help="keep about so many train rows")
    add("--test-rows", type=int, help="keep about so many validation and test rows")
    add("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
