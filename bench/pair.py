"""Pairs: Penjing's towers and cross-encoder beside sentence-transformers' trainer and transformers' own loop.

    .venv/bin/python bench/pair.py --data stsb --systems towers,st_towers,cross,hf_cross --seeds 0,1,2
    .venv/bin/python bench/pair.py --data mrpc --systems cross,hf_cross --device cuda

Writes bench/out/pair-<data>.json. A cell is one (system, seed); finished cells are not run again. Every
system learns the same train rows for the same steps, rows a step and rate; the development rows choose the
best of Penjing's validations and are not seen by the peers, the test rows are scored once. STS-B is scored
by Spearman, MRPC by F1 of the paraphrases and accuracy. `st_towers` is sentence-transformers with its CoSENT
loss (`pip install sentence-transformers`); `hf_cross` a plain loop over AutoModelForSequenceClassification.
"""

from __future__ import annotations

import argparse
import gzip
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
Rows = list[tuple[str, str, float]]
SPLITS = ("train", "valid", "test")


def stsb(folder: Path) -> dict[str, Rows]:
    with gzip.open(folder / "stsbenchmark.tsv.gz", "rt", encoding="utf-8") as stream:
        lines = stream.read().splitlines()[1:]
    cells = [line.split("\t") for line in lines]
    own = {"train": "train", "valid": "dev", "test": "test"}
    return {name: [(c[6], c[7], float(c[5])) for c in cells if c[0] == kind] for name, kind in own.items()}


def mrpc(folder: Path) -> dict[str, Rows]:
    found = {}
    for name, file in zip(SPLITS, ("train.tsv.gz", "val.tsv", "test.tsv.gz"), strict=True):
        path = folder / f"msr-para-{file}"
        read = gzip.open if path.suffix == ".gz" else open
        lines = read(path, "rt", encoding="utf-8-sig").read().splitlines()[1:]
        found[name] = [(c[3], c[4], float(c[0])) for c in (line.split("\t") for line in lines)]
    return found


DATA: dict[str, tuple[Callable[[Path], dict[str, Rows]], bool]] = {
    "stsb": (stsb, True),
    "mrpc": (mrpc, False),
}


def scored(found: np.ndarray, truth: np.ndarray, scores: bool) -> dict[str, float]:
    """What the benchmark is judged by; of classes, `found` are the predicted ones."""
    if scores:
        from scipy.stats import pearsonr, spearmanr

        return {"spearman": float(spearmanr(found, truth)[0]), "pearson": float(pearsonr(found, truth)[0])}
    hits = float(((found == 1) & (truth == 1)).sum())
    f1 = 2 * hits / max(1.0, float((found == 1).sum() + (truth == 1).sum()))
    return {"f1": f1, "accuracy": float((found == truth).mean())}


def ours(
    how: str, rows: dict[str, Rows], seed: int, scores: bool, given: argparse.Namespace
) -> dict[str, Any]:
    """A run of Penjing, its test rows answered by the best bundle."""
    from penjing import load, tune

    with tempfile.TemporaryDirectory(prefix="penjing-pair-") as folder:
        files = {}
        for name in SPLITS:
            files[name] = str(Path(folder) / f"{name}.jsonl")
            lines = [
                json.dumps({"text_a": a, "text_b": b, "label": y if scores else str(int(y))}) + "\n"
                for a, b, y in rows[name]
            ]
            Path(files[name]).write_text("".join(lines), encoding="utf-8")
        task = {"pair": {"how": how, "scores": scores, **({"low": 0, "high": 5} if scores else {})}}
        run = tune(
            base=given.base, task=task, seed=seed, out=folder, device=given.device,
            **{"data.train": files["train"], "data.valid": files["valid"],
               "data.max_length": given.max_length, "train.steps": given.steps, "train.batch": given.batch,
               "train.lr": given.lr, "train.evals": 5},
        )  # fmt: skip
        answers = load(run.folder).predict([(a, b) for a, b, _ in rows["test"]])
        seconds = run.result["cost"]["seconds"]
    found = np.array([one["score"] if scores else float(one["label"]) for one in answers])
    return {**scored(found, np.array([y for *_, y in rows["test"]]), scores), "train_s": seconds}


