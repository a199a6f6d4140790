"""Train on, taught by the model that a chain began from: a student of fewer layers, or what a smaller model
lost comes back (Hinton et al. 2015, arXiv 1503.02531; Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from penjing.compressor import Compressor, Held
from penjing.errors import SpecError
from penjing.models.layers import linears_of
from penjing.models.shorten import which

PRUNED = 0.01  # share of zeros from which on a layer's weights were pruned, and did not come out so
STUDENT, HEALING = 10.0, 3.0  # passes over the train rows


def distill(
    *,
    layers: int | list[int] | Literal["half", "all"] = "half",
    teacher: str | list[str] | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    alpha: float = 0.9,
    temperature: float = 4.0,
    hidden: float = 0.0,
    relations: float = 0.0,
    unlabelled: str | list[str] | None = None,
    augment: Literal["mask", "swap", "drop"] | None = None,
) -> Compressor:
    """Make a student of fewer layers, and train it to answer as the chain's first model does.

    With `layers: all` the model at hand heals after a step that pruned it; weights that such a step set to
    zero stay zero.

    layers: of the model at hand that stay: `half`, how many (evenly), which, from 1, or `all`. teacher: run
    or bundle, or several; the model that the chain began from, when not given. epochs: over the run's train
    rows; 10, and 3 where all layers stay, when not given. lr: peak rate; that of `method: full`, when not
    given. alpha, temperature, hidden, relations, unlabelled, augment: as in the technique `distill`.
    """
    if epochs is not None and not epochs > 0:
        raise SpecError(f"`distill.epochs` counts passes over the train rows, above 0; it is {epochs}.")
    if not (alpha or hidden or relations):
        raise SpecError(
            "`distill` as a step learns from a teacher; `alpha`, `hidden` and `relations` are all 0. Leave "
            "`alpha` out."
        )

    def changes(held: Held, original: str) -> Mapping[str, Any]:
        n = held.base.n_layers
        kept = {"half": max(1, n // 2), "all": n}[layers] if isinstance(layers, str) else layers
        chosen = which(kept, n, key="distill.layers")
        lesson: dict[str, Any] = {"alpha": alpha, "temperature": temperature}
        lesson |= {"hidden": hidden, "relations": relations, "inherit": True}
        lesson |= {"unlabelled": unlabelled, "augment": augment}
        techniques: list[Any] = [{"distill": {"teacher": teacher or original, **lesson}}]
        if _was_thinned(held.model.trunk):
            techniques.append({"sparsify": {"by": "zeros"}})
        fewer = len(chosen) < n
        rate = {} if lr is None else {"lr": lr}
        train = {"epochs": epochs or (STUDENT if fewer else HEALING), **rate}
        changed = {"method": "full", "techniques": techniques, "train": train}
        return {**changed, "layers": chosen} if fewer else changed

    return Compressor("distill", changes=changes)


def _was_thinned(trunk: nn.Module) -> bool:
    weights = [trunk.get_submodule(name).get_parameter("weight") for name in linears_of(trunk)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros > PRUNED * sum(weight.numel() for weight in weights)
