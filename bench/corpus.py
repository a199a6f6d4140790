"""Megabytes of raw text a second: filtered; and with twins found and tokens made.

    python bench/corpus.py ../shared/data/lm_domains --mb 200 --processes 2 --json bench/out/corpus.json

The text is that of the folder's `*.train.txt.gz`, unpacked and repeated with its words shuffled within
every tenth
document, so that copies are neither all equal nor all different. `filter` reads, normalises, tells
languages and
judges (`twins` off); `all` finds twins, too, splits, writes and tokenizes what stays with a byte-level BPE
of 16,000
pieces trained on a share of it. Tokenizing is `tokenizers`' own, on as many threads.
`…_cpu_s` is by processor second, all processes together: times the cores, what an idle machine reaches at
most.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path


def write_raw(source: Path, folder: Path, megabytes: float) -> int:
    """Text of every domain in one file each; gives the bytes."""
    rng = random.Random(0)
    domains = {}
    for path in sorted(source.glob("*.train.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            domains[path.name.split(".")[0]] = stream.read().split("\n\n")
    one = sum(len(text.encode()) for texts in domains.values() for text in texts)
    total = 0
    for name, texts in domains.items():
        with (folder / f"{name}.txt").open("w", encoding="utf-8") as out:
            for _ in range(max(1, round(megabytes * 1e6 / one))):
                for text in texts:
                    total += out.write(f"{shuffled(text, rng)}\n\n") and len(text.encode()) + 2
    return total


def shuffled(text: str, rng: random.Random) -> str:
    """One document in ten as it is, the others with their sentences' words in another order."""
    if rng.random() < 0.1:
        return text
    lines = []
    for line in text.split("\n"):
        words = line.split(" ") if " " in line[:200] else [line[i : i + 12] for i in range(0, len(line), 12)]
        rng.shuffle(words)
        lines.append((" " if " " in line[:200] else "").join(words))
    return "\n".join(lines)


def cpu_s() -> float:
    """Processor seconds of this process and of those it has waited for; a busy machine blurs them less."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def tokenized(texts: Iterator[str]) -> int:
    """Tokens of all texts, with a tokenizer trained on the first thousand."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    first = list(islice(texts, 1000))
    tokenizer.train_from_iterator(first, trainers.BpeTrainer(vocab_size=16_000, show_progress=False))
    begun, n, batch = time.perf_counter(), 0, first
    while batch:
        n += sum(len(one.ids) for one in tokenizer.encode_batch_fast(batch))
        batch = list(islice(texts, 4000))
    tokenized.seconds = time.perf_counter() - begun  # type: ignore[attr-defined]
    return n


def main() -> None:
    """Measure, print, and write what was found."""
    from penjing.jobs.corpus import prepare

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--mb", type=float, default=200)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ["RAYON_NUM_THREADS"] = str(asked.processes)
    home = Path(tempfile.mkdtemp())
    try:
        (home / "raw").mkdir()
        megabytes = write_raw(asked.source, home / "raw", asked.mb) / 1e6
        spec = {"raw": str(home / "raw"), "processes": asked.processes}
        found: dict[str, float] = {"mb": megabytes, "processes": asked.processes}
        begun, cpu = time.perf_counter(), cpu_s()
        no_twins = {"exact": False, "near": None}
        prepare(**spec, out=str(home / "filtered"), twins=no_twins)
        found["filter_mb_s"] = megabytes / (time.perf_counter() - begun)
        found["filter_mb_cpu_s"] = megabytes / (cpu_s() - cpu)
        begun, cpu = time.perf_counter(), cpu_s()
        corpus = prepare(**spec, out=str(home / "corpus"))
        seconds = time.perf_counter() - begun
        found["prepare_mb_s"] = megabytes / seconds
        found["prepare_mb_cpu_s"] = megabytes / (cpu_s() - cpu)
        cpu = cpu_s()
        kept = sum(one["train"]["bytes"] for one in corpus.manifest["sources"].values()) / 1e6
        found["tokens"] = tokenized(text for text, _ in corpus.texts())
        found["kept_mb"], found["tokenize_mb_s"] = kept, kept / tokenized.seconds  # type: ignore[attr-defined]
        found["tokenize_mb_cpu_s"] = kept / (cpu_s() - cpu)
        found["all_mb_s"] = megabytes / (seconds + tokenized.seconds)  # type: ignore[attr-defined]
        print(json.dumps({key: round(value, 2) for key, value in found.items()}, indent=1))
        if asked.json:
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
