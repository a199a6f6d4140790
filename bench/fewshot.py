"""Few rows a class: Penjing's zero-shot and few-shot beside TF-IDF and SetFit, over seeds.

    .venv/bin/python bench/fewshot.py --data banking77 --shots 8,10,16 --seeds 0,1,2,3,4
    .venv/bin/python bench/fewshot.py --data sst2 --systems few_shot,tfidf --device cuda

Writes bench/out/fewshot-<data>.json. A cell is one (system, shots, seed); finished cells are not run again.
Every system learns from the same rows; the development rows, as few as the train rows, are read only by
Penjing, to keep the better of its validations. `setfit` is the package SetFit (`pip install setfit`) with the
settings of its paper: 20 positive and 20 negative pairs a row, 16 pairs a step, one pass, rate 2e-5, logistic
regression (Tunstall et al. 2022).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PAIRS, STEP = 20, 16  # pairs of a kind a row, pairs a step: SetFit's paper


def ours(task: Any, split: Any, shots: int, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """A run of Penjing; its test accuracy and the seconds of the steps."""
    from penjing import tune

    with tempfile.TemporaryDirectory(prefix="penjing-fewshot-") as folder:
        run = tune(
            base=given.base, train=split.train, test=split.test, text="text", label="label",
            task=task, seed=seed, out=folder, device=given.device,
        )  # fmt: skip
        result = run.result
    untuned = result["before"].get("values", {}).get("accuracy")
    return {
        "test": result["after"]["values"]["accuracy"],
        "train_s": result["cost"]["seconds"],
        "untuned": untuned,
    }


def zero_shot(split: Any, shots: int, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    return ours("zero_shot", split, shots, seed, given)


def probe(split: Any, shots: int, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    return ours({"few_shot": {"shots": shots, "tune": False, "how": "nearest"}}, split, shots, seed, given)


def few_shot(split: Any, shots: int, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    return ours({"few_shot": {"shots": shots}}, split, shots, seed, given)


def drawn(split: Any, shots: int, seed: int) -> tuple[list[str], list[str], list[str], list[str]]:
    """Texts and labels of the rows that Penjing learns from, and of the test rows."""
    from penjing.data.read import read
    from penjing.data.shots import draw

    train, test = (read(path, text="text", label="label") for path in (split.train, split.test))
    kept = train.take(draw(train, shots=shots, seed=seed, valid=True)[0])
    return kept.texts, [x[0] for x in kept.labels], test.texts, [x[0] for x in test.labels]


def tfidf(split: Any, shots: int, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    from penjing.baseline import fit_baseline

    texts, labels, asked, wanted = drawn(split, shots, seed)
    names, targets = np.unique(labels, return_inverse=True)
    began = time.perf_counter()
    predict = fit_baseline(texts, targets, len(names), multi_label=False, seed=seed)
    seconds = time.perf_counter() - began
    return {"test": float((names[predict(asked).argmax(1)] == wanted).mean()), "train_s": seconds}


def setfit(split: Any, shots: int, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    try:
        from setfit import SetFitModel, Trainer, TrainingArguments
    except ImportError as error:
        raise SystemExit(
            f"The system `setfit` was wanted; it cannot be imported ({error}). `pip install setfit`, or "
            f"leave it out of --systems."
        ) from error
    from datasets import Dataset

    from penjing.models.load import find

    texts, labels, asked, wanted = drawn(split, shots, seed)
    model = SetFitModel.from_pretrained(str(find(given.base)), device=given.device)
    with tempfile.TemporaryDirectory(prefix="penjing-setfit-") as folder:
        settings = TrainingArguments(
            output_dir=folder, batch_size=STEP, num_epochs=1, num_iterations=PAIRS, seed=seed,
            max_steps=given.setfit_steps, report_to="none", save_strategy="no",
        )  # fmt: skip
        rows = Dataset.from_dict({"text": texts, "label": labels})
        trainer = Trainer(model=model, args=settings, train_dataset=rows)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    found = model.predict(asked, use_labels=False) if model.labels is None else model.predict(asked)
    return {"test": float((np.asarray(found) == np.asarray(wanted)).mean()), "train_s": seconds}


SYSTEMS: dict[str, Callable[..., dict[str, Any]]] = {
    "zero_shot": zero_shot, "probe": probe, "few_shot": few_shot, "tfidf": tfidf, "setfit": setfit,
}  # fmt: skip


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import load_average, processor, table
    from bench.sets import write

    given = _parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"fewshot-{Path(given.data).stem}.json"
    kept = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    about = {
        "base": given.base,
        "device": given.device,
        "test_rows": given.test_rows,
        "setfit_steps": given.setfit_steps,
    }
    if kept and kept["about"] != about:
        raise SystemExit(f"{path} holds cells of {kept['about']}, not {about}. Move it away, or say --out.")
    cells: dict[str, Any] = kept.get("cells", {})
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        split = write(given.data, Path(folder), test_rows=given.test_rows)
        for shots in given.shots:
            for name in given.systems:
                for seed in given.seeds if name != "zero_shot" else given.seeds[:1]:
                    key = f"{name} shots={shots} seed={seed}"
                    if key in cells:
                        continue
                    began, before = time.process_time(), load_average()
                    cells[key] = SYSTEMS[name](split, shots, seed, given)
                    cells[key] |= {"cpu_s": time.process_time() - began, "load": [before, load_average()]}
                    whole = {"about": about, "processor": processor(), "rows": split.n_rows, "cells": cells}
                    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
                    print(f"{key}: test {cells[key]['test']:.4f}, {cells[key]['train_s']:.0f} s", flush=True)
    print(f"\nTest accuracy on {split.name} ({split.n_rows['test']:,} rows), base {given.base}")
    table([row for shots in given.shots for name in given.systems if (row := _row(cells, name, shots))])
    return 0


def _row(cells: dict[str, Any], name: str, shots: int) -> dict[str, str]:
    found = [cell for key, cell in cells.items() if key.startswith(f"{name} shots={shots} ")]
    if not found:
        return {}
    tests = [100 * cell["test"] for cell in found]
    return {
        "shots": str(shots), "system": name, "seeds": str(len(found)),
        "test %": f"{mean(tests):.2f} ± {stdev(tests) if len(tests) > 1 else 0:.2f}",
        "train s": f"{mean(c['train_s'] for c in found):.0f}",
        "cpu s": f"{mean(c['cpu_s'] for c in found):.0f}",
    }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser.add_argument("--data", default="banking77", help="a named set, or a CSV")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--shots", type=numbers, default=[8, 16, 32])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4])
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--test-rows", type=int, help="about so many test rows, for a smoke test")
    parser.add_argument("--setfit-steps", type=int, default=-1, help="so few steps of SetFit: smoke tests")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
