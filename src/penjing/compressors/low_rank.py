"""Linear layers as products of two thinner ones, as good as can be for the inputs they meet."""

from __future__ import annotations

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import (
    Moments,
    batches_of,
    bias_of,
    by_layer,
    error_of,
    gathered,
    plain_linears,
)
from penjing.compressors.sensitive import kept, told
from penjing.errors import NotSupported, SpecError
from penjing.models.low_rank import LowRank, factored, worth
from penjing.models.slim import weight_of


def low_rank(
    *, share: float | None = 0.5, energy: float | None = None, keep: list[str] | None = None, rows: int = 256
) -> Compressor:
    """Put two thin linears in each linear's place, by the singular values over the inputs it meets (SVD-LLM).

    Args:
        share: of a layer's weights that the two have together.
        energy: with no share (null), how much of the squares of its outputs they keep instead; a layer
            that would not get smaller stays.
        keep: names of linears that stay, with `*` for anything.
        rows: of the train rows, so many are looked at.
    """
    if (share is None) == (energy is None):
        raise SpecError(
            f"`low_rank` wants either `share` or `energy`; they are {share} and {energy}. Set one of them to "
            "null."
        )
    value = share if energy is None else energy
    assert value is not None
    if not 0 < value < 1:
        key = "share" if energy is None else "energy"
        raise SpecError(f"`low_rank.{key}` must lie between 0 and 1; it is {value}.")

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        trunk, names = held.model.trunk, plain_linears(held)
        spared, _ = kept(keep or [], held, rehearsal, names, trunk.get_submodule)
        batches, ranks = batches_of(rehearsal), {}
        lost = outputs = 0.0
        for together in by_layer(trunk, [name for name in names if name not in spared]):
            seen = gathered(held.model, batches, together, Moments.empty)
            for name in together:
                weight, outer = weight_of(trunk, name), seen[name].outer
                n_out, n_in = weight.shape
                found = factored(weight, outer)
                most = worth(n_in, n_out)
                asked = max(1, int(value * n_in * n_out / (n_in + n_out)))
                rank = asked if energy is None else found.rank_of(value)
                if rank > most:
                    continue
                layer = LowRank(*found.cut(rank), bias_of(trunk, name))
                lost += error_of(layer.dense() - weight, outer)
                outputs += error_of(weight, outer)
                ranks[name] = rank
                trunk.set_submodule(name, layer)
        if not ranks:
            raise NotSupported(
                f"Linear layers that get smaller by two thin ones were wanted; at {value} none of the "
                f"{len(names)} does. Take a smaller `{'share' if energy is None else 'energy'}`."
            )
        middle = sorted(ranks.values())[len(ranks) // 2]
        facts = {"layers": len(ranks), "of": len(names), "median_rank": middle, "error": lost / outputs}
        return Shrunk(held, {**facts, **told({}, spared)})

    return Compressor("low_rank", shrink, wants="texts", rows=rows)
