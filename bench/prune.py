"""What pruning and trimming cost and give: zeros on a base of our own, and a run taken apart.

    .venv/bin/python bench/prune.py weights        # grows nanoGPT's 4 x 128 on tinyshakespeare first
    .venv/bin/python bench/prune.py weights --smoke
    .venv/bin/python bench/prune.py run runs/banking77 --test test.csv

`weights`: perplexity on the last tenth of the text, which nothing was fitted on, at half the weights and at
2:4; `recovered` is the share of the way from magnitude's perplexity back to that of all weights. Published
for Llama-2-7B on WikiText2 (locuslab/wanda): dense 5.12, magnitude 14.89, SparseGPT 6.51, Wanda 6.42: 87 %
by Wanda. `run`: chains over a tuned run: bytes, rows of the test answered otherwise than the run's best model
does, the score, and sentences/s of both in turns. Needs ../shared/data. Writes bench/out/prune-*.json.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = {"wanda": 0.87}  # recovered at half the weights
CHAINS = (
    "trim_vocabulary",
    "trim_vocabulary(common=5000)",
    "drop_layers",
    "prune_heads",
    "prune_ffn",
    "drop_layers(keep=4)>prune_ffn>prune_heads>distill(layers=all)",
)


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("weights", "run"))
    parser.add_argument("folder", nargs="?", type=Path, help="of the run")
    parser.add_argument("--test", help="rows that nothing was chosen on")
    parser.add_argument("--with", dest="chains", action="append", help="a chain; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of growing, fewer than nanoGPT's for a CPU (2,000)")
    parser.add_argument("--texts", type=int, default=256, help="pieces of the train text to look at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    given = parser.parse_args()
    if given.smoke:
        given.steps, given.texts, given.rounds = 20, 16, 1
    if given.verb == "run" and not (given.folder and given.test):
        parser.error("`run` takes the run's folder and --test")
    given.out.mkdir(parents=True, exist_ok=True)
    (weights if given.verb == "weights" else taken_apart)(given)
    return 0


def weights(given: argparse.Namespace) -> None:
    """Perplexity after each way to choose zeros."""
    from bench.machine import load_average, processor, table, write
    from bench.quantize import grown

    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        held, train, test, score = grown(given, Path(folder))
        plain = score(held, test)
        lines = list(_thinned(held, train, test, score, given))
    print(f"perplexity of all weights: {plain:.3f}")
    for one in lines:
        least = next(o for o in lines if (o["pattern"], o["name"]) == (one["pattern"], "magnitude"))
        lost = least["perplexity"] - plain
        one["recovered"] = (least["perplexity"] - one["perplexity"]) / lost if lost > 0 else None
    table([_line(one) for one in lines])
    print(f"Wanda, published for Llama-2-7B on WikiText2: {PUBLISHED['wanda']:.0%} recovered")
    facts = {"processor": processor(), "load": load_average(), "seed": given.seed, "texts": given.texts}
    write(given.out / "prune-weights.json", {**facts, "plain": plain, "found": lines})


def _thinned(
    held: Any, train: Any, test: Any, score: Any, given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    import numpy as np

    from penjing import plugin
    from penjing.compressor import Rehearsal
    from penjing.records import NO_ROWS, Part

    rows = np.linspace(0, len(train) - 1, given.texts).astype(np.int64)
    rehearsal = Rehearsal(NO_ROWS, Part(NO_ROWS, train.tokens.take(rows), np.zeros(len(rows))))
    for pattern in (None, "2:4"):
        for name in ("magnitude", "wanda", "sparsegpt"):
            model = copy.deepcopy(held.model)
            one = replace(held, model=model, base=replace(held.base, trunk=model.trunk))
            settings = {"pattern": pattern, **({} if name == "magnitude" else {"rows": given.texts})}
            asked = plugin.choice({name: settings}, kind="compressors", key="with")
            began = time.perf_counter()
            made = plugin.build("compressors", asked).shrink(one, rehearsal)
            seconds = time.perf_counter() - began
            found = {"name": name, "pattern": pattern or "half", "seconds": seconds}
            yield {**found, "perplexity": score(made.held, test), "facts": dict(made.facts)}


def _line(one: dict[str, Any]) -> dict[str, str]:
    facts, recovered = one["facts"], one["recovered"]
    return {
        "zeros": one["pattern"],
        "by": one["name"],
        "share": f"{facts['zeros_share']:.4f}",
        "perplexity": f"{one['perplexity']:.3f}",
        "recovered": "" if one["name"] == "magnitude" or recovered is None else f"{recovered:.0%}",
        "error": f"{facts['error'] / facts['error_of_magnitude']:.2f}" if "error" in facts else "1",
        "s": f"{one['seconds']:.1f}",
    }


def taken_apart(given: argparse.Namespace) -> None:
    """Bytes, answers, score and speed of a run's model and of what chains make of it."""
    from bench.machine import load_average, processor, table, write
    from penjing import compress, load
    from penjing.chains.weighed import bytes_of

    first = load(given.folder)
    rows, found = _rows(first, given.test), []
    base = {"bytes": bytes_of(first), **_answered(first, rows, first)}
    for chain in given.chains or CHAINS:
        made = compress(given.folder, chain, allow=True, memory=False)
        bundle = made.bundle
        speeds = _in_turns(first, bundle, rows, given.rounds)
        one = {"chain": chain, "bytes": bytes_of(bundle), **_answered(bundle, rows, first), "speeds": speeds}
        found.append(one)
        print(
            f"{chain}: {one['bytes'] / base['bytes']:.1%} of the bytes, score {one['score']:.4f}", flush=True
        )
    table(
        [
            {
                "chain": one["chain"],
                "bytes": f"{one['bytes'] / base['bytes']:.1%}",
                "otherwise": f"{one['otherwise']} of {one['rows']}",
                "score": f"{one['score']:.4f} ({one['score'] - base['score']:+.4f})",
                "speed": f"{median(b / a for a, b in one['speeds']):.2f}",
            }
            for one in found
        ]
    )
    facts = {"processor": processor(), "load": load_average(), "run": str(given.folder), "original": base}
    write(given.out / "prune-run.json", {**facts, "found": found})


def _rows(bundle: Any, path: str) -> Any:
    from penjing.data.read import read

    data = bundle.card.get("data", {})
    return read(path, text=data.get("text"), label=data.get("label"))


def _answered(bundle: Any, rows: Any, first: Any) -> dict[str, Any]:
    """The score, and how many rows are answered otherwise than by the first model."""
    part = bundle.part(rows)
    found, chosen = bundle.infer(part), bundle.card["chosen"]
    score = bundle.task.score(found, part.targets, bundle.labels, chosen, 0).values[bundle.task.best]
    theirs = [one["label"] for one in first.answer(rows)]
    ours = [one["label"] for one in bundle.answer(rows)]
    otherwise = sum(a != b for a, b in zip(ours, theirs, strict=True))
    return {"score": score, "otherwise": otherwise, "rows": len(rows)}


def _in_turns(first: Any, second: Any, rows: Any, rounds: int) -> list[tuple[float, float]]:
    """Rows/s of both, in turns."""
    found = []
    for _ in range(rounds):
        pair = []
        for bundle in (first, second):
            began = time.perf_counter()
            bundle.answer(rows)
            pair.append(len(rows) / (time.perf_counter() - began))
        found.append((pair[0], pair[1]))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
