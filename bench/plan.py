"""Forecasts against truth: `penjing plan`, then `penjing tune`, for short specs of many kinds.

    .venv/bin/python bench/plan.py
    .venv/bin/python bench/plan.py --only 0,3,7 --out bench/out/plan.json

Each spec is planned and run in processes of their own, on random bases of several widths with minilm's words,
on minilm itself and on presets that are grown, by methods, batches and precisions, over whole passes, so that
the largest batch occurs. Memory is the highest resident memory of the process that trains; the forecast is
what `plan` said of the job and of the libraries. `rehearsed` is what the run itself expected after it had
tried a batch. Times mean little on a machine that others use; memory does not care.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORDS = [
    "order",
    "parcel",
    "card",
    "late",
    "lost",
    "wrong",
    "fee",
    "invoice",
    "charged",
    "reset",
    "login",
    "page",
    "password",
    "courier",
    "refund",
    "broken",
    "item",
    "week",
    "today",
    "please",
    "help",
    "why",
    "when",
    "cannot",
]
OBJECTIVES = ("masked", "causal")
# (base or its width and layers, method or objective, rows a step, words a row, precision)
SPECS: tuple[tuple[Any, Any, int, int, str], ...] = (
    ("minilm", "full", 32, 30, "fp32"),
    ("minilm", "lora", 32, 30, "fp32"),
    ("minilm", "lora", 64, 15, "bf16"),
    ("minilm", {"top": {"layers": 2}}, 32, 30, "fp32"),
    ("minilm", "bitfit", 32, 30, "fp32"),
    ("minilm", "adapter", 8, 30, "fp32"),
    ("minilm", "full", 8, 60, "bf16"),
    ((128, 2), "full", 64, 30, "fp32"),
    ((256, 4), "full", 64, 30, "fp32"),
    ((256, 4), "lora", 64, 60, "fp32"),
    ((512, 4), "full", 16, 60, "fp32"),
    ((512, 4), "adapter", 32, 30, "bf16"),
    ((512, 4), "full", 32, 15, "bf16"),
    ((768, 2), "full", 16, 30, "fp32"),
    ("bert-mini", "masked", 16, 60, "fp32"),
    ("ettin-17m", "masked", 16, 60, "fp32"),
    ("gpt-micro", "causal", 16, 60, "fp32"),
    ("llama-mini", "causal", 8, 30, "fp32"),
)
STEPS = 8


def write_rows(path: Path, n: int, words: int) -> Path:
    """`n` rows of about so many words, of three labels."""
    draw = random.Random(n * 1000 + words)
    lines = ["text,label"]
    for i in range(n):
        size = max(3, round(draw.gauss(words, words / 4)))
        lines.append(" ".join(draw.choice(WORDS) for _ in range(size)) + f" {i},{'abc'[i % 3]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_base(path: Path, width: int, layers: int) -> Path:
    """A random BERT with minilm's words."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from penjing.models.presets import PRESETS, folder_of

    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
    )
    BertModel(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(folder_of(PRESETS["minilm"])).save_pretrained(path)
    return path


def asked(command: list[str]) -> dict[str, Any]:
    """The JSON of a penjing command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "penjing", *command, "--json"], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"penjing {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(folder: Path, number: int) -> dict[str, Any]:
    """Forecasts and truth of one spec."""
    base, method, batch, words, precision = SPECS[number]
    rows = write_rows(folder / f"rows{number}.csv", batch * 8, words)
    grows = method in OBJECTIVES
    if not isinstance(base, str):
        base = str(write_base(folder / f"base{number}", *base))
    asks = {"tokenizer": "minilm", "task": method} if grows else {"method": method}
    lines = {"documents": "line"} if grows else {}
    spec = {
        "base": base,
        **asks,
        "data": {"train": str(rows), **lines},
        "train": {"batch": batch, "steps": STEPS, "evals": 1, **({} if grows else {"trunk_cache": False})},
        "device": "cpu",
        "precision": precision,
        "out": str(folder / "runs"),
        "name": f"spec{number}",
    }
    path = folder / f"spec{number}.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
    plan = asked(["plan", str(path)])
    cost = asked(["pretrain" if grows else "tune", str(path)])["cost"]
    return {
        "spec": f"{SPECS[number][0]}",
        "method": method if isinstance(method, str) else next(iter(method)),
        "batch": batch,
        "words": words,
        "precision": precision,
        "plan_mib": plan["process_mib"] + plan["way"]["mib"],
        "most_mib": plan["process_mib"] + plan["way"]["most_mib"],
        "rehearsed_mib": cost["forecast_mib"],
        "peak_mib": cost["peak_mib"],
        "plan_s": plan["way"]["seconds"],
        "rehearsed_s": cost["forecast_s"],
        "seconds": cost["seconds"],
    }


def line_of(one: dict[str, Any]) -> str:
    """A row of the table."""
    what = f"{one['spec']:<12} {one['method']:<8} {one['batch']:>5} {one['words']:>5} {one['precision']}"
    memory = f"{one['plan_mib']:>9,.0f} {one['peak_mib']:>6,.0f} {one['peak_mib'] / one['plan_mib']:>5.2f}"
    seconds = f"{one['plan_s']:>8.1f} {one['seconds']:>6.1f} {one['seconds'] / one['plan_s']:>5.2f}"
    return f"{what} {memory} {one['rehearsed_mib']:>10,.0f} {seconds}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="numbers of specs, such as 0,3")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "plan.json")
    options = parser.parse_args()
    numbers = [int(n) for n in options.only.split(",")] if options.only else list(range(len(SPECS)))
    found = []
    print("spec         method   batch words prec   MiB plan  truth ratio  rehearsed   s plan  truth ratio")
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            one = measured(Path(folder), number)
            found.append(one)
            print(line_of(one), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}; every figure is in {options.out}")


if __name__ == "__main__":
    main()
