"""Weights in 4 and 3 bits: what GPTQ and AWQ give back of what rounding to nearest loses, on a base of our
own.

    .venv/bin/python bench/quantize.py                # grows nanoGPT's 4 x 128 on tinyshakespeare first
    .venv/bin/python bench/quantize.py --smoke

Perplexity on the last tenth of the text, which nothing was fitted on; `recovered` is the share of the way
from rounding's perplexity back to that of fp32. Published for GPTQ, LLaMA-7B on WikiText2 (IST-DASLab/gptq):
33 % at 4 bits, 88 % at 3. `layers` counts those whose outputs err less than rounding's on the same inputs.
Needs ../shared/data. Writes bench/out/quantize.json.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = {4: 0.33, 3: 0.88}  # recovered by GPTQ, a scale a row


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import load_average, processor, table, write

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, help="of growing, fewer than nanoGPT's for a CPU (2,000)")
    parser.add_argument("--texts", type=int, default=256, help="pieces of the train text to calibrate on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    given = parser.parse_args()
    if given.smoke:
        given.steps, given.texts = 20, 16
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        held, train, test, score = grown(given, Path(folder))
        plain = score(held, test)
        lines = list(_measured(held, train, test, score, given))
    print(f"perplexity of fp32: {plain:.3f}")
    table([_line(found, _recovered(found, lines, plain)) for found in lines])
    for bits, share in PUBLISHED.items():
        print(
            f"GPTQ at {bits} bits, published for LLaMA-7B on WikiText2, a scale a row: {share:.0%} recovered"
        )
    facts = {"processor": processor(), "load": load_average(), "seed": given.seed, "texts": given.texts}
    write(given.out / "quantize.json", {**facts, "plain": plain, "found": lines})
    return 0


def grown(given: argparse.Namespace, folder: Path) -> tuple[Any, Any, Any, Any]:
    """The model in memory, its train and held-out pieces, and what scores one by the other."""
    from bench import nano
    from bench.grow import DATA, our_run
    from penjing.compressor import Held
    from penjing.engine.scoring import predictions
    from penjing.jobs.vocabulary import train_tokenizer

    setting = replace(nano.CPU, steps=given.steps or nano.CPU.steps)
    text = gzip.decompress((DATA / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode("utf-8")
    (folder / "input.txt").write_text(text, encoding="utf-8")
    train_tokenizer([str(folder / "input.txt")], folder / "tok", kind="char", family="plain")
    job, made, steps = our_run(folder, setting, given.seed, "fp32")
    for _ in steps:
        pass
    made.model.requires_grad_(False)
    made.model.eval()
    base = replace(job.base, trunk=made.model.trunk)
    held = Held(made.model, base, job.task, job.data.names, setting.context)

    def score(one: Any, part: Any) -> float:
        found = predictions(job.task, one.model, part)
        return exp(job.task.score(found, part.targets, job.data.names, {}, 0).values["loss"])

    return held, job.parts[0], job.parts[1], score


def _measured(
    held: Any, train: Any, test: Any, score: Any, given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Perplexity after each quantizer, at each number of bits and each group."""
    import numpy as np

    from penjing import plugin
    from penjing.compressor import Rehearsal
    from penjing.records import NO_ROWS, Part

    rows = np.linspace(0, len(train) - 1, given.texts).astype(np.int64)
    rehearsal = Rehearsal(NO_ROWS, Part(NO_ROWS, train.tokens.take(rows), np.zeros(len(rows))))
    for bits in (4, 3):
        for group in (None, 64):
            for name in ("round", "gptq", "awq"):
                model = copy.deepcopy(held.model)
                one = replace(held, model=model, base=replace(held.base, trunk=model.trunk))
                settings = {"bits": bits, "group": group, "symmetric": False}
                step = plugin.build(
                    "compressors", plugin.choice({name: settings}, kind="compressors", key="with")
                )
                began = time.perf_counter()
                made = step.shrink(one, rehearsal)
                seconds = time.perf_counter() - began
                yield {
                    "name": name, "bits": bits, "group": group, "perplexity": score(made.held, test),
                    "seconds": seconds, "facts": dict(made.facts),
                }  # fmt: skip


def _recovered(found: dict[str, Any], lines: list[dict[str, Any]], plain: float) -> str:
    """The share of what rounding on the same grids loses that this way does not."""
    same = [(o["bits"], o["group"], o["name"]) for o in lines]
    nearest = lines[same.index((found["bits"], found["group"], "round"))]["perplexity"]
    if found["name"] == "round" or nearest <= plain:
        return ""
    return f"{(nearest - found['perplexity']) / (nearest - plain):.0%}"


def _line(found: dict[str, Any], recovered: str) -> dict[str, str]:
    facts = found["facts"]
    return {
        "bits": str(found["bits"]),
        "group": str(found["group"] or "row"),
        "by": found["name"],
        "perplexity": f"{found['perplexity']:.3f}",
        "recovered": recovered,
        "layers": f"{facts['layers_better']} of {facts['layers']}" if "layers_better" in facts else "",
        "error": f"{facts['error'] / facts['error_of_rounding']:.2f}" if "error" in facts else "1",
        "bits a weight": f"{facts['bits_a_weight']:.2f}",
        "s": f"{found['seconds']:.1f}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
