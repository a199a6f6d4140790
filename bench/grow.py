"""Pretraining: against nanoGPT's loop on characters, and what a masked-LM base is worth to tasks.

    .venv/bin/python bench/grow.py shakespeare --seeds 0,1,2
    .venv/bin/python bench/grow.py shakespeare --setting gpu          # 6 x 6 x 384, on CUDA
    .venv/bin/python bench/grow.py worth --language en --minutes 20 --seeds 0,1,2
    .venv/bin/python bench/grow.py worth --language zh

`shakespeare`: tokens/s of both loops in turns, in one process, and the loss of each on the last tenth of the
text after the setting's steps. `worth`: a 4-layer, 256-wide BERT learns from lm_domains for so many minutes;
it and the same shape from random weights are then tuned alike, and the difference of their test scores is
told with its spread over seeds. Needs ../shared/data. Writes bench/out/grow-*.json.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("shakespeare", "worth"))
    parser.add_argument("--setting", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=40, help="steps a turn")
    parser.add_argument("--steps", type=int, help="fewer than the setting's, for a trial")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        {"shakespeare": shakespeare, "worth": worth}[given.verb](given, Path(folder))
    return 0


def shakespeare(given: argparse.Namespace, folder: Path) -> None:
    """Speed in turns, and loss at the end, of our run and nanoGPT's loop."""
    from dataclasses import replace

    import numpy as np
    import torch

    from bench import nano
    from bench.machine import load_average, processor, table, write
    from penjing.jobs.vocabulary import train_tokenizer

    setting = nano.CPU if given.setting == "cpu" else nano.GPU
    setting = replace(setting, steps=given.steps or setting.steps)
    text = gzip.decompress((DATA / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode("utf-8")
    (folder / "input.txt").write_text(text, encoding="utf-8")
    train_tokenizer([str(folder / "input.txt")], folder / "tok", kind="char", family="plain")
    chars = {sign: i for i, sign in enumerate(sorted(set(text)))}
    data = np.array([chars[sign] for sign in text], np.uint16)
    cut = int(0.9 * len(data))
    found: list[dict[str, Any]] = []
    for seed in given.seeds:
        torch.manual_seed(seed)
        device = "cuda" if given.setting == "gpu" else "cpu"
        peer = nano.Nano(setting, len(chars)).to(device)
        theirs = nano.steps(peer, setting, data[:cut], seed)
        job, made, ours = our_run(folder, setting, seed, given.precision)
        speeds = _in_turns(ours, theirs, setting, given.block, given.rounds)
        for rest in (ours, theirs):
            for _ in rest:
                pass
        one = {
            "seed": seed,
            "ours": our_loss(job, made),
            "nano": nano.held_out(peer, setting, data[cut:]),
            "speeds": speeds,
        }
        found.append(one)
        ratios = [a / b for a, b in speeds]
        print(
            f"seed {seed}: loss {one['ours']:.4f} (nanoGPT {one['nano']:.4f}); "
            f"{median(a for a, _ in speeds):,.0f} tokens/s, {median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}) of nanoGPT's",
            flush=True,
        )
    facts = {"processor": processor(), "load": load_average(), "setting": vars(setting), "runs": found}
    write(given.out / f"grow-shakespeare-{given.setting}.json", facts)
    table([{"seed": o["seed"], "ours": f"{o['ours']:.4f}", "nanoGPT": f"{o['nano']:.4f}"} for o in found])


def our_run(folder: Path, setting: Any, seed: int, precision: str) -> tuple[Any, Any, Iterator[Any]]:
    from penjing import spec as specs
    from penjing.engine import optim
    from penjing.engine.loop import train_steps
    from penjing.jobs.feeding import opened_corpus
    from penjing.jobs.prepare import ready, stream

    shape = {"n_layer": setting.layers, "n_head": setting.heads, "n_embd": setting.width}
    shape["activation_function"] = "gelu"  # nanoGPT's; GPT-2's own is tanh's approximation, which costs more
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), setting.dropout)
    spec = specs.read(
        base="gpt-nano", tokenizer=str(folder / "tok"),
        shape={**shape, **drops, "n_positions": setting.context},
        task={"causal": {"across": True, "ends": False}}, seed=seed, precision=precision,
        data={"train": str(folder / "input.txt"), "documents": "file", "max_length": setting.context},
        train={
            "steps": setting.steps, "batch": setting.batch, "lr": setting.lr, "floor": setting.floor,
            "warmup": setting.warmup, "betas": [0.9, 0.99], "weight_decay": 0.1,
        },
    )  # fmt: skip
    job = opened_corpus(spec)
    assert job.parts is not None
    made = ready(spec, job.task, job.data.names, job.base, job.machine, None, steps=setting.steps)
    optimizer = optim.optimizer(made.model, spec.train, made.lr)
    loop = train_steps(
        made.model, stream(spec, job.task, job.parts[0]), job.task.loss, optimizer,
        optim.schedule(spec.train, setting.steps), steps=setting.steps, clip=1.0, seed=seed,
    )  # fmt: skip
    return job, made, loop


