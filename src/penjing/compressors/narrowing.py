"""How heads and feed-forward units go: judged by what hangs on them, zeroed, made up for, and taken out.

Shared by `prune_heads` and `prune_ffn`. Units are first zeroed in place; taking them out must then change no
answer, and that is tried on a few rows, for a family may lay its heads out in another way than siblings tell.

Legend: O outputs, I inputs of a linear layer; U units of a sublayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from penjing.compressor import Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import batches_of
from penjing.errors import NotSupported, SpecError
from penjing.models.encdec import is_whole
from penjing.models.importance import activity, moments, sensitivity
from penjing.models.layers import bare
from penjing.models.modes import evaluating
from penjing.models.slim import Site, describe, narrow, sites_of, weight_of
from penjing.records import Batch

By = Literal["taylor", "activation"]
TOLERANCE = 1e-4
FEW = 8  # sequences of the trial


@dataclass(frozen=True)
class Asked:
    """What was asked for. `multiple`: numbers of units kept are multiples of it."""

    name: str
    attention: bool
    share: float
    by: By
    even: bool
    repair: bool
    rows: int
    multiple: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise SpecError(
                f"`{self.name}.share` is the share of units that go, between 0 and 1; it is {self.share}. "
                f"0.5 takes half."
            )


def shrink(held: Held, rehearsal: Rehearsal, asked: Asked) -> Shrunk:
    """The model without the units that matter least.

    Raises:
        NotSupported: a family whose units cannot go, two stacks, or an attention that needs them all.
    """
    model, trunk = held.model, held.model.trunk
    if is_whole(trunk):  # what enters its decoder are tokens of answers, which are others than a row's
        raise NotSupported(
            f"`{asked.name}` was to take units out of one stack of layers; {type(bare(trunk)).__name__} has "
            f"two that answer each other. Take a step that keeps its shape, such as `int8` or `low_rank`."
        )
    sites = sites_of(trunk, attention=asked.attention)
    if held.task.vary is not None:  # what is learned from a row is drawn, such as its masks
        every = np.arange(len(rehearsal.part))
        rehearsal = replace(rehearsal, part=held.task.vary(rehearsal.part, every, rehearsal.seed))
    batches = batches_of(rehearsal, rows=asked.rows)
    units = {site.last: site.n for site in sites}
    if asked.by == "taylor":
        scores = sensitivity(model, held.task.loss, batches, units)
    else:
        weights = {name: weight_of(trunk, name) for name in units}
        scores = activity(model, batches, units, weights)
    kept = chosen([scores[site.last].cpu() for site in sites], asked)
    for site, some in zip(sites, kept, strict=True):
        if len(some) < site.n:
            outer = moments(model, batches, site.last) if asked.repair else None
            zero(trunk, site, some, outer)
    few = _first(batches[0]).to(next(model.parameters()).device)
    with evaluating(model), torch.no_grad():
        wanted = model.states(few)
        for site, some in zip(sites, kept, strict=True):
            narrow(trunk, site, some.tolist())
        _refuse_other(model, few, wanted, asked)
    plain = describe(trunk, sites)
    facts: dict[str, Any] = {"units_before": [s.n for s in sites], "units": [len(some) for some in kept]}
    if not plain:
        facts["note"] = (
            f"no config of {type(trunk).__name__} says these sizes, so the bundle is opened by penjing, and "
            f"not by transformers alone"
        )
    return Shrunk(held, facts)


def chosen(scores: Sequence[Tensor], asked: Asked) -> list[Tensor]:
    """Units (from 0, rising) to keep of each layer: the best of each (`even`), or the best of all, compared
    as shares of their layer's norm (Michel et al. 2019, section 3.2); at least one, or `multiple`, of each.
    """
    if asked.even:
        counts = [_rounded(len(s) * (1 - asked.share), len(s), asked.multiple) for s in scores]
    else:
        shares = [s / s.norm().clamp(min=1e-30) for s in scores]
        every = torch.cat(shares).sort(descending=True).values
        least = every[max(0, round(len(every) * (1 - asked.share)) - 1)]
        counts = [_rounded(float((s >= least).sum()), len(s), asked.multiple) for s in shares]
    return [
        s.argsort(descending=True, stable=True)[:n].sort().values for s, n in zip(scores, counts, strict=True)
    ]


def _rounded(n: float, of: int, multiple: int) -> int:
    step = multiple if of >= 4 * multiple else 1
    return min(of, max(step, round(n / step) * step))


@torch.no_grad()
def zero(trunk: nn.Module, site: Site, kept: Tensor, outer: Tensor | None) -> None:
    """Zero what the other units add, in place. With `outer`, (I + 1, I + 1) the moments of [x 1], those kept
    say what they can of it: the weights and bias that minimise the squared change of the layer's product.
    """
    weight = weight_of(trunk, site.last)
    inputs = (kept[:, None] * site.size + torch.arange(site.size)).flatten().to(weight.device)
    bias: Any = getattr(trunk.get_submodule(site.last), "bias", None)
    old, new = weight.double().clone(), torch.zeros_like(weight)
    if outer is None:
        new[:, inputs] = weight[:, inputs]
    else:
        places = inputs if bias is None else torch.cat([inputs, inputs.new_tensor([len(outer) - 1])])
        gram = outer[places][:, places]
        gram = gram + torch.eye(len(gram), device=gram.device) * (1e-6 * gram.diagonal().mean() + 1e-12)
        gone = torch.ones(old.shape[1], dtype=torch.bool, device=old.device)
        gone[inputs] = False
        there = torch.arange(old.shape[1], device=old.device)[gone]
        lost = old[:, there] @ outer[there][:, places]  # (O, kept [+ 1])
        found = torch.linalg.solve(gram, lost.T).T
        new[:, inputs] = (old[:, inputs] + found[:, : len(inputs)]).to(new.dtype)
        if bias is not None:
            bias.add_(found[:, -1].to(bias.dtype))
    weight.copy_(new)


def _first(batch: Batch) -> Batch:
    """The first few sequences of a batch."""
    n = min(FEW, len(batch.lengths))
    n_tokens = int(batch.lengths[:n].sum())
    segments = None if batch.segments is None else batch.segments[:n_tokens]
    images = None if batch.images is None else batch.images[:n]
    return Batch(
        batch.ids[:n_tokens], batch.lengths[:n], None, 0.0, batch.rows[:n], segments=segments, images=images
    )


def _refuse_other(model: Any, few: Batch, wanted: Tensor, asked: Asked) -> None:
    said = ""
    try:
        found = model.states(few)
        gap = float((found - wanted).abs().max() / wanted.abs().max())
        said = "" if gap <= TOLERANCE else f"states change by {gap:.1e} of the largest"
    except RuntimeError as error:
        said = str(error).splitlines()[0][:120]
    if said:
        what = "Heads" if asked.attention else "Units"
        raise NotSupported(
            f"{what} whose removal changes no more than zeroing them were wanted; in "
            f"{type(model.trunk).__name__} it does ({said}): layers share something of theirs, such as "
            f"relative positions. Take {'`prune_ffn` or ' if asked.attention else ''}`drop_layers`."
        )
