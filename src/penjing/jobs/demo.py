"""The main job on the embedded support desk: two methods beside the cheap baseline and the untuned base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.jobs.news import News, Tell, silent
from penjing.jobs.train import tune

DESK = Path(__file__).parents[1] / "data" / "support"
ASKED = (
    "my card was charged twice for one order",
    "where is my parcel?? tracking hasnt moved since monday",
    "i cant get into my account, says its locked",
    "do you have the blue one in size 40",
    "let me talk to a real person please",
)


EPOCHS = 10  # about four minutes for both methods on two cores; more gains little here


@dataclass(frozen=True)
class System:
    """One line of the comparison."""

    name: str
    accuracy: float
    interval: str
    time: str


@dataclass(frozen=True)
class Shown:
    """What the demo found: systems compared on the test rows, answers of the best run, where it all lies."""

    systems: tuple[System, ...]
    answers: tuple[tuple[str, str, float], ...]
    run: Path
    report: Path
    n_labels: int
    n_test: int


def demo(*, out: str = "runs", language: str = "en", seed: int = 0, tell: Tell = silent) -> Shown:
    """Tune `minilm` on the English part by LoRA and by the full method, and compare on its test rows."""
    runs = []
    for method in ("lora", "full"):
        tell(News("stage", f"tuning by {method}"))
        runs.append(
            tune(
                base="minilm",
                train=str(DESK / "en.train.csv"),
                test=str(DESK / "en.test.csv"),
                task="classify",
                method=method,
                epochs=EPOCHS,
                out=out,
                seed=seed,
                language=language,
                tell=tell,
            )
        )
    first = runs[0].result
    systems = [
        System("untuned base, nearest label name", *_score(first["before"]), ""),
        System(
            "TF-IDF + logistic regression",
            *_score(first["baseline"]),
            f"{first['baseline']['seconds']:.1f} s",
        ),
    ]
    for run in runs:
        result = run.result
        systems.append(
            System(
                f"minilm, {run.spec.method.name}",
                *_score(result["after"]),
                f"{result['cost']['seconds']:.0f} s",
            )
        )
    best = max(runs, key=lambda r: r.result["best_score"])  # by validation rows, not by test
    found = best.bundle.predict(list(ASKED))
    answers = tuple((text, a["label"], a["confidence"]) for text, a in zip(ASKED, found, strict=True))
    n_test = sum(row["support"] for row in first["after"]["tables"]["per_class"])
    report = best.folder / "report.html"
    return Shown(tuple(systems), answers, best.folder, report, len(first["labels"]), n_test)


def _score(part: dict[str, Any]) -> tuple[float, str]:
    low, high = part["intervals"]["accuracy"]
    return part["values"]["accuracy"], f"{low:.4f} – {high:.4f}"
