"""The trunk cache against its formula, against runs without it, and against transformers' Trainer.

    .venv/bin/python bench/trunk.py
    .venv/bin/python bench/trunk.py --frozen 2,4,5 --epochs 2,5,10 --rounds 5
    .venv/bin/python bench/trunk.py --smoke

`formula`: with k of L layers frozen, E epochs should cost (k / E + 3 (L - k)) / 3 L of E epochs that train
all L layers without a cache. Filling is timed once a round and an epoch by blocks of steps in turns; beside
it the same method without the cache.
`heads`: trials that train the head only, filling included, against as many runs of Trainer over a frozen
trunk. One after another, N runs of Trainer take N times as long as one, and one is timed over a block of its
steps and scaled to its length: the table says so.
Writes bench/out/trunk-<data>.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.ours import Ours
    from bench.sets import Split
    from bench.systems import Settings
    from penjing.records import Step, Tokens

ROOT = Path(__file__).resolve().parents[1]
WARM = 3  # steps of each system before the first round


def main() -> int:
    """The command line; returns the exit status."""
    if Path(sys.path[0]).resolve() == ROOT / "bench":  # run as a file: `bench` is the package
        sys.path[0] = str(ROOT)
    from bench.machine import facts, load_average, table, write
    from bench.sets import write as write_rows

    given = _parser().parse_args()
    if given.smoke:
        given.frozen, given.epochs, given.rounds, given.block, given.trials = [4], [5.0], 2, 2, 4
        given.rows = 200
    with tempfile.TemporaryDirectory(prefix="penjing-bench-") as folder:
        os.environ["PENJING_CACHE"] = folder  # filled anew, and gone afterwards
        split = write_rows(given.data, Path(folder), rows=given.rows, test_rows=given.rows)
        settings = _settings(given)
        loads = [load_average()]
        formula = against_formula(split, settings, given)
        heads = against_trainer(split, settings, given)
        loads.append(load_average())
        print(f"\n{given.base} on {split.name}, {split.n_rows['train']:,} train rows, {settings.device}:")
        table([_formula_line(one) for one in formula])
        print("cost: of training all layers, no cache. Medians (least-most) of rounds in turns.\n")
        table([_heads_line(one) for one in heads])
        print("Trainer: one run, timed over a block of its steps and scaled, times the number of trials.")
        print(f"Load average before and after: {loads}.")
        whole = {**facts(settings, split), "load": loads, "formula": formula, "heads": heads}
        write(given.out / f"trunk-{split.name}.json", whole)
    return 0


def against_formula(split: Split, settings: Settings, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for each k and E: measured costs, the formula's, and what the cache saves."""
    from penjing.models.layers import layers_of

    whole = _ours(split, settings, given, None)
    n_layers = len(layers_of(whole.base.trunk))
    found = []
    for frozen in given.frozen:
        uncached, cached = (_ours(split, settings, given, n_layers - frozen) for _ in range(2))
        fills, tokens = _filled(cached, given.rounds)
        turns = {
            "whole": _turns(whole, whole.train.tokens),
            "uncached": _turns(uncached, uncached.train.tokens),
            "cached": _turns(cached, tokens),
        }
        blocks = in_turns(turns, given)
        a_row = {name: [one / given.block / settings.batch for one in own] for name, own in blocks.items()}
        for epochs in given.epochs:
            filling = [one / epochs / len(cached.data.train) for one in fills]
            sides = list(zip(a_row["cached"], filling, a_row["whole"], a_row["uncached"], strict=True))
            found.append(
                {
                    "frozen": frozen,
                    "layers": n_layers,
                    "epochs": epochs,
                    "formula": (frozen / epochs + 3 * (n_layers - frozen)) / (3 * n_layers),
                    "cost": _spread([(step + fill) / full for step, fill, full, _ in sides]),
                    "uncached / cached": _spread([other / (step + fill) for step, fill, _, other in sides]),
                    "fill_s": fills,
                    "blocks_s": blocks,
                }
            )
    return found


