"""What a student keeps of its teacher, and how much faster it is: students of some layers, tuned and taught.

    .venv/bin/python bench/distill.py --data banking77,clinc150,sst2,agnews_4k --seeds 0,1,2
    .venv/bin/python bench/distill.py --data banking77 --train-rows 2000 --students plain,taught --on valid

Writes bench/out/distill-<data>.json. A teacher is a full tune of the base, a student the same base's run with
`layers` of it: `plain` learns the labels, the others are taught by the technique `distill` (STUDENTS). Both
begin with the teacher's weights. The share is student's score over teacher's on the same rows (`--on valid`
where settings are chosen: test rows are for the end). Speed is rows a second of teacher and student, in
turns, fp32, at `--tokens` a pass; the ratio of medians is told.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STUDENTS: dict[str, dict[str, Any] | None] = {  # settings of `distill`; None: labels alone
    "plain": None,
    "taught": {"alpha": 0.9, "temperature": 4.0, "inherit": True},
    "half": {"alpha": 0.5, "temperature": 2.0, "inherit": True},
    "fresh": {"alpha": 0.9, "temperature": 4.0},
    "hidden": {"alpha": 0.9, "temperature": 4.0, "inherit": True, "hidden": 1.0},
    "relations": {"alpha": 0.9, "temperature": 4.0, "inherit": True, "relations": 1.0},
    "masked": {"alpha": 0.9, "temperature": 4.0, "inherit": True, "augment": "mask"},
}


def accuracy(folder: Path, path: str) -> float:
    """Share of the rows of a file that a bundle answers rightly."""
    import penjing
    from penjing.data.read import read

    rows = read(path, text="text", label="label")
    answers = penjing.load(folder, precision="fp32").predict(rows.texts)
    return mean(a["label"] == own[0] for a, own in zip(answers, rows.labels, strict=True))


def speeds(folders: list[Path], path: str, *, tokens: int, rounds: int) -> list[float]:
    """Median rows a second of each bundle, measured in turns."""
    import penjing
    from penjing.data.read import read

    rows = read(path, text="text", label="label")
    bundles = [penjing.load(folder, precision="fp32") for folder in folders]
    parts = [bundle.part(rows, labelled=False) for bundle in bundles]
    taken: list[list[float]] = [[] for _ in bundles]
    for number in range(rounds + 1):
        for bundle, part, own in zip(bundles, parts, taken, strict=True):
            began = time.perf_counter()
            bundle.infer(part, tokens=tokens)
            if number:  # the first warms up
                own.append(time.perf_counter() - began)
    return [len(rows) / median(own) for own in taken]


def teacher_of(split: Any, seed: int, given: argparse.Namespace, out: Path) -> Path:
    from penjing import tune

    files = {"train": split.train, "valid": split.valid, "text": "text", "label": "label"}
    name = f"{split.name}-teacher-{seed}"
    if not (out / name / "result.json").is_file():
        tune(base=given.base, **files, seed=seed, out=out, name=name, device=given.device, precision="fp32")
    return out / name


def student_of(
    split: Any, name: str, seed: int, given: argparse.Namespace, teacher: Path, out: Path
) -> tuple[Path, float]:
    """The student's run, and seconds of its steps."""
    from penjing import tune

    settings = STUDENTS[name]
    techniques = [] if settings is None else [{"distill": {"teacher": str(teacher), **settings}}]
    run = tune(
        base=str(teacher), layers=given.layers, train=split.train, valid=split.valid, text="text",
        label="label", techniques=techniques, epochs=given.epochs, lr=given.lr, seed=seed, out=out,
        device=given.device, precision="fp32", name=f"{split.name}-{name}-{seed}-{int(time.time())}",
    )  # fmt: skip
    return run.folder, run.result["cost"]["seconds"]


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import processor, table
    from bench.sets import write

    given = _parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for data in given.data:
        path = given.out / f"distill-{Path(data).stem}.json"
        cells: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
            home = given.runs or Path(folder)
            split = write(data, home, rows=given.train_rows, test_rows=given.test_rows)
            judged = getattr(split, given.on)
            for seed in given.seeds:
                teacher = teacher_of(split, seed, given, home)
                best = accuracy(teacher, judged)
                for name in given.students:
                    student, seconds = student_of(split, name, seed, given, teacher, home)
                    found = accuracy(student, judged)
                    pace = speeds([teacher, student], judged, tokens=given.tokens, rounds=given.rounds)
                    cells.append({
                        "student": name, "seed": seed, "teacher": best, "score": found, "share": found / best,
                        "speed": pace[1] / pace[0], "rows_per_s": pace, "train_s": seconds,
                    })  # fmt: skip
                    print(f"{data} {name} seed {seed}: {found:.4f} of {best:.4f}", flush=True)
                    about = {**vars(given), "out": "", "processor": processor(), "rows": split.n_rows}
                    path.write_text(
                        json.dumps({"about": about, "cells": cells}, indent=1, default=str) + "\n", "utf-8"
                    )
        rows += [_row(data, name, cells) for name in given.students]
    table(rows)
    return 0


def _row(data: str, name: str, cells: list[dict[str, Any]]) -> dict[str, str]:
    own = [cell for cell in cells if cell["student"] == name]
    return {
        "data": data, "student": name, "seeds": str(len(own)),
        "teacher %": f"{100 * mean(c['teacher'] for c in own):.2f}",
        "student %": f"{100 * mean(c['score'] for c in own):.2f}",
        "kept %": f"{100 * mean(c['share'] for c in own):.1f}",
        "speed": f"{mean(c['speed'] for c in own):.2f}",
        "train s": f"{mean(c['train_s'] for c in own):.0f}",
    }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def words(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--data", type=words, default=["banking77"], help="named sets, or CSVs")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--layers", type=json.loads, default=3, help="a number, or a list such as [1,2,6]")
    parser.add_argument("--students", type=words, default=["plain", "taught"])
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0])
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--on", choices=("test", "valid"), default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train-rows", type=int, help="so few train rows, for a smaller trial")
    parser.add_argument("--test-rows", type=int, help="so few test rows, for a smoke test")
    parser.add_argument("--runs", type=Path, help="folder where runs stay, and teachers are found again")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
