"""What thresholds of several labels are worth on rows they were not chosen on: Reuters-21578, TF-IDF models.

    python bench/thresholds.py

Documents of ModApte's train part only, split anew for each seed: a model of one-against-rest logistic
regressions, validation rows of which thresholds are chosen, and 800 others that are scored. Reads
../shared/data/reuters21578; about two minutes on one core.
"""

from __future__ import annotations

import gzip
import random
import re
import warnings
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer

from penjing.measures import LENT, best_thresholds

DATA = Path(__file__).parents[2] / "shared" / "data" / "reuters21578"
DOCUMENT = re.compile(
    r'<REUTERS TOPICS="YES" LEWISSPLIT="TRAIN".*?<TOPICS>(.*?)</TOPICS>.*?</REUTERS>', re.DOTALL
)
N_SCORED, SEEDS = 800, range(6)


def documents(n_files: int = 6) -> list[tuple[str, list[str]]]:
    """(first 600 signs, topics) of the first files' train documents that have a body."""
    found = []
    for path in sorted(DATA.glob("reut2-0*.sgm.gz"))[:n_files]:
        with gzip.open(path, "rt", encoding="latin-1") as stream:
            for match in DOCUMENT.finditer(stream.read()):
                if body := re.search(r"<BODY>(.*?)</BODY>", match[0], re.DOTALL):
                    found.append((body[1][:600], re.findall(r"<D>(.*?)</D>", match[1])))
    return found


def scores(rows: list[tuple[str, list[str]]], n_train: int, n_valid: int) -> dict[str, np.ndarray]:
    """Macro F1, micro F1 and labels a row of the scored rows, by who chose the thresholds."""
    parts = {"train": rows[:n_train], "valid": rows[n_train : n_train + n_valid]}
    parts["scored"] = rows[n_train + n_valid : n_train + n_valid + N_SCORED]
    binary = MultiLabelBinarizer().fit([topics for _, topics in parts["train"]])
    vectors = TfidfVectorizer(sublinear_tf=True, min_df=2).fit([text for text, _ in parts["train"]])
    x = {name: vectors.transform([text for text, _ in part]) for name, part in parts.items()}
    y = {name: binary.transform([topics for _, topics in part]) > 0 for name, part in parts.items()}
    model = OneVsRestClassifier(LogisticRegression(C=10, max_iter=200)).fit(x["train"], y["train"])
    p, truth = model.predict_proba(x["valid"]), y["valid"]
    own = np.where(truth.any(axis=0), best_thresholds(p, truth, lent=0), 0.5)
    chosen = {"one half": 0.5, "each label its own": own, "as penjing does": best_thresholds(p, truth)}
    asked = model.predict_proba(x["scored"])
    return {name: judged(asked >= limits, y["scored"]) for name, limits in chosen.items()}


def judged(answered: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Macro F1 over labels that were there or were answered, micro F1, answered labels a row."""
    hits, total = (answered & truth).sum(axis=0), answered.sum(axis=0) + truth.sum(axis=0)
    there = total > 0
    macro = (2 * hits[there] / total[there]).mean()
    return np.array([macro, 2 * hits.sum() / total.sum(), answered.sum(axis=1).mean()])


def main() -> None:
    warnings.simplefilter("ignore")  # topics that no train row has
    rows = documents()
    print(f"{len(rows):,} documents, means of {len(SEEDS)} splits, lent {LENT:g}")
    print("train  valid  thresholds          macro F1  micro F1  labels a row")
    for n_train, n_valid in ((450, 50), (900, 100), (1600, 400)):
        found: dict[str, list[np.ndarray]] = {}
        for seed in SEEDS:
            mixed = rows[:]
            random.Random(seed).shuffle(mixed)
            for name, one in scores(mixed, n_train, n_valid).items():
                found.setdefault(name, []).append(one)
        for name, each in found.items():
            macro, micro, a_row = np.mean(each, axis=0)
            print(f"{n_train:5}  {n_valid:5}  {name:18}  {macro:8.3f}  {micro:8.3f}  {a_row:12.2f}")


if __name__ == "__main__":
    main()
