"""A search against the same trials one after another: how much faster, and through what.

    .venv/bin/python bench/search.py                 32 trials, banking77, 2,000 rows: hours
    .venv/bin/python bench/search.py --peers kinds   each kind of a peer's trial once and counted: half
    .venv/bin/python bench/search.py --smoke         4 trials of a few steps: does it run?

The same settings are timed four ways, each as wall time with all that belongs to it:

    peers    every trial whole, one after another: LoRA through peft and Trainer; what peft lacks through
    Penjing,
             rows and base read anew for each
    whole    every trial whole, in one process that reads rows and base once
    halved   as `whole`, with successive halving
    search   as `halved`, with the trunk cache where a method leaves the lowest layers alone, the bank where
             that gains

    combined as `search`, and the best on the validation rows may be an ensemble or a soup (the default)

So peers / whole is the engine's part, whole / halved that of halving, halved / search that of cache and bank.
`whole` names the exhaustive winner, too. Writes JSON and a table to bench/out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

WAYS = ("peers", "whole", "halved", "search", "combined")
SPACE: dict[str, Any] = {
    "choose": [
        {"lora": {"rank": {"choose": [4, 8, 16, 32]}}},
        {"adapter": {"size": {"choose": [16, 64]}}},
        {"top": {"layers": {"int": [1, 4]}}},
    ]
}


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file
        sys.path[0] = str(ROOT)
    from bench.machine import load_average, table, write
    from bench.sets import write as write_rows

    given = _parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        split = write_rows(given.data, Path(folder), rows=given.rows, test_rows=given.test_rows)
        found = measure(given, split, Path(folder))
    found["load"] = load_average()
    seconds = {way: found[way]["seconds"] for way in given.ways}
    pairs = {
        "search over peers": ("peers", "search"),
        "engine": ("peers", "whole"),
        "halving": ("whole", "halved"),
        "cache and bank": ("halved", "search"),
    }
    found["ratios"] = {
        part: seconds[slow] / seconds[quick]
        for part, (slow, quick) in pairs.items()
        if {slow, quick} <= seconds.keys()
    }
    write(given.out / f"search-{split.name}.json", found)
    table([{"way": way, "seconds": f"{s:.1f}", "test": _shown(found[way])} for way, s in seconds.items()])
    if found["ratios"]:
        table([{"part": part, "times": f"{ratio:.2f}"} for part, ratio in found["ratios"].items()])
    return 0


def _shown(found: dict[str, Any]) -> str:
    return f"{found['test']:.4f}" if "test" in found else ""


def measure(given: argparse.Namespace, split: Any, folder: Path) -> dict[str, Any]:
    """Seconds of each way, and the winner's accuracy on test rows where a way has one."""
    from penjing.chains.asked import read
    from penjing.chains.sampling import Tried, sampler

    values = {
        "base": given.base,
        "data": {"train": split.train, "valid": split.valid, "test": split.test},
        "train": {"epochs": given.epochs, "lr": {"log": [3e-4, 3e-3]}, "trunk_cache": False},
        "method": SPACE,
        "search": {"trials": given.trials, "combine": False},
        "device": given.device,
        "out": str(folder / "runs"),
    }
    asked = read(values)
    draw, tried = sampler("random", asked.values, asked.first.seed), list[Tried]()
    while len(tried) < given.trials and (settings := draw(tried)) is not None:
        tried.append(Tried(settings))
    specs = [asked.spec(one.settings) for one in tried]
    found: dict[str, Any] = {"settings": [one.settings for one in tried], "rows": split.n_rows}
    one_by_one = {**values["search"], "at_once": 1}
    cached = {**values["train"]}
    del cached["trunk_cache"]
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "peers": lambda: _peers(given, split, specs, folder),
        "whole": lambda: _whole(specs, folder / "whole"),
        "halved": lambda: _search({**values, "search": one_by_one}),
        "search": lambda: _search({**values, "train": cached}),
        "combined": lambda: _search({**values, "train": cached, "search": {"trials": given.trials}}),
    }
    for way in given.ways:
        found[way] = ways[way]()
        print(f"{way}: {found[way]['seconds']:.1f} s", flush=True)
    return found


def _peers(given: argparse.Namespace, split: Any, specs: list[Any], folder: Path) -> dict[str, Any]:
    from bench.systems import SYSTEMS, Job, Settings, tuned_peft
    from bench.worker import Child
    from penjing.chains.trial import Leg, carry, pool
    from penjing.models.load import find

    each: list[dict[str, Any]] = []
    known: dict[str, float] = {}  # seconds of each kind: all but the rate
    peer = SYSTEMS[tuned_peft(given.device)]
    for number, spec in enumerate(specs):
        kind = repr(spec.method)
        if given.peers == "kinds" and kind in known:
            each.append({"method": kind, "seconds": known[kind], "counted": True})
            continue
        start = time.perf_counter()
        if spec.method.name == "lora":
            rank = spec.method.settings["rank"]
            settings = Settings(base=given.base, folder=str(find(given.base)), device=given.device)
            settings = replace(
                settings, epochs=given.epochs, lora_lr=spec.train.lr, rank=rank, alpha=2 * rank
            )
            with Child(Job("cell", peer, settings, split), given.out / "search-peers.log") as child:
                child.hear()
        else:
            carry(Leg(number, 0, 1.0, spec, folder / "peers"), pool(spec, None))
        known[kind] = time.perf_counter() - start
        each.append({"method": kind, "seconds": known[kind]})
    return {"seconds": sum(one["seconds"] for one in each), "trials": each}


def _whole(specs: list[Any], folder: Path) -> dict[str, Any]:
    from penjing.bundle import load
    from penjing.chains.trial import Leg, carry, folder_of, pool

    began = time.perf_counter()
    shared = pool(specs[0], None)
    outcomes = [carry(Leg(number, 0, 1.0, spec, folder), shared) for number, spec in enumerate(specs)]
    seconds = time.perf_counter() - began
    best = max((o for o in outcomes if o.score is not None), key=lambda o: o.score or 0.0)
    bundle, test = load(folder_of(folder, best.trial)), shared.data.test
    assert test is not None
    answers = [answer["label"] for answer in bundle.predict(test.texts)]
    right = sum(a == labels[0] for a, labels in zip(answers, test.labels, strict=True))
    return {"seconds": seconds, "test": right / len(test), "winner": best.trial}


def _search(values: dict[str, Any]) -> dict[str, Any]:
    from penjing.chains.search import search

    began = time.perf_counter()
    run = search(values)
    test = run.result["after"]["values"]["accuracy"]
    seconds, said = time.perf_counter() - began, run.read("search.json")
    return {"seconds": seconds, "test": test, "winner": said["trial"], "way": said["chosen"]["way"]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="banking77")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=None)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--peers", choices=["all", "kinds"], default="all")
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    smoke = {"rows": 200, "test_rows": 100, "trials": 4, "epochs": 1.0}
    parser.add_argument("--smoke", action="store_true", help="a few steps of four trials")
    given, _ = parser.parse_known_args()
    if given.smoke:
        parser.set_defaults(**smoke)
    return parser


if __name__ == "__main__":
    sys.exit(main())
