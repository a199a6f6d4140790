"""Images: a ViT tuned from scratch beside the same ViT after `masked_image`, on a share of CIFAR-10, over
seeds.

    .venv/bin/python bench/see.py --pretrain 200 --epochs 50 --seeds 0,1,2 --device cuda
    .venv/bin/python bench/see.py --rows 1000 --pretrain 4 --epochs 4 --test-rows 500 --seeds 0  # smoke

Writes bench/out/see-<rows>.json. A cell is one (system, seed); finished cells are not run again. All
systems tune on the same images for the same epochs at the same rate: `scratch` from random weights, `simmim`
and `mae` after `--pretrain` epochs on those images without their labels. `longer` is from scratch, too, and
tunes for as many epochs as the others have in both stages together: what the labels alone are worth at equal
time. A tenth of the train images picks the best step; test images are scored once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10_images" / "cifar10_images.tar.xz"
SHAPE = {"image_size": 32, "patch_size": 4}
SYSTEMS = ("scratch", "longer", "simmim", "mae")


def unpacked(folder: Path, rows: int, test_rows: int | None) -> None:
    """A share of the train images and of the test images (all of them without `test_rows`), as many of each
    class, drawn once for all seeds.
    """
    from penjing.data.pixels import members, names_in

    names = {name for name in names_in(str(ARCHIVE)) if name.endswith(".jpg")}
    held = dict(members(str(ARCHIVE), names))
    draw = np.random.default_rng(0)
    for part, wanted in (("train", rows), ("test", test_rows)):
        classes = sorted({name.split("/")[1] for name in held if name.startswith(f"{part}/")})
        for label in classes:
            own = sorted(name for name in held if name.startswith(f"{part}/{label}/"))
            for i in draw.permutation(len(own))[: len(own) if wanted is None else wanted // len(classes)]:
                path = folder / own[i]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(held[own[i]])


def ran(system: str, seed: int, data: Path, given: argparse.Namespace) -> dict[str, float]:
    """One system's test accuracy, its cheap baseline's, and seconds of each stage."""
    from penjing import pretrain, tune

    train, test = str(data / "train"), str(data / "test")
    shape = {
        **SHAPE, "hidden_size": given.width, "num_hidden_layers": given.layers,
        "num_attention_heads": given.width // 32, "intermediate_size": 4 * given.width,
    }  # fmt: skip
    base: dict[str, Any] = {"base": "vit-tiny", "shape": shape}
    seconds = 0.0
    with tempfile.TemporaryDirectory(prefix="penjing-see-") as out:
        usual: dict[str, Any] = {"seed": seed, "out": out, "device": given.device}
        if system in ("simmim", "mae"):
            task = {"masked_image": {"how": system}}
            # the last step's weights: a validation at the very end alone
            grown = pretrain(**base, task=task, train=train, epochs=given.pretrain, evals=1, **usual)
            base, seconds = {"base": str(grown.folder)}, grown.result["cost"]["seconds"]
        epochs = given.epochs + (given.pretrain if system == "longer" else 0)
        run = tune(
            **base, task="see", train=train, test=test, epochs=epochs, lr=given.lr,
            weight_decay=0.05, batch=given.batch, **usual,
        )  # fmt: skip
        result = run.result
    return {
        "test": result["after"]["values"]["accuracy"],
        "baseline": result["baseline"]["values"]["accuracy"],
        "pretrain_s": seconds,
        "tune_s": result["cost"]["seconds"],
    }


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import processor, table

    given = _parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"see-{given.rows}.json"
    about = {k: v for k, v in vars(given).items() if k not in ("out", "seeds", "systems")}
    kept = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if kept and kept["about"] != about:
        raise SystemExit(f"{path} holds cells of {kept['about']}, not {about}. Move it away, or say --out.")
    cells: dict[str, Any] = kept.get("cells", {})
    with tempfile.TemporaryDirectory(prefix="penjing-cifar-") as folder:
        unpacked(Path(folder), given.rows, given.test_rows)
        for seed in given.seeds:
            for system in given.systems:
                key = f"{system} seed={seed}"
                if key in cells:
                    continue
                cells[key] = ran(system, seed, Path(folder), given)
                whole = {"about": about, "processor": processor(), "cells": cells}
                path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
                print(f"{key}: {', '.join(f'{k} {v:.4g}' for k, v in cells[key].items())}", flush=True)
    print(f"\nTest accuracy, {given.rows:,} CIFAR-10 images to learn from, {given.epochs:g} epochs of tuning")
    table([row for system in given.systems if (row := _row(cells, system))])
    return 0


def _row(cells: dict[str, Any], system: str) -> dict[str, str]:
    found = [cell for key, cell in cells.items() if key.startswith(f"{system} ")]
    if not found:
        return {}
    tests = [100 * cell["test"] for cell in found]
    return {
        "system": system, "seeds": str(len(found)),
        "test %": f"{mean(tests):.2f} ± {stdev(tests) if len(tests) > 1 else 0:.2f}",
        "baseline %": f"{100 * mean(c['baseline'] for c in found):.2f}",
        "pretrain s": f"{mean(c['pretrain_s'] for c in found):.0f}",
        "tune s": f"{mean(c['tune_s'] for c in found):.0f}",
    }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000, help="train images, as many of each class")
    parser.add_argument("--test-rows", type=int, help="so few test images, for a smoke test")
    parser.add_argument("--pretrain", type=float, default=200, help="epochs without labels")
    parser.add_argument("--epochs", type=float, default=50, help="epochs of tuning")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-3, help="of the tuning")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
