"""Many LoRA trials at once against the same trials one after another: peft by Trainer, and Penjing alone.

    .venv/bin/python bench/bank.py --data banking77 --micro 1,2,4 --trials 16
    .venv/bin/python bench/bank.py --shape bert-base --micro 8 --trials 16 --device cuda
    .venv/bin/python bench/bank.py --smoke

The systems take turns, each in a process of its own. One after another, N trials go as fast as one, so one
trial's samples a second stand for the row of them. `--shape bert-base` takes random weights of that size: the
speed is the same, and no checkpoint is needed. Writes bench/out/bank-<data>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.sets import Split
    from bench.systems import Settings

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import facts, load_average, table, write
    from bench.sets import write as write_rows

    given = _parser().parse_args()
    if given.smoke:
        given.trials, given.micro, given.rounds, given.block, given.warm = 4, [2], 2, 4, 1
        given.rows = given.rows or 300
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        split = write_rows(given.data, Path(folder), rows=given.rows, test_rows=given.rows)
        settings = _settings(given, Path(folder))
        loads, found = [load_average()], []
        for micro in given.micro:
            found.append(race(split, replace(settings, batch=micro), given))
        loads.append(load_average())
        print(f"\n{given.trials} trials over {given.shape or given.base} on {split.name}, {settings.device}:")
        table([line for one in found for line in _lines(one)])
        print("samples/s: rows of mean length. Ratios: real tokens/s in the same round, median (least-most).")
        print(f"Load average before and after: {loads}.")
        whole = {**facts(settings, split), "load": loads, "trials": given.trials, "shape": given.shape}
        write(given.out / f"bank-{split.name}.json", {**whole, "races": found})
    return 0


def race(split: Split, settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """The systems in turns at one micro-batch; each one's blocks, rates and ratios."""
    from bench.machine import while_others
    from bench.systems import SYSTEMS, Job, System, tuned_peft
    from bench.worker import Child

    bank = System("bank", True, "lora", "auto", True, f"{given.trials} trials in the bank", given.trials)
    one_by_one = (tuned_peft(settings.device), "penjing-lora")
    systems = {**{name: SYSTEMS[name] for name in one_by_one}, "bank": bank}
    turns = {name: given.block if name != "bank" else -(-given.block // given.trials) for name in systems}
    blocks: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    types: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        children = {}
        for name, system in systems.items():
            job = Job("turns", system, settings, split, (given.rounds + 1) * given.block + given.warm + 10)
            children[name] = stack.enter_context(Child(job, given.out / f"bank-{split.name}.log"))
            types[name] = children[name].hear().get("precision", system.precision)
            children[name].go(given.warm)
        for number in range(given.rounds):
            for name, child in children.items():
                blocks[name].append(while_others(lambda c=child, n=turns[name]: c.go(n)))  # type: ignore[misc]
            rates = ", ".join(f"{name} {_rate(own[-1]):,.1f}" for name, own in blocks.items())
            print(f"micro-batch {settings.batch}, round {number + 1}, real tokens/s: {rates}", flush=True)
    ratios = {}
    for other in one_by_one:
        each = [_rate(a) / _rate(b) for a, b in zip(blocks["bank"], blocks[other], strict=True)]
        ratios[other] = {"median": median(each), "min": min(each), "max": max(each)}
    return {"micro": settings.batch, "types": types, "blocks": blocks, "ratios": ratios}


def _rate(block: dict[str, Any]) -> float:
    return float(block["tokens"] / block["seconds"])


def _lines(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table: a system each."""
    lines = []
    every = [b for blocks in one["blocks"].values() for b in blocks]
    mean = sum(b["tokens"] for b in every) / sum(b["rows"] for b in every)
    for name, blocks in one["blocks"].items():
        line = {
            "micro-batch": one["micro"],
            "system": name,
            "type": one["types"][name],
            "real tokens/s": f"{median(map(_rate, blocks)):,.0f}",
            "samples/s": f"{median(map(_rate, blocks)) / mean:,.1f}",
            "peak MiB": f"{blocks[-1]['peak_mib']:,.0f}",
            "others' cores": f"{median(b['others'] for b in blocks):.2f}",
        }
        for other, r in one["ratios"].items():
            mine = f"{r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})"
            line[f"bank / {other}"] = mine if name == "bank" else ""
        lines.append(line)
    return lines


def _settings(given: argparse.Namespace, folder: Path) -> Settings:
    import torch

    from bench.systems import Settings, with_lora_defaults
    from penjing.models.load import find

    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    base = str(make_base(folder / given.shape)) if given.shape else given.base
    plain = Settings(base=base, folder=str(find(base)), max_length=given.max_length, device=device)
    return with_lora_defaults(plain)


def make_base(folder: Path) -> Path:
    """A random BERT-base (110 million parameters) with MiniLM's tokenizer, which has BERT's vocabulary."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from penjing.models.load import find, quiet

    with quiet():
        AutoTokenizer.from_pretrained(find("minilm")).save_pretrained(folder)
        torch.manual_seed(0)
        BertModel(BertConfig()).save_pretrained(folder)
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="banking77", help="banking77, clinc150, sst2, agnews_4k or a CSV")
    add("--rows", type=int, help="keep about so many rows of each split")
    add("--base", default="minilm", help="preset or folder")
    add("--shape", choices=["bert-base"], help="random weights of this size in place of --base")
    add("--trials", type=int, default=16)
    add("--micro", type=_ints, default=[1, 2, 4], help="rows a trial gives to each update; with commas")
    add("--max-length", type=int, default=128)
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--rounds", type=int, default=6)
    add("--block", type=int, default=64, help="updates a turn: of one trial, or of all in the bank together")
    add("--warm", type=int, default=5, help="updates of each system before the first round")
    add("--out", type=Path, default=ROOT / "bench" / "out")
    add("--smoke", action="store_true", help="four trials, two short rounds: only to see that it runs")
    return parser


def _ints(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
