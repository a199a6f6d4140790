"""Linears in int8 after a calibration: what static int8 and SmoothQuant share.

Legend: O outputs, I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from penjing.compressor import Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import Ranges, batches_of, bias_of, gathered, plain_linears, sharing
from penjing.compressors.folding import fold, norms_of
from penjing.compressors.sensitive import kept, told
from penjing.compressors.tables import hold_tables
from penjing.models.calibrated_int8 import CalibratedInt8, through
from penjing.models.slim import weight_of

SPANS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
Factors = Callable[[Ranges, Sequence[Tensor]], Tensor]
TRIED = 256  # tokens by which factors are judged


def calibrated(
    held: Held,
    rehearsal: Rehearsal,
    *,
    static: bool,
    clip: bool,
    embeddings: bool,
    keep: float | Sequence[str],
    factors: Factors | None = None,
) -> Shrunk:
    """The model with its linear layers in int8, those of `keep` as they were.

    `factors(ranges, weights)` gives what the inputs that some layers share are divided by; a norm whose
    output nothing else reads does that, else the layers do.
    """
    model, names = held.model, plain_linears(held)
    trunk, batches = model.trunk, batches_of(rehearsal)
    tables = hold_tables(held) if embeddings else 0
    seen = gathered(model, batches, names, Ranges.empty)
    divided: dict[str, Tensor] = {}
    spans: dict[str, tuple[float, float]] = {}
    for together in sharing(names, seen):  # and so one grid, which makes them one product
        record, weights = seen[together[0]], [weight_of(trunk, name) for name in together]
        if factors:
            divided |= dict.fromkeys(together, factors(record, weights))
        if static:
            span = span_of(record, torch.cat(weights), divided.get(together[0]), clip=clip)
            spans |= dict.fromkeys(together, span)

    def held_so(name: str, *, folded: bool = False) -> CalibratedInt8:
        by, weight = divided.get(name), weight_of(trunk, name)
        if folded and by is not None:
            weight, by = weight * by, None
        return CalibratedInt8.of(weight, bias_of(trunk, name), span=spans.get(name), factors=by)

    spared, hurts = kept(keep, held, rehearsal, names, held_so)
    norms = norms_of(model, batches_of(rehearsal, rows=2)[0], names) if factors else {}
    free = {group: norm for group, norm in norms.items() if not group & set(spared)}
    inside = {name for group in free for name in group}
    made = {name: held_so(name, folded=name in inside) for name in names if name not in spared}
    for group, norm in free.items():
        fold(trunk, norm, divided[min(group)])
    for name, layer in made.items():
        trunk.set_submodule(name, layer)
    facts = {"layers": len(made), "static": static, "texts": len(rehearsal.part), "tables": tables}
    if factors:
        facts["norms_that_divide"] = len(free)
    return Shrunk(held, {**facts, **told(hurts, spared)})


def moved_by(seen: Ranges, weights_OI: Sequence[Tensor], factors_I: Tensor, *, static: bool) -> float:
    """How far the outputs of layers that share inputs go from what they were, squared, on a sample of
    these.
    """
    sample = torch.cat(seen.sample)
    sample = sample[:: max(1, len(sample) // TRIED)]
    moved = 0.0
    for weight in weights_OI:
        span = span_of(seen, weight, factors_I, clip=False) if static else None
        layer = CalibratedInt8.of(weight, None, span=span, factors=factors_I)
        moved += float((layer(sample) - sample @ weight.t()).square().sum())
    return moved


def span_of(seen: Ranges, weight_OI: Tensor, factors_I: Tensor | None, *, clip: bool) -> tuple[float, float]:
    """Lowest and highest input (over its factor) of a layer's grid. `clip`: the share of the whole span whose
    grid moves a sample of inputs least, each weighed by the weights that it meets.
    """
    by = torch.ones_like(seen.low) if factors_I is None else factors_I
    low, high = float((seen.low / by).min()), float((seen.high / by).max())
    if not clip:
        return low, high
    sample = torch.cat(seen.sample) / by
    meets = (weight_OI.float() * by).square().sum(0)

    def moved(share: float) -> float:
        return float(((through(sample, low * share, high * share) - sample).square() * meets).sum())

    best = min(SPANS, key=moved)
    return low * best, high * best
