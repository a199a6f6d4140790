"""Penjing against transformers' Trainer and peft on text classification: losses, speed, memory, quality.

    .venv/bin/python bench/tune.py losses  --data banking77
    .venv/bin/python bench/tune.py speed   --data banking77 --data clinc150
    .venv/bin/python bench/tune.py quality --data sst2 --seeds 0,1,2 --lrs 5e-5,1e-4,2e-4
    .venv/bin/python bench/tune.py all     --data banking77 --device cuda

Needs `pip install -e .[bench]` and ../shared/data, or `--data rows.csv`. Writes JSON to bench/out. Every
system gets the same base, rows, seeds, batch, epochs, rate, schedule, warm-up, weight decay, clipping and
longest row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.systems import Settings

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """The command line; returns the exit status."""
    if (
        Path(sys.path[0]).resolve() == ROOT / "bench"
    ):  # run as a file: `bench` is the package, its files are no modules
        sys.path[0] = str(ROOT)
    from bench.sets import write

    given = _parser().parse_args()
    settings = _settings(given)
    given.out.mkdir(parents=True, exist_ok=True)
    good = True
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        for name in given.data or ["banking77"]:
            split = write(name, Path(folder), rows=given.rows, test_rows=given.test_rows)
            print(
                f"\n== {split.name}: {split.n_rows}, {split.n_labels} labels; validation: {split.note}",
                flush=True,
            )
            if given.verb in ("losses", "all"):
                from bench.losses import losses

                good &= losses(split, settings, given.out)
            if given.verb in ("speed", "all"):
                from bench.speed import speed

                speed(
                    split, settings, given.out, given.systems,
                    block=given.block, rounds=given.rounds, warm=given.warm,
                )  # fmt: skip
            if given.verb in ("quality", "all"):
                from bench.quality import quality

                rates = {"full": given.lrs or [settings.lr], "lora": given.lora_lrs or [settings.lora_lr]}
                quality(
                    split, settings, given.out, given.systems,
                    seeds=given.seeds, rates=rates, only=given.only,
                )  # fmt: skip
    return 0 if good else 1


def _settings(given: argparse.Namespace) -> Settings:
    """The settings of the command line, with Penjing's LoRA defaults and the base's folder."""
    import torch

    from bench.systems import Settings, with_lora_defaults
    from penjing.models.load import find

    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = Settings(
        base=given.base,
        folder=str(find(given.base)),
        max_length=given.max_length,
        batch=given.batch,
        epochs=given.epochs,
        lr=given.lr,
        lora_lr=given.lora_lr,
        head_lr=given.head_lr,
        schedule=given.schedule,
        warmup=given.warmup,
        weight_decay=given.weight_decay,
        device=device,
        ours_head="cls" if given.same_head else "auto",
        peer_head=given.peer_head,
        peers_sleep=not given.peers_spin,
    )
    return with_lora_defaults(plain)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["losses", "speed", "quality", "all"])
    add = parser.add_argument
    add("--data", action="append", help="banking77, clinc150, sst2, agnews_4k or a CSV; may be repeated")
    add(
        "--systems",
        type=_systems,
        default=_systems("full,lora"),
        help="names, or full, lora, fp32; with commas",
    )
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--base", default="minilm", help="preset or folder")
    add("--out", type=Path, default=ROOT / "bench" / "out")
    add("--rows", type=int, help="keep about so many train rows (smoke tests)")
    add("--test-rows", type=int, help="keep about so many validation and test rows")
    heads = parser.add_mutually_exclusive_group()
    heads.add_argument(
        "--same-head", action="store_true", help="Penjing takes transformers' pooler and classifier"
    )
    heads.add_argument(
        "--peer-head", choices=["pooler", "mean"], default="pooler", help="mean: as Penjing's for MiniLM"
    )
    shared = parser.add_argument_group("what all systems share")
    shared.add_argument("--epochs", type=float, default=10.0)
    shared.add_argument("--batch", type=int, default=32)
    shared.add_argument("--max-length", type=int, default=128)
    shared.add_argument("--lr", type=float, default=1e-4, help="full fine-tuning")
    shared.add_argument("--lora-lr", type=float, default=1e-3)
    shared.add_argument("--head-lr", type=float, help="of pooler and classifier; else as all that trains")
    shared.add_argument("--schedule", choices=["linear", "cosine", "constant"], default="linear")
    shared.add_argument("--warmup", type=float, default=0.1, help="share of the steps")
    shared.add_argument("--weight-decay", type=float, default=0.01)
    shared.add_argument(
        "--peers-spin",
        action="store_true",
        help="leave OpenMP's waiting as torch has it for peers; a busy machine slows them much",
    )
    race = parser.add_argument_group("speed")
    race.add_argument("--block", type=int, default=25, help="steps a turn; blocks make 50-step cycles whole")
    race.add_argument("--rounds", type=int, default=6)
    race.add_argument("--warm", type=int, default=15, help="steps of each system before the first round")
    score = parser.add_argument_group("quality")
    score.add_argument("--seeds", type=_ints, default=[0, 1, 2])
    score.add_argument(
        "--lrs", type=_floats, help="rates to choose from on validation rows, full fine-tuning"
    )
    score.add_argument("--lora-lrs", type=_floats, help="the same for LoRA")
    score.add_argument(
        "--only", type=_only, action="append", default=[], help="data,system,seed to run; * for any"
    )
    return parser


def _systems(text: str) -> list[str]:
    from bench.systems import FULL, LORA, SYSTEMS

    groups = {"full": FULL, "lora": LORA, "fp32": ("trainer", "penjing-fp32", "peft", "penjing-lora-fp32")}
    names = [name for word in text.split(",") for name in groups.get(word, (word,))]
    wrong = [name for name in names if name not in SYSTEMS]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]} is not one of {', '.join([*groups, *SYSTEMS])}")
    return list(dict.fromkeys(names))


def _ints(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _floats(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def _only(text: str) -> tuple[str, str, str]:
    words = text.split(",")
    if len(words) != 3:
        raise argparse.ArgumentTypeError(f"data,system,seed was wanted (* for any); it is {text}")
    return words[0], words[1], words[2]


if __name__ == "__main__":
    sys.exit(main())
