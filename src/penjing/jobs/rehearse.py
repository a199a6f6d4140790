"""A rehearsal before the first step: what one step really costs here, on rows of this job, changing nothing.

Formulas and a machine's peak foretell small models badly (overheads weigh as much as products), and a busy
machine is slower than its peak; two steps' worth of forward and backward say both, and meet a lack of memory
before it costs an hour.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import torch

from penjing.data import batches
from penjing.device import resident_mib
from penjing.engine.loop import backward_of, out_of_memory, with_terms
from penjing.jobs.prepare import Ready
from penjing.models.sizing import Forecast
from penjing.records import Batch, Loss, Part, Technique
from penjing.task import Task

UPDATE = 1.15  # a step beside its forward and backward: clipping, optimizer, batch making


def rehearse(
    made: Ready,
    task: Task,
    train: Part,
    *,
    batch: int,
    micro_tokens: int,
    expected: Forecast,
    techniques: Sequence[Technique] = (),
) -> Forecast:
    """`expected` with seconds as measured on a batch of middling length, and memory above what is resident
    now. `techniques` have begun, and change the loss and how gradients are made: a teacher may run beside it.
    """
    whole, backward = with_terms(task.loss, techniques), backward_of(techniques)
    lengths = batches.lengths_of(train)
    middling = np.argsort(lengths, kind="stable")
    size = min(batch, len(middling))
    start = (len(middling) - size) // 2
    rows = middling[start : start + size]
    part, places = train, rows
    if task.vary:
        part = task.vary(train, rows, 0)
        places = np.arange(len(part))
    pieces = batches.cut(places, batches.lengths_of(part), tokens=micro_tokens)
    packed = [batches.packed(part, piece) for piece in pieces]
    device = next(made.model.parameters()).device
    resident = resident_mib(device)
    best = float("inf")

    def loss(given: Batch) -> Loss:
        return whole(made.model, given)

    made.model.train()
    try:
        for _ in range(3):
            began = time.perf_counter()
            for piece in packed:
                backward(made.model, piece.to(device), loss, 1.0)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - began)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return expected  # the loop will halve its micro-batches, and say so
    finally:
        made.model.zero_grad(set_to_none=True)
    tokens = sum(piece.n_tokens for piece in packed)
    return dataclasses.replace(
        expected, seconds=UPDATE * best / tokens * expected.tokens, mib=resident + expected.mib
    )
