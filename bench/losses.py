"""`losses`: Penjing's packed loss against the peer's padded one, same weights, same rows, dropout off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.machine import facts, table, write
from bench.sets import Split
from bench.systems import SYSTEMS, Job, Settings
from bench.worker import Child, Path

LARGEST = {"fp32": 1e-5}  # difference at equal weights above which the command fails


def losses(split: Split, settings: Settings, out: Path, *, n_batches: int = 10) -> bool:
    """Print and write the losses in fp32 and bf16; True when fp32 agrees to 1e-5 at equal weights."""
    if settings.peer_head == "pooler":
        settings = replace(settings, ours_head="cls")  # the same function, or there is nothing to compare
    n_batches = max(1, min(n_batches, split.n_rows["train"] // settings.batch))
    lines, found = [], {}
    for precision in ("fp32", "bf16"):
        system = replace(SYSTEMS["penjing"], precision=precision, grouped=False)
        with Child(Job("losses", system, settings, split, n_batches), out / "losses.log") as child:
            found[precision] = child.hear()
    for precision, one in found.items():
        for kind in ("fixed", "trained"):
            mine, theirs = one[kind]["ours"], one[kind]["peer"]
            true = found["fp32"][kind]["peer"]
            lines.append(
                {
                    "precision": precision,
                    "weights": "fixed" if kind == "fixed" else f"after 0 … {n_batches - 1} updates",
                    "first loss": f"{mine[0]:.6f}",
                    "last, ours": f"{mine[-1]:.6f}",
                    "last, peer": f"{theirs[-1]:.6f}",
                    "ours - peer": f"{_largest(mine, theirs):.2e}",
                    "ours - peer fp32": f"{_largest(mine, true):.2e}",
                    "peer - peer fp32": f"{_largest(theirs, true):.2e}",
                }
            )
    print(
        f"\n{n_batches} batches of {settings.batch} rows of {split.name}, dropout off; largest differences:"
    )
    table(lines)
    good = all(
        _largest(found[p]["fixed"]["ours"], found[p]["fixed"]["peer"]) <= limit
        for p, limit in LARGEST.items()
    )
    print(
        "fp32 agrees to 1e-5 at equal weights."
        if good
        else "fp32 DIFFERS by more than 1e-5 at equal weights."
    )
    write(out / f"losses-{split.name}.json", {**facts(settings, split), "losses": found, "agree": good})
    return good


def _largest(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def measure(job: Job) -> dict[str, Any]:
    """In the child: both models' losses of the same batches, at equal weights and then in a training."""
    import torch

    from bench import ours, peers
    from penjing.data import batches

    made = ours.build(job, dropout=False)
    lengths = made.train.tokens.lengths
    order = batches.order(lengths, batch=job.settings.batch, seed=0, epoch=0, group=False)[: job.steps]
    peer = peers.build(
        replace(job, system=replace(job.system, ours=False)),
        dropout=False,
        order=[int(i) for o in order for i in o],
    )
    _same_head(made.made.model.head, peer.trainer.model)
    model, trainer = made.made.model.train(), peer.trainer
    bf16 = job.system.precision == "bf16"
    mine, theirs = [], []
    with torch.no_grad():
        for i, rows in enumerate(order):
            pieces = [b.to(made.machine.device) for b in ours.stepful(made, rows)]
            mine.append(sum(float(made.task.loss(model, b).mean) * b.n_targets for b in pieces) / len(rows))
            low = i * job.settings.batch
            inputs = trainer.data_collator(peer.rows["train"].rows[low : low + len(rows)]).to(
                trainer.args.device
            )
            with torch.autocast(made.machine.device.type, torch.bfloat16, enabled=bf16):
                theirs.append(float(trainer.model.train()(**inputs)["loss"]))
    trainer.losses = []
    trainer.train()
    steps = ours.loop(made, iter([ours.stepful(made, rows) for rows in order]))
    return {
        "fixed": {"ours": mine, "peer": theirs},
        "trained": {"ours": [s.loss for s in steps], "peer": [float(x) for x in trainer.losses]},
    }


def _same_head(head: Any, model: Any) -> None:
    """Give Penjing's head the peer's weights."""
    pairs = [(head.out, model.classifier)]
    if head.dense is not None:
        pairs.append((head.dense, model.base_model.pooler.dense))
    for to, source in pairs:
        to.weight.data.copy_(source.weight.data)
        to.bias.data.copy_(source.bias.data)
