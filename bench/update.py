"""Five rounds of new intents, and a poisoned one: what the loop keeps, learns and refuses.

    .venv/bin/python bench/update.py            # clinc150: 100 intents, then five rounds of 10 more
    .venv/bin/python bench/update.py --smoke    # minutes: 12 intents, one round of 3, few steps
    .venv/bin/python bench/update.py --split valid   # to choose settings by: the test rows stay unseen

The first model learns 100 intents. Each round brings 10 new ones as rows with right labels; then a sixth
round brings rows of which a fifth bears another label. Told: accuracy on the first test rows and on the new
intents' official test rows after each round, and what the gate said. Writes bench/out/update.json.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def chosen(pairs: list[tuple[str, str]], intents: list[str], most: int) -> list[tuple[str, str]]:
    """At most so many rows of each of these intents."""
    counts = dict.fromkeys(intents, 0)
    kept = []
    for text, label in pairs:
        if label in counts and counts[label] < most:
            counts[label] += 1
            kept.append((text, label))
    return kept


def put(path: Path, pairs: list[tuple[str, str]]) -> str:
    """Rows as CSV."""
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *pairs])
    return str(path)


def accuracy(folder: Path, path: str) -> float:
    """Share right of labelled rows; a label that the bundle does not know is a wrong answer."""
    from penjing import load
    from penjing.data.read import read

    rows = read(path, text="text", label="label")
    answers = load(folder).predict(rows.texts)
    return sum(a["label"] == one[0] for a, one in zip(answers, rows.labels, strict=True)) / len(rows)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--first", type=int, default=100, help="intents of the first model")
    asked.add_argument("--more", type=int, default=10, help="intents a round brings")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--rows", type=int, default=100, help="train rows an intent")
    asked.add_argument("--method", default="lora")
    asked.add_argument("--steps", type=int, default=1500, help="of the first model")
    asked.add_argument("--round-steps", type=int, help="of a round; what an update takes if not given")
    asked.add_argument("--split", choices=("test", "valid"), default="test", help="official rows to judge by")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--smoke", action="store_true")
    given = asked.parse_args()
    if given.smoke:
        given.first, given.more, given.rounds, given.rows, given.steps = 12, 3, 1, 40, 150
        given.round_steps = 100
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import processor, write

    with tempfile.TemporaryDirectory(prefix="penjing-update-") as folder:
        lines = loop(given, Path(folder))
    found = {"made": time.strftime("%Y-%m-%d %H:%M:%S"), "processor": processor(), "settings": vars(given)}
    write(ROOT / "bench" / "out" / "update.json", {**found, "rounds": lines})
    print("| round | what | old test | new intents | failed |\n|---|---|---|---|---|")
    for one in lines:
        print(f"| {one['round']} | {one['what']} | {one['old']:.4f} | {one['new']:.4f} | {one['failed']} |")


def loop(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Every round's verdict and what the live model then knows."""
    from bench.sets import clinc150, shared
    from penjing import tune
    from penjing.chains.update import update
    from penjing.serve import registry

    parts = clinc150(shared())
    draw = random.Random(given.seed)
    intents = sorted({label for _, label in parts["train"]})
    draw.shuffle(intents)
    old = intents[: given.first]
    old_train = put(folder / "old.csv", chosen(parts["train"], old, given.rows))
    old_test = put(folder / "test.csv", chosen(parts[given.split], old, 10**6))
    settings = {"method": given.method, "steps": given.steps, "out": folder, "seed": given.seed, "evals": 3}
    first = tune(base="minilm", train=old_train, text="text", label="label", **settings)
    registry.add(folder / "models", "desk", first.folder)
    asked: dict[str, Any] = {
        "model": str(folder / "models" / "desk"),
        "old": old_train,
        "test": old_test,
        "text": "text",
        "label": "label",
        "out": str(folder / "updates"),
        "train": {"evals": 3, **({"steps": given.round_steps} if given.round_steps else {})},
        "least_new": 20,
    }

    def live() -> Path:
        return registry.find(folder / "models", "desk")[0].folder

    lines = [{"round": 0, "what": "first", "old": accuracy(live(), old_test), "new": 0.0, "failed": ""}]
    known: list[str] = []
    for number in range(1, given.rounds + 2):
        at = given.first + (number - 1) * given.more
        news = intents[at : at + given.more] or intents[-given.more :]
        rows = chosen(parts["train"], news, given.rows)
        poisoned = number > given.rounds
        if poisoned:
            rows = [(t, draw.choice(intents[:at]) if draw.random() < 0.2 else label) for t, label in rows]
        done = update({**asked, "new": put(folder / f"new{number}.csv", rows)})
        if done.what == "promoted":
            known += news
        test = put(folder / f"test{number}.csv", chosen(parts[given.split], known or news, 10**6))
        failed = ", ".join(f"{bar.name} ({bar.found})" for bar in done.bars if not bar.passed)
        what = f"{done.what}{' (20 % wrong labels)' if poisoned else ''}"
        scores = {"old": accuracy(live(), old_test), "new": accuracy(live(), test)}
        bars = [vars(bar) for bar in done.bars]
        lines.append({"round": number, "what": what, **scores, "failed": failed, "bars": bars})
        print(
            f"round {number}: {what}, old {scores['old']:.4f}, new {scores['new']:.4f} {failed}", flush=True
        )
    return lines


if __name__ == "__main__":
    main()
