"""Train on, taught by the model that a chain began from: what a smaller model lost comes back (Hinton et al.
2015, arXiv 1503.02531; Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from penjing.compressor import Compressor, Held
from penjing.errors import SpecError
from penjing.models.layers import linears_of

PRUNED = 0.01  # share of zeros from which on a layer's weights were pruned, and did not come out so


def distill(
    *,
    layers: int | list[int] | None = None,
    teacher: str | list[str] | None = None,
    epochs: float = 3,
    lr: float | None = None,
    alpha: float = 0.9,
    temperature: float = 2.0,
    hidden: float = 0.0,
    relations: float = 0.0,
    unlabelled: str | list[str] | None = None,
) -> Compressor:
    """Train the model at hand, every weight of it, to answer as the chain's first model does.

    After a step that prunes it heals; with `layers` it makes a student of fewer layers by itself. Weights
    that an earlier step set to zero stay zero.

    layers: of the model at hand that stay, how many (evenly) or which, from 1; all, when not given. teacher:
    run or bundle, or several; the model that the chain began from, when not given. epochs: over the run's
    train rows. lr: peak rate; that of `method: full`, when not given. alpha, temperature, hidden, relations,
    unlabelled: as in the technique `distill`.
    """
    if not epochs > 0:
        raise SpecError(f"`distill.epochs` counts passes over the train rows, above 0; it is {epochs}.")

    def changes(held: Held, original: str) -> Mapping[str, Any]:
        lesson: dict[str, Any] = {"alpha": alpha, "temperature": temperature}
        lesson |= {"hidden": hidden, "relations": relations, "inherit": True, "unlabelled": unlabelled}
        techniques: list[Any] = [{"distill": {"teacher": teacher or original, **lesson}}]
        if _was_thinned(held.model.trunk):
            techniques.append({"sparsify": {"by": "zeros"}})
        rate = {} if lr is None else {"lr": lr}
        kept = {} if layers is None else {"layers": layers}
        return {"method": "full", "techniques": techniques, "train": {"epochs": epochs, **rate}, **kept}

    return Compressor("distill", changes=changes)


def _was_thinned(trunk: nn.Module) -> bool:
    weights = [trunk.get_submodule(name).get_parameter("weight") for name in linears_of(trunk)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros > PRUNED * sum(weight.numel() for weight in weights)
