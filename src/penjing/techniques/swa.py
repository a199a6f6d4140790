"""Stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407)."""

from __future__ import annotations

from torch import nn

from penjing.errors import SpecError
from penjing.models.average import Average
from penjing.records import Technique


def swa(*, start: float = 0.75, every: int = 1) -> Technique:
    """Validate and save the plain mean of the weights of the last part of training.

    The paper keeps the rate up while it averages: `train.schedule: constant`.

    start: share of the steps after which averaging begins; 1 averages nothing. every: steps between the
    weights that are averaged.
    """
    if not 0 <= start <= 1:
        raise SpecError(f"`swa.start` is a share of the steps, 0 to 1; it is {start}. 0.75 is usual.")
    if every < 1:
        raise SpecError(f"`swa.every` counts steps, 1 or more; it is {every}. 1 averages after every step.")
    average = Average()
    first = 0.0  # averaging begins after this step

    def plan(steps: int) -> None:
        nonlocal first
        first = start * steps
        if start < 1 and steps // every * every <= first:
            raise SpecError(
                f"`swa.every` is {every} steps; of {steps} no such step lies behind `swa.start`, {start:g} "
                "of them, so nothing would be averaged. Lower one of the two."
            )

    def after_update(model: nn.Module, step: int) -> None:
        if step > first and step % every == 0:
            average.add(model, average.n / (average.n + 1))

    return Technique("swa", plan=plan, after_update=after_update, weights=average.shown, state=average)