def our_loss(job: Any, made: Any) -> float:
    from penjing.engine.scoring import predictions

    found = predictions(job.task, made.model, job.parts[1])
    return float(job.task.score(found, job.parts[1].targets, job.data.names, {}, 0).values["loss"])


def _in_turns(
    ours: Iterator[Any], theirs: Iterator[Any], setting: Any, block: int, rounds: int
) -> list[tuple[float, float]]:
    """Tokens/s of ours and theirs, block by block."""
    tokens = block * setting.batch * setting.context
    for one in (ours, theirs):
        for _ in islice(one, 10):
            pass
    found = []
    for _ in range(rounds):
        pair = []
        for one in (ours, theirs):
            began = time.perf_counter()
            for _ in islice(one, block):
                pass
            pair.append(tokens / (time.perf_counter() - began))
        found.append((pair[0], pair[1]))
    return found


def worth(given: argparse.Namespace, folder: Path) -> None:
    """Pretrain once, then tune from it and from random weights on two sets."""
    from bench.machine import load_average, processor, table, write
    from penjing import pretrain, tune
    from penjing.jobs.vocabulary import train_tokenizer

    corpus = folder / "corpus"
    corpus.mkdir()
    for path in sorted((DATA / "lm_domains").glob(f"{given.language}_*.txt.gz")):
        (corpus / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    kind = {"en": "wordpiece", "zh": "wordpiece"}[given.language]
    train_tokenizer(
        [str(corpus / "*.train.txt")], folder / "tok", kind=kind, family="bert", vocab=8000, lower=True
    )
    base = {
        "base": "bert-mini",
        "tokenizer": str(folder / "tok"),
        "shape": SHAPE,
        "out": str(folder / "runs"),
    }
    settings = {"data": {"train": str(corpus), "max_length": 128}, "task": "masked"}
    pace = pretrain({**base, **settings, "name": "pace", "train": {"steps": 20, "evals": 0}})
    a_step = pace.result["cost"]["seconds"] / 20
    steps = given.steps or max(50, round(60 * given.minutes / a_step))
    print(f"{steps:,} steps of masked modelling in about {given.minutes:g} minutes", flush=True)
    grown = pretrain({**base, **settings, "name": "grown", "train": {"steps": steps, "evals": 4}})
    print(f"loss {grown.result['after']['values']['loss']:.3f}", flush=True)
    found = []
    for name, rows in _sets(given.language, folder).items():
        for seed in given.seeds:
            scores = []
            for start in ({"base": str(grown.folder)}, {k: base[k] for k in ("base", "tokenizer", "shape")}):
                run = tune(
                    **start, **rows, task="classify", seed=seed, out=base["out"], epochs=4, lr=3e-4,
                    name=f"{name}-{seed}-{len(scores)}",
                )  # fmt: skip
                scores.append(run.result["after"]["values"]["accuracy"])
            found.append({"set": name, "seed": seed, "grown": scores[0], "random": scores[1]})
            print(
                f"{name} seed {seed}: {scores[0]:.4f} grown, {scores[1]:.4f} from random weights", flush=True
            )
    write(
        given.out / f"grow-worth-{given.language}.json",
        {"processor": processor(), "load": load_average(), "steps": steps, "runs": found},
    )
    lines = []
    for name in dict.fromkeys(one["set"] for one in found):
        own = [one for one in found if one["set"] == name]
        gains = [100 * (one["grown"] - one["random"]) for one in own]
        spread = f" ± {stdev(gains):.1f}" if len(gains) > 1 else ""
        pair = [f"{100 * mean(one[key] for one in own):.1f}" for key in ("grown", "random")]
        points = f"{mean(gains):+.1f}{spread}"
        lines.append({"set": name, "grown": pair[0], "random": pair[1], "points": points})
    table(lines)


def _sets(language: str, folder: Path) -> dict[str, dict[str, str]]:
    """Train and test rows of the sets that a language is proved on."""
    from bench.sets import write

    found = {}
    if language == "en":
        for name in ("clinc150", "sst2"):
            split = write(name, folder)
            found[name] = {"train": str(split.train), "valid": str(split.valid), "test": str(split.test)}
        return found
    return {"online_shopping_10_cats": _shopping(folder)}


def _shopping(folder: Path) -> dict[str, str]:
    """6,000 reviews to learn from and 3,000 to test, evenly drawn."""
    import csv
    import io
    import random
    import zipfile

    pack = next((DATA / "online_shopping_10_cats").glob("*.zip"))
    with zipfile.ZipFile(pack) as file:
        name = next(one for one in file.namelist() if one.endswith(".csv"))
        rows = list(csv.DictReader(io.TextIOWrapper(file.open(name), encoding="utf-8-sig")))
    rows = [row for row in rows if row["review"].strip()]
    random.Random(0).shuffle(rows)
    paths = {}
    for part, (first, last) in {"train": (0, 6000), "test": (6000, 9000)}.items():
        path = folder / f"shopping.{part}.csv"
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["text", "label"])
            writer.writerows([row["review"], row["label"]] for row in rows[first:last])
        paths[part] = str(path)
    return paths


if __name__ == "__main__":
    sys.exit(main())
