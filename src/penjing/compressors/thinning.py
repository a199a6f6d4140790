"""Weights that become zero, a layer of the stack at a time: what `magnitude`, `wanda` and `sparsegpt` share.

Zeros alone make nothing smaller or faster: `sparse` storage makes the file smaller, and CUDA cards multiply
2:4 faster. Legend: O outputs, I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from penjing.compressor import Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import Moments, batches_of, by_layer, error_of, gathered, plain_linears
from penjing.models.slim import weight_of
from penjing.models.sparsity import Pattern, magnitudes, mask_of

Thin = Callable[[Tensor, Moments], Tensor]


@torch.no_grad()
def thin(held: Held, rehearsal: Rehearsal, pattern: Pattern, solve: Thin | None, rows: int | None) -> Shrunk:
    """The model with the pattern's zeros in the linear layers of its stacks.

    `solve(weight (O, I), moments)` gives a layer's new weight; the moments are those of the inputs that the
    layers below give, thinned already. Without it the least weights go and no text is looked at.
    """
    trunk = held.model.trunk
    names = plain_linears(held)
    batches = batches_of(rehearsal, rows=rows) if solve else []
    zeros = total = 0
    ours = least = outputs = 0.0
    for together in by_layer(trunk, names):
        seen = gathered(held.model, batches, together, Moments.empty) if solve else {}
        for name in together:
            weight = weight_of(trunk, name)
            plain = weight * mask_of(magnitudes(weight), pattern)
            new = plain if solve is None else solve(weight, seen[name]).to(weight.dtype)
            if solve:
                ours += error_of(new - weight, seen[name].outer)
                least += error_of(plain - weight, seen[name].outer)
                outputs += error_of(weight, seen[name].outer)
            weight.copy_(new)
            zeros, total = zeros + int((new == 0).sum()), total + new.numel()
    facts: dict[str, Any] = {"pattern": str(pattern), "layers": len(names), "zeros_share": zeros / total}
    if outputs:
        facts |= {"error": ours / outputs, "error_of_magnitude": least / outputs}
    return Shrunk(held, facts)
