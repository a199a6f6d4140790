"""How fast this machine trains, measured once in a second or two and kept in the user's cache.

The peak of a matrix product foretells a training step badly: small bases reached 0.10 to 0.14 of it, where
0.35 had been assumed. So small trunks are trained for a few steps, the way a run trains its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from penjing.device import Machine, remembered
from penjing.models.heads import ClassHead
from penjing.models.model import Model
from penjing.models.packing import how_to_run
from penjing.models.sizing import Pace, Shape, flops_a_token
from penjing.records import Batch

WIDTHS = (128, 512)
ROW = 16  # tokens
ROWS = {"cpu": (4, 32), "cuda": (32, 1024)}  # of a small and of a large step
UPDATED = 1 << 22  # parameters: more than caches hold
TRIES = 3


def pace_of(machine: Machine) -> Pace:
    """The machine's pace in its precision; measured where it is not kept yet."""
    cuda = machine.device.type == "cuda"
    place = torch.cuda.get_device_name(machine.device) if cuda else machine.device.type
    kept = remembered(f"pace {place} {machine.precision}", lambda: _measured(machine))
    shapes = [Shape(w, kept[f"{w} overhead_s"], kept[f"{w} flops_a_s"]) for w in WIDTHS]
    return Pace(tuple(shapes), kept["update_s"])


def _measured(machine: Machine) -> dict[str, float]:
    found = {"update_s": _update_s(machine)}
    with torch.random.fork_rng(), torch.enable_grad():
        for width in WIDTHS:
            shape = _shape(machine, width)
            found |= {f"{width} overhead_s": shape.overhead_s, f"{width} flops_a_s": shape.flops_a_s}
    return found


def _shape(machine: Machine, width: int) -> Shape:
    """Two steps of unequal size tell what a token costs and what a layer costs however few there are."""
    model = _trunk(machine, width)
    few, many = ROWS["cuda" if machine.device.type == "cuda" else "cpu"]
    small, large = (_step_s(model, n, machine.device) for n in (few, many))
    a_token = max((large - small) / ((many - few) * ROW), 0.1 * large / (many * ROW))
    overhead = max(small - few * ROW * a_token, 0.01 * small)
    return Shape(width, overhead, flops_a_token(model, ROW) / a_token)


def _trunk(machine: Machine, width: int) -> Model:
    """A one-layer BERT that trains whole, as a run would have it."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=1000,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        max_position_embeddings=64,
    )
    trunk = BertModel(config, add_pooling_layer=False).to(machine.device)
    head = ClassHead(width, 2, pooling="mean", dropout=0.1).to(machine.device)
    return Model(trunk, head, how_to_run(trunk)).prepare(machine.precision).train()


def _step_s(model: Model, n_rows: int, device: torch.device) -> float:
    ids = torch.randint(10, 1000, (n_rows * ROW,), device=device)
    batch = Batch(ids, torch.full((n_rows,), ROW), None, float(n_rows), tuple(range(n_rows)))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(batch).float().square().mean().backward()

    return _best_s(step, device)


def _update_s(machine: Machine) -> float:
    """Seconds a parameter of gradient norm and AdamW."""
    weight = nn.Parameter(torch.zeros(UPDATED, device=machine.device))
    weight.grad = grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight], fused=True)

    def step() -> None:
        torch.nn.utils.get_total_norm([grad])
        optimizer.step()

    return _best_s(step, machine.device) / UPDATED


def _best_s(job: Callable[[], None], device: torch.device) -> float:
    """Shortest of some tries after one that warms up, seconds."""
    best = float("inf")
    for turn in range(1 + TRIES):
        began = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began) if turn else best
    return best