def against_trainer(split: Split, settings: Settings, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Head-only trials: one after another and all in the bank, each with its own filling, against Trainer."""
    from bench.peers import build as build_peer
    from bench.systems import SYSTEMS, Job

    epochs = max(given.epochs)
    per_run = replace(settings, epochs=epochs, peer_head="mean")
    steps = per_run.steps(split.n_rows["train"])
    trainer: dict[str, list[float]] = {"trainer": [], "trainer-fast": []}
    ours: dict[str, list[float]] = {"one after another": [], "in the bank": []}
    for _ in range(given.rounds):
        for name, seconds in trainer.items():
            peer = build_peer(Job("turns", SYSTEMS[name], per_run, split, given.block + WARM))
            peer.trainer.model.trunk.requires_grad_(False)
            seconds.append(_trainer_s(peer.trainer, given.block) / given.block * steps * given.trials)
        for name, train in (("one after another", _heads_alone), ("in the bank", _heads_together)):
            job = _ours(split, per_run, given, 0)
            filled, tokens = _filled(job, 1)
            ours[name].append(filled[0] + _timed(lambda j=job, t=tokens, f=train: f(j, t, given.trials)))  # type: ignore[misc]
    return [
        {
            "ours": name,
            "trials": given.trials,
            "epochs": epochs,
            "seconds": own,
            **{f"{peer}_s": other for peer, other in trainer.items()},
            **{
                peer: _spread([b / a for a, b in zip(own, other, strict=True)])
                for peer, other in trainer.items()
            },
        }
        for name, own in ours.items()
    ]


def in_turns(turns: dict[str, Iterator[Step]], given: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each system's blocks of steps, the systems taking turns."""
    for steps in turns.values():
        _take(steps, WARM)
    blocks: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(given.rounds):
        for name, steps in turns.items():
            blocks[name].append(_timed(lambda s=steps: _take(s, given.block)))  # type: ignore[misc]
    return blocks


def _ours(split: Split, settings: Settings, given: argparse.Namespace, layers: int | None) -> Ours:
    """A training of the top `layers` layers (all of them, but not the word table, when None)."""
    from bench.ours import build
    from bench.systems import Job, System
    from penjing.models.layers import layers_of
    from penjing.models.load import load

    n = len(layers_of(load(settings.base, device="meta").trunk)) if layers is None else layers
    system = System("top", True, "top", "auto", True, f"top {n}", options={"layers": n})
    steps = max(settings.steps(split.n_rows["train"]), given.rounds * given.block + WARM + 1)
    return build(Job("turns", system, settings, split, steps))


def _filled(ours: Ours, times: int) -> tuple[list[float], Tokens]:
    """Seconds to compute and keep the states of all train rows, anew each time, and the tokens with them."""
    import shutil

    from penjing.engine import trunk

    seconds: list[float] = []
    tokens = [ours.train.tokens]
    for _ in range(times):
        shutil.rmtree(Path(os.environ["PENJING_CACHE"]) / "trunk", ignore_errors=True)
        began = time.perf_counter()
        tokens = trunk.keep(ours.made.model, [ours.train.tokens], most_bytes=1 << 40)
        seconds.append(time.perf_counter() - began)
    return seconds, tokens[0]


def _turns(ours: Ours, tokens: Tokens) -> Iterator[Step]:
    from bench.ours import loop

    return loop(replace(ours, train=replace(ours.train, tokens=tokens)))


def _heads_alone(ours: Ours, tokens: Tokens, n_trials: int) -> None:
    """Whole trainings of the head, each from its start."""
    import copy

    start = copy.deepcopy(ours.made.model.head)
    for _ in range(n_trials):
        ours.made.model.head.load_state_dict(start.state_dict())
        for _ in _turns(ours, tokens):
            pass


def _heads_together(ours: Ours, tokens: Tokens, n_trials: int) -> None:
    """The same trainings, all in one bank."""
    import copy
    from functools import partial

    import numpy as np
    from torch import nn

    from penjing.data import batches
    from penjing.engine import optim
    from penjing.engine.head_bank import HeadBank, HeadTrial

    settings, lengths, spec = ours.spec.train, tokens.lengths, ours.spec
    share = optim.schedule(settings, ours.steps)

    def rows(seed: int, start: int) -> Iterator[list[np.ndarray]]:
        for step in batches.steps(lengths, batch=settings.batch, seed=seed, group=True, start=start):
            yield batches.cut(step, lengths, tokens=settings.micro_tokens)

    trials = []
    for i in range(n_trials):
        head = copy.deepcopy(ours.made.model.head)
        holder = nn.Module()
        holder.trunk, holder.head = ours.made.model.trunk, head
        made = optim.optimizer(holder, settings, ours.made.lr)
        seeded = partial(rows, spec.seed + i)
        loss = ours.task.loss
        trials.append(
            HeadTrial(f"{i}", holder, seeded, loss, made, share, ours.steps, clip=settings.clip, seed=i)
        )
    assert tokens.kept is not None
    vectors = tokens.kept.of(np.arange(len(tokens)))
    for _ in HeadBank(trials, vectors, ours.train.targets).steps():
        pass


def _trainer_s(trainer: Any, block: int) -> float:
    """Seconds of the last `block` steps of a Trainer's training, without what comes before the first."""
    own, times = trainer.training_step, []

    def noted(*args: Any, **keywords: Any) -> Any:
        times.append(time.perf_counter())
        return own(*args, **keywords)

    trainer.training_step = noted
    trainer.train()
    return time.perf_counter() - times[-block]


def _take(steps: Iterator[Step], n: int) -> None:
    for _ in range(n):
        next(steps)


def _timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _said(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g} ({spread['min']:.3g}-{spread['max']:.3g})"


def _formula_line(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "frozen": f"{one['frozen']} of {one['layers']}",
        "epochs": f"{one['epochs']:g}",
        "formula": f"{one['formula']:.3f}",
        "cost": _said(one["cost"]),
        "off by": f"{one['cost']['median'] / one['formula'] - 1:+.0%}",
        "faster than all layers": f"{1 / one['cost']['median']:.2f}",
        "faster than uncached": _said(one["uncached / cached"]),
    }


def _heads_line(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "head only": f"{one['trials']} trials {one['ours']}",
        "epochs": f"{one['epochs']:g}",
        "seconds": _said(_spread(one["seconds"])),
        "faster than Trainer": _said(one["trainer"]),
        "than Trainer tuned": _said(one["trainer-fast"]),
    }


def _settings(given: argparse.Namespace) -> Settings:
    import torch

    from bench.systems import Settings
    from penjing.models.load import find

    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Settings(base=given.base, folder=str(find(given.base)), device=device, epochs=max(given.epochs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="banking77", help="banking77, clinc150, sst2, agnews_4k or a CSV")
    add("--rows", type=int, default=2000, help="keep about so many rows of each split")
    add("--base", default="minilm", help="preset or folder")
    add("--frozen", type=lambda s: [int(n) for n in s.split(",")], default=[2, 4, 5], help="layers, commas")
    add("--epochs", type=lambda s: [float(n) for n in s.split(",")], default=[2.0, 5.0, 10.0], help="commas")
    add("--trials", type=int, default=32, help="heads")
    add("--rounds", type=int, default=5)
    add("--block", type=int, default=20, help="steps a turn")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--out", type=Path, default=ROOT / "bench" / "out")
    add("--smoke", action="store_true", help="few rows, steps and trials: only to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
