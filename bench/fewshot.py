"""Few rows a class: Penjing's zero-shot and few-shot beside TF-IDF and SetFit, over seeds.

    .venv/bin/python bench/fewshot.py --data banking77 --shots 8,10,16 --seeds 0,1,2,3,4
    .venv/bin/python bench/fewshot.py --data sst2 --systems few_shot,tfidf --device cuda

Writes bench/out/fewshot-<data>.json. A cell is one (system, shots, seed); finished cells are not run again.
Every system learns from the same rows; the development rows, as few as the train rows, are read only by
Penjing, to keep the better of its validations. `setfit` is SetFit's recipe written out (Tunstall et al. 2022:
20 positive and 20 negative pairs a row, MSE of the cosine, 16 pairs a step, one pass, rate 2e-5, logistic
regression), because its package does not run beside transformers 5.
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
PAIRS, STEP, RATE = 20, 16, 2e-5  # SetFit's own defaults at the time of its paper


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
    import torch
    from sklearn.linear_model import LogisticRegression
    from torch.nn import functional as F
    from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

    from penjing.models.load import find

    texts, labels, asked, wanted = drawn(split, shots, seed)
    device = "cuda" if given.device.startswith("cuda") else "cpu"
    torch.manual_seed(seed)
    folder = find(given.base)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device)

    def embed(some: list[str]) -> torch.Tensor:
        inputs = tokenizer(some, padding=True, truncation=True, max_length=256, return_tensors="pt").to(
            device
        )
        mask = inputs["attention_mask"][..., None]
        states = model(**inputs).last_hidden_state
        return F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    def embed_all(some: list[str]) -> np.ndarray:
        model.eval()
        with torch.no_grad():
            return np.concatenate([embed(some[i : i + 64]).cpu().numpy() for i in range(0, len(some), 64)])

    pairs = drawn_pairs(np.array(labels), seed)[: given.pairs]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    steps = -(-len(pairs) // STEP)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    began = time.perf_counter()
    for at in range(0, len(pairs), STEP):
        first, second, alike = zip(*pairs[at : at + STEP], strict=True)
        cosine = (embed([texts[i] for i in first]) * embed([texts[i] for i in second])).sum(1)
        F.mse_loss(cosine, torch.tensor(alike, dtype=torch.float32, device=device)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    head = LogisticRegression().fit(embed_all(texts), labels)
    seconds = time.perf_counter() - began
    return {"test": float((head.predict(embed_all(asked)) == wanted).mean()), "train_s": seconds}


def drawn_pairs(labels: np.ndarray, seed: int) -> list[tuple[int, int, float]]:
    """For each row `PAIRS` rows of its class and as many of others, shuffled."""
    generator = np.random.default_rng(seed)
    pairs = []
    for i, label in enumerate(labels):
        same = np.flatnonzero((labels == label) & (np.arange(len(labels)) != i))
        for others, alike in ((same, 1.0), (np.flatnonzero(labels != label), 0.0)):
            pairs += [(i, int(j), alike) for j in generator.choice(others, PAIRS)] if len(others) else []
    return [pairs[i] for i in generator.permutation(len(pairs))]


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
    about = {"base": given.base, "device": given.device, "test_rows": given.test_rows, "pairs": given.pairs}
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
    parser.add_argument("--pairs", type=int, help="SetFit's pairs, cut to so many, for a smoke test")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
