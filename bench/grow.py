"""Pretraining: against nanoGPT's loop on characters, and what a masked-LM base is worth to tasks.

    .venv/bin/python bench/grow.py shakespeare --seeds 0,1,2
    .venv/bin/python bench/grow.py shakespeare --setting gpu          # 6 x 6 x 384, on CUDA
    .venv/bin/python bench/grow.py worth --language en --minutes 20 --seeds 0,1,2
    .venv/bin/python bench/grow.py worth --language zh
    .venv/bin/python bench/grow.py simcse --minutes 20 --seeds 0,1,2

`shakespeare`: tokens/s of both loops in turns, in one process, and the loss of each on the last tenth of the
text after the setting's steps; then what Llama's blocks of the same size reach in nanoGPT's time. `worth`: a
4-layer, 256-wide BERT learns from lm_domains for so many minutes; it and the same shape from random weights
are then tuned alike, and the difference of their test scores is told with its spread over seeds. `simcse`:
such a base learns sentences by `contrastive`, without labels (those of stsb's train rows, and of the corpus);
Spearman of the cosines of means on stsb's development rows, before and after. `--work FOLDER` keeps the base
for the next call. Needs ../shared/data. Writes bench/out/grow-*.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
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
    parser.add_argument("verb", choices=("shakespeare", "worth", "simcse"))
    parser.add_argument("--setting", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=40, help="steps a turn")
    parser.add_argument("--steps", type=int, help="fewer than the setting's, for a trial")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument(
        "--base", choices=("bert-mini", "ettin-17m"), default="bert-mini", help="whose blocks are grown"
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument(
        "--work", type=Path, help="keep base, tokenizer and runs here, and take them from here"
    )
    parser.add_argument("--lr", type=float, help="of `contrastive`; its own when not given")
    parser.add_argument("--repeat", type=float, help="of `contrastive`, likewise")
    parser.add_argument(
        "--on", choices=("valid", "train"), default="valid", help="train: to choose settings by"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as aside:
        folder = given.work or Path(aside)
        folder.mkdir(parents=True, exist_ok=True)
        {"shakespeare": shakespeare, "worth": worth, "simcse": simcse}[given.verb](given, folder)
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
            **_recipe(given, folder, setting, seed, len(chars), data[:cut]),
        }
        found.append(one)
        ratios = [a / b for a, b in speeds]
        print(
            f"seed {seed}: loss {one['ours']:.4f} (nanoGPT {one['nano']:.4f}); "
            f"{median(a for a, _ in speeds):,.0f} tokens/s, {median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}) of nanoGPT's; Llama's blocks in nanoGPT's time, "
            f"{one['steps']:,} steps: loss {one['recipe']:.4f}",
            flush=True,
        )
    facts = {"processor": processor(), "load": load_average(), "setting": vars(setting), "runs": found}
    write(given.out / f"grow-shakespeare-{given.setting}.json", facts)
    names = {"ours": "ours", "nano": "nanoGPT", "recipe": "Llama's blocks, equal time"}
    table([{"seed": o["seed"], **{says: f"{o[key]:.4f}" for key, says in names.items()}} for o in found])


def _recipe(
    given: argparse.Namespace, folder: Path, setting: Any, seed: int, n_words: int, data: Any
) -> dict[str, float]:
    """What Llama's blocks of as many layers, heads and parameters reach in the time of nanoGPT's steps."""
    from dataclasses import replace

    import torch

    from bench import nano

    device = "cuda" if given.setting == "gpu" else "cpu"
    torch.manual_seed(seed)
    theirs = nano.steps(nano.Nano(setting, n_words).to(device), setting, data, seed)
    llama = {
        "num_hidden_layers": setting.layers, "num_attention_heads": setting.heads,
        "hidden_size": setting.width, "num_key_value_heads": setting.heads,
        "intermediate_size": round(8 * setting.width / 24) * 8, "max_position_embeddings": setting.context,
        "attention_dropout": setting.dropout,
    }  # fmt: skip
    ours = our_run(folder, setting, seed, given.precision, ("llama-nano", llama))[2]
    speeds = _in_turns(ours, theirs, setting, given.block, given.rounds)
    steps = round(setting.steps * median(a / b for a, b in speeds))
    job, made, loop = our_run(
        folder, replace(setting, steps=steps), seed, given.precision, ("llama-nano", llama)
    )
    for _ in loop:
        pass
    return {"recipe": our_loss(job, made), "steps": steps}


def our_run(
    folder: Path, setting: Any, seed: int, precision: str, other: tuple[str, dict[str, Any]] | None = None
) -> tuple[Any, Any, Iterator[Any]]:
    """A loop of ours on GPT-2 as nanoGPT has it, or on another base in a shape."""
    from penjing import spec as specs
    from penjing.engine import optim
    from penjing.engine.loop import train_steps
    from penjing.jobs.feeding import opened_corpus
    from penjing.jobs.prepare import ready, stream

    shape = {"n_layer": setting.layers, "n_head": setting.heads, "n_embd": setting.width}
    shape["activation_function"] = "gelu"  # nanoGPT's; GPT-2's own is tanh's approximation, which costs more
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), setting.dropout)
    spec = specs.read(
        base=other[0] if other else "gpt-nano", tokenizer=str(folder / "tok"),
        shape=other[1] if other else {**shape, **drops, "n_positions": setting.context},
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
    from penjing import tune

    grown, steps, random = _masked(given, folder)
    found = []
    for name, rows in _sets(given.language, folder).items():
        for seed in given.seeds:
            scores = []
            for start in ({"base": str(grown)}, {k: random[k] for k in ("base", "tokenizer", "shape")}):
                run = tune(
                    **start, **rows, task="classify", seed=seed, out=random["out"], epochs=4, lr=3e-4,
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


def _masked(given: argparse.Namespace, folder: Path) -> tuple[Path, int, dict[str, Any]]:
    """A run of masked modelling of about --minutes, its steps, and the same shape of random weights."""
    from penjing import pretrain
    from penjing.jobs.vocabulary import train_tokenizer

    corpus, tokenizer, runs = folder / "corpus", folder / "tok", folder / "runs"
    gated = {"intermediate_size": 640}  # three matrices there, two in BERT
    shape = SHAPE if given.base == "bert-mini" else {**SHAPE, **gated}
    base = {"base": given.base, "tokenizer": str(tokenizer), "shape": shape, "out": str(runs)}
    if (grown := runs / "grown").joinpath("result.json").is_file():
        return grown, json.loads((grown / "start.json").read_text("utf-8"))["steps"], base
    corpus.mkdir()
    for path in sorted((DATA / "lm_domains").glob(f"{given.language}_*.txt.gz")):
        (corpus / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    train_tokenizer(
        [str(corpus / "*.train.txt")], tokenizer, kind="wordpiece", family="bert", vocab=8000, lower=True
    )
    settings = {**base, "data": {"train": str(corpus), "max_length": 128}, "task": "masked"}
    pace = pretrain({**settings, "name": "pace", "train": {"steps": 20, "evals": 0}})
    a_step = pace.result["cost"]["seconds"] / 20
    steps = given.steps or max(50, round(60 * given.minutes / a_step))
    print(f"{steps:,} steps of masked modelling in about {given.minutes:g} minutes", flush=True)
    made = pretrain({**settings, "name": "grown", "train": {"steps": steps, "evals": 4}})
    print(f"loss {made.result['after']['values']['loss']:.3f}", flush=True)
    return made.folder, steps, base


def simcse(given: argparse.Namespace, folder: Path) -> None:
    """Spearman of stsb's development rows: of the base by masked words, and after `contrastive`."""
    import random

    from bench.machine import load_average, processor, table, write
    from bench.pair import stsb
    from penjing import pretrain

    grown, steps, base = _masked(given, folder)
    rows = stsb(DATA / "stsb")
    asked = rows[given.on]
    lines = [one for a, b, _ in rows["train"] for one in (a, b)]
    for path in sorted((folder / "corpus").glob("*.train.txt")):
        whole = [line for line in path.read_text("utf-8").splitlines() if 30 <= len(line) <= 200]
        lines += random.Random(0).sample(whole, min(len(whole), 5000))
    sentences = folder / "sentences.txt"
    sentences.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    words = {} if given.repeat is None else {"repeat": given.repeat}
    found = []
    for seed in given.seeds:
        run = pretrain(
            base=str(grown), task={"contrastive": {"pooling": "mean", **words}}, seed=seed,
            out=base["out"], name=f"simcse-{seed}-{given.lr}-{given.repeat}",
            data={"train": str(sentences), "documents": "line", "max_length": 64},
            train={"lr": given.lr} if given.lr else {},
        )  # fmt: skip
        one = {"seed": seed, "before": alike(grown, asked), "after": alike(run.folder, asked)}
        found.append(one)
        print(f"seed {seed}: {one['before']:.4f} -> {one['after']:.4f}", flush=True)
    facts = {"processor": processor(), "load": load_average(), "steps": steps, "lr": given.lr, **words}
    write(given.out / f"grow-simcse-{given.on}.json", {**facts, "runs": found})
    table([{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in one.items()} for one in found])


def alike(run: Path, rows: list[tuple[str, str, float]]) -> float:
    """Spearman of given scores and the cosines of mean states, by transformers' own model."""
    import torch
    from scipy.stats import spearmanr
    from torch.nn import functional as F
    from transformers import AutoModel, AutoTokenizer

    trunk = next(f for f in (run / "best" / "trunk", run / "trunk") if f.is_dir())
    model, tokenizer = AutoModel.from_pretrained(trunk).eval(), AutoTokenizer.from_pretrained(trunk)
    sides = []
    for side in (0, 1):
        texts, made = [row[side] for row in rows], []
        for start in range(0, len(texts), 100):
            asked = tokenizer(
                texts[start : start + 100], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden, here = model(**asked).last_hidden_state, asked["attention_mask"][..., None]
            made.append(F.normalize((hidden * here).sum(1) / here.sum(1), dim=-1))
        sides.append(torch.cat(made))
    return float(spearmanr((sides[0] * sides[1]).sum(1).numpy(), [row[2] for row in rows])[0])


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
