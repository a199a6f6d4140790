"""Exponential moving average of the weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, eq. 2)."""

from __future__ import annotations

from torch import nn

from penjing.errors import SpecError
from penjing.models.average import Average
from penjing.records import Technique


def ema(*, decay: float = 0.999, warmup: bool = True, every: int = 1) -> Technique:
    """Validate and save a moving average of the weights; training itself goes on as without it.

    decay: what the average keeps of itself at each update, 0 (no average) to 1. warmup: keep at most
    (1 + t) / (10 + t) at update t, so that short runs and first steps do not weigh too much. every: steps
    between updates.
    """
    if not 0 <= decay < 1:
        raise SpecError(
            f"`ema.decay` must be at least 0 and below 1; it is {decay}. 0.99 to 0.9999 are usual."
        )
    if every < 1:
        raise SpecError(f"`ema.every` counts steps, 1 or more; it is {every}. 1 averages after every step.")
    average = Average()

    def plan(steps: int) -> None:
        if every > steps:
            raise SpecError(
                f"`ema.every` is {every} steps and the run makes {steps}, so nothing would be averaged. "
                "Lower it, or leave it out for every step."
            )

    def after_update(model: nn.Module, step: int) -> None:
        if step % every == 0:
            average.add(model, min(decay, (1 + average.n) / (10 + average.n)) if warmup else decay)

    return Technique("ema", plan=plan, after_update=after_update, weights=average.shown, state=average)
