"""Rates of learning around every method's own, on validation rows: is the default a good one?

    .venv/bin/python bench/rates.py --data banking77 --data sst2
    .venv/bin/python bench/rates.py --data sst2 --methods prompt,prefix --times 1,3,10 --base bert-mini

One `penjing search` a data set, its grid every method at every multiple of the rate that it takes by itself,
every trial whole. Test rows are not read. Writes bench/out/rates-DATA.json and prints a table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "top": [{"layers": 0}, {"layers": 2}],
    "p_tuning": [{"version": 1}],  # version 2 is `prefix` from another beginning
    "peft": [{"peft_type": "VERA"}],
}


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file
        sys.path[0] = str(ROOT)
    from bench.machine import table, write
    from bench.sets import write as write_rows
    from penjing import plugin

    given = _parser().parse_args()
    names = given.methods or list(plugin.found("methods"))
    wanted = [{name: options} for name in names for options in OPTIONS.get(name, [{}])]
    for data in given.data or ["banking77"]:
        with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
            split = write_rows(data, Path(folder), rows=given.rows, test_rows=given.valid_rows)
            trials = _grid(given, split, wanted, Path(folder))
        write(
            given.out / f"rates-{split.name}.json",
            {"base": given.base, "epochs": given.epochs, "rows": split.n_rows, "trials": trials},
        )
        print(f"\n{split.name}: {split.n_rows}, {given.epochs:g} epochs; accuracy on validation rows, %")
        table(_lines(trials, given.times))
    return 0


def _grid(given: argparse.Namespace, split: Any, wanted: list[Any], folder: Path) -> list[dict[str, Any]]:
    """What every trial was, and its score on the validation rows."""
    from penjing.chains.search import search

    run = search(
        {
            "base": given.base,
            "data": {"train": split.train, "valid": split.valid},
            "method": {"choose": wanted},
            "train": {"epochs": given.epochs, "evals": 3, "lr_scale": {"choose": given.times}},
            "search": {
                "sampler": "grid",
                "trials": len(wanted) * len(given.times),
                "first_share": 1.0,
                "combine": False,
            },
            "seed": given.seed,
            "device": given.device,
            "out": str(folder / "runs"),
        }
    )
    lines = run.lines("search.jsonl")
    settings = {line["begun"]: line["settings"] for line in lines if "begun" in line}
    ended = [line["ended"] for line in lines if "ended" in line]
    return [{**settings[one["trial"]], **one} for one in ended]


def _lines(trials: list[dict[str, Any]], times: list[float]) -> list[dict[str, str]]:
    """One line for each method, one column for each multiple of its rate."""
    found: dict[str, dict[str, str]] = {}
    for one in trials:
        name = str(one["method"])
        line = found.setdefault(name, {"method": name, **{f"x {scale:g}": "" for scale in times}})
        score = one.get("score")
        line[f"x {one['train.lr_scale']:g}"] = "failed" if score is None else f"{100 * score:.1f}"
    return list(found.values())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", action="append", help="banking77, clinc150, sst2, agnews_4k or a CSV; may be repeated")
    add("--base", default="minilm")
    add("--methods", type=lambda text: text.split(","), help="names with commas; all when not given")
    add("--times", type=lambda text: [float(x) for x in text.split(",")], default=[0.3, 1.0, 3.0])
    add("--epochs", type=float, default=5.0)
    add("--rows", type=int, default=2000, help="keep about so many train rows")
    add("--valid-rows", type=int, default=1000, help="keep about so many validation rows")
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