def st_towers(rows: dict[str, Rows], seed: int, scores: bool, given: argparse.Namespace) -> dict[str, Any]:
    if not scores:
        raise SystemExit("`st_towers` learns scores; leave it out of --systems for mrpc.")
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )

    from penjing.models.load import find

    model = SentenceTransformer(str(find(given.base)), device=given.device)
    model.max_seq_length = given.max_length
    train = Dataset.from_dict(
        {"a": [r[0] for r in rows["train"]], "b": [r[1] for r in rows["train"]],
         "score": [r[2] / 5 for r in rows["train"]]}
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="penjing-st-") as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder, max_steps=given.steps, per_device_train_batch_size=given.batch, seed=seed,
            learning_rate=given.lr, warmup_ratio=0.1, report_to="none", save_strategy="no",
            use_cpu=given.device == "cpu",
        )  # fmt: skip
        loss = losses.CoSENTLoss(model)
        trainer = SentenceTransformerTrainer(model, settings, train_dataset=train, loss=loss)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    a, b = (model.encode([r[i] for r in rows["test"]], normalize_embeddings=True) for i in (0, 1))
    truth = np.array([y for *_, y in rows["test"]])
    return {**scored((a * b).sum(1), truth, True), "train_s": seconds}


def hf_cross(rows: dict[str, Rows], seed: int, scores: bool, given: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        get_linear_schedule_with_warmup,
    )

    from penjing.models.load import find

    torch.manual_seed(seed)
    folder = str(find(given.base))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = 1 if scores else 2
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels).to(given.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, given.steps // 10, given.steps)

    def encoded(some: Rows) -> dict[str, Any]:
        found = tokenizer([r[0] for r in some], [r[1] for r in some], truncation=True, padding=True,
                          max_length=given.max_length, return_tensors="pt")  # fmt: skip
        return {key: value.to(given.device) for key, value in found.items()}

    draw, order, began = np.random.default_rng(seed), np.zeros(0, np.int64), time.perf_counter()
    model.train()
    for _ in range(given.steps):
        if len(order) < given.batch:
            order = draw.permutation(len(rows["train"]))
        some, order = [rows["train"][i] for i in order[: given.batch]], order[given.batch :]
        kind = torch.float32 if scores else torch.int64
        wanted = torch.tensor([r[2] for r in some], dtype=kind, device=given.device)
        model(**encoded(some), labels=wanted).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - began
    model.eval()
    with torch.inference_mode():
        test = rows["test"]
        logits = torch.cat([model(**encoded(test[i : i + 64])).logits.cpu() for i in range(0, len(test), 64)])
    found = logits[:, 0].numpy() if scores else logits.argmax(1).numpy()
    return {**scored(found, np.array([y for *_, y in test]), scores), "train_s": seconds}


SYSTEMS: dict[str, Callable[..., dict[str, Any]]] = {
    "towers": lambda *given: ours("two_tower", *given),
    "cross": lambda *given: ours("cross", *given),
    "st_towers": st_towers,
    "hf_cross": hf_cross,
}


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import load_average, processor

    given = _parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"pair-{given.data}.json"
    kept = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    about = {key: getattr(given, key) for key in ("base", "device", "steps", "batch", "lr", "max_length")}
    if kept and kept["about"] != about:
        raise SystemExit(f"{path} holds cells of {kept['about']}, not {about}. Move it away, or say --out.")
    cells: dict[str, Any] = kept.get("cells", {})
    read, scores = DATA[given.data]
    rows = read(given.folder / given.data)
    for name in given.systems.split(","):
        for seed in map(int, given.seeds.split(",")):
            key = f"{name} seed={seed}"
            if key not in cells:
                began, before = time.process_time(), load_average()
                cells[key] = SYSTEMS[name](rows, seed, scores, given)
                cells[key] |= {"cpu_s": time.process_time() - began, "load": [before, load_average()]}
                whole = {"about": about, "processor": processor(), "cells": cells}
                path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
            print(key, cells[key], flush=True)
        own = [cell for key, cell in cells.items() if key.startswith(f"{name} ")]
        for score in ("spearman", "f1"):
            values = [100 * cell[score] for cell in own if score in cell]
            if values:
                spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
                print(f"{name}: test {score} {mean(values):.2f}{spread}")
    return 0


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--data", choices=[*DATA], default="stsb")
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--systems", default="towers,st_towers,cross,hf_cross", help=", ".join(SYSTEMS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=720, help="four passes of STS-B")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--max-length", dest="max_length", type=int, default=128)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
