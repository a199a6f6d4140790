"""Data sets of the benchmarks: from ../shared/data (or any CSV) to three CSV files, alike for every system.

Not named `datasets.py`: a script beside such a file would import it in place of Hugging Face's package.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Pairs = list[tuple[str, str]]  # (text, label)


@dataclass(frozen=True)
class Split:
    """Where the rows of one data set were written, and what they are."""

    name: str
    train: str
    valid: str
    test: str
    n_rows: dict[str, int]
    n_labels: int
    note: str  # where the validation rows come from


def shared() -> Path:
    """The folder ../shared/data beside the repository."""
    return Path(__file__).resolve().parents[2] / "shared" / "data"


def banking77(folder: Path) -> dict[str, Pairs]:
    """77 banking intents; official train and test."""
    found = {}
    for split, name in (("train", "train.csv.gz"), ("test", "test.csv")):
        lines = csv.DictReader(_text(folder / "banking77" / name).splitlines())
        found[split] = [(line["text"], line["category"]) for line in lines]
    return found


def clinc150(folder: Path) -> dict[str, Pairs]:
    """150 intents, in scope only; official train, validation and test."""
    lists = json.loads(_text(folder / "clinc150" / "data_full.json.gz"))
    return {
        split: [(text, label) for text, label in lists[key]]
        for split, key in (("train", "train"), ("valid", "val"), ("test", "test"))
    }


def sst2(folder: Path) -> dict[str, Pairs]:
    """Sentiment of whole sentences (no phrases), two classes; official train, dev and test."""
    found = {}
    for split, name in (("train", "train.gz"), ("valid", "dev"), ("test", "test")):
        lines = _text(folder / "sst2" / f"stsa.binary.{name}", "latin-1").splitlines()
        found[split] = [(line[2:], ("negative", "positive")[int(line[0])]) for line in lines if line.strip()]
    return found


def agnews_4k(folder: Path) -> dict[str, Pairs]:
    """4 news topics; 4,000 train rows, the official test."""
    return {
        split: [
            (row["sentence"], row["label"])
            for row in json.loads(_text(folder / "agnews_4k" / f"{split}.json.gz"))
        ]
        for split in ("train", "test")
    }


SETS: dict[str, Callable[[Path], dict[str, Pairs]]] = {
    "banking77": banking77,
    "clinc150": clinc150,
    "sst2": sst2,
    "agnews_4k": agnews_4k,
}


def write(
    name: str, folder: Path, *, cut_seed: int = 0, rows: int | None = None, test_rows: int | None = None
) -> Split:
    """Write train.csv, valid.csv and test.csv of a named set, or of a CSV file, below `folder`.

    Where no official validation rows exist, a stratified tenth of train is cut off by `cut_seed`; a CSV of
    the user's loses another tenth as test. `rows` and `test_rows` keep about so many rows (at least one a
    label), for smoke tests.
    """
    if name in SETS:
        if not shared().is_dir():
            raise SystemExit(
                f"The data set `{name}` was wanted in {shared()}; the folder is not there. Put the shared "
                f"data beside the repository, or give rows of your own: --data rows.csv"
            )
        parts = SETS[name](shared())
    else:
        parts = {"train": _own(Path(name))}
    note = "official validation rows"
    if "test" not in parts:
        parts["train"], parts["test"] = cut(parts["train"], 0.1, cut_seed + 1)
    if "valid" not in parts:
        parts["train"], parts["valid"] = cut(parts["train"], 0.1, cut_seed)
        note = f"a stratified tenth of train, seed {cut_seed}"
    for split, limit in (("train", rows), ("valid", test_rows), ("test", test_rows)):
        if limit is not None and limit < len(parts[split]):
            parts[split] = cut(parts[split], limit / len(parts[split]), cut_seed)[1]
    home = folder / Path(name).stem
    home.mkdir(parents=True, exist_ok=True)
    for split, pairs in parts.items():
        with (home / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *pairs])
    return Split(
        name=Path(name).stem,
        train=str(home / "train.csv"),
        valid=str(home / "valid.csv"),
        test=str(home / "test.csv"),
        n_rows={split: len(pairs) for split, pairs in parts.items()},
        n_labels=len({label for _, label in parts["train"]}),
        note=note,
    )


def cut(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """(kept, cut off): a seeded stratified share of the rows, at least one of every label; order is kept."""
    generator = random.Random(seed)
    of_label: dict[str, list[int]] = defaultdict(list)
    for i, (_, label) in enumerate(pairs):
        of_label[label].append(i)
    taken: set[int] = set()
    for label in sorted(of_label):
        members = of_label[label]
        taken.update(generator.sample(members, max(1, round(share * len(members)))))
    return (
        [pair for i, pair in enumerate(pairs) if i not in taken],
        [pair for i, pair in enumerate(pairs) if i in taken],
    )


def pairs_of(path: str) -> Pairs:
    """The rows of a CSV that `write` has written."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [(line["text"], line["label"]) for line in csv.DictReader(stream)]


def _own(path: Path) -> Pairs:
    if not path.is_file():
        raise SystemExit(f"`--data {path}` is neither one of {', '.join(SETS)} nor a CSV file.")
    from penjing.data.read import read

    rows = read(str(path))
    return [(text, labels[0]) for text, labels in zip(rows.texts, rows.labels, strict=True)]


def _text(path: Path, encoding: str = "utf-8") -> str:
    if not path.is_file():
        raise SystemExit(f"A data file was wanted at {path}; there is none. See {shared() / 'INDEX.md'}.")
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode(encoding)
    return path.read_text(encoding=encoding)
