"""Whole layers are taken out: what makes a model faster at every length and on every machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import batches_of
from penjing.errors import SpecError
from penjing.models.importance import influence
from penjing.models.shorten import shortened, which


def drop_layers(
    *,
    keep: int | list[int] | None = None,
    by: Literal["influence", "even", "top"] | None = None,
    rows: int = 256,
) -> Compressor:
    """Keep some of the layers; the others are gone from the checkpoint.

    keep: how many layers stay (half, when not given), or which, from 1. by: `influence`, those go that turn
    the states least (ShortGPT, Men et al. 2024); `even`, those stay that lie evenly between the first and the
    last (DistilBERT); `top`, the last ones go. `influence`, when not given. rows: looked at, by `influence`.
    """
    if isinstance(keep, list) and by is not None:
        raise SpecError(
            f"`drop_layers.by` is `{by}` and chooses layers; `keep` names them: {keep}. Leave one out."
        )
    looks = by in (None, "influence") and not isinstance(keep, list)

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        n = held.base.n_layers
        wanted = max(1, n // 2) if keep is None else keep
        facts: dict[str, Any] = {"layers_before": n}
        kept = which(wanted, n, key="drop_layers.keep")
        if by == "top":
            kept = list(range(1, len(kept) + 1))
        elif looks:
            found = influence(held.model, batches_of(rehearsal, rows=rows))
            facts["influence"] = [round(x, 5) for x in found]
            kept = most(found, len(kept))
        base = shortened(held.base, kept)
        return Shrunk(replace(held, base=base), {**facts, "layers": kept})

    return Compressor("drop_layers", shrink, wants="texts" if looks else "nothing", rows=rows)


def most(influence: list[float], n: int) -> list[int]:
    """The `n` layers (from 1, rising) of the greatest influence. The first always stays: in some families it
    holds what all others use, and what it makes of plain words no other does."""
    order = np.argsort([-np.inf, *(-x for x in influence[1:])], kind="stable")
    return sorted(int(i) + 1 for i in order[:n])
