"""What a run should take: the forecast that is made of its spec and the lengths of its rows."""

from __future__ import annotations

from dataclasses import replace

from penjing.device import Machine
from penjing.jobs.caching import why_not
from penjing.jobs.prepare import Ready, n_passes, n_steps
from penjing.models.calibrate import pace_of
from penjing.models.miniature import layer_cost, word_cost
from penjing.models.sizing import Forecast, Work, forecast, work_of
from penjing.records import Tokens
from penjing.spec import Spec


def forecast_of(
    spec: Spec, machine: Machine, made: Ready, tokens: Tokens, n_rows: int, *, asked: float = 0.0
) -> Forecast:
    """What the run should take; `tokens` are those of its train rows, or of some of them, and `asked` the
    share of them that are asked for a word."""
    settings, passes = spec.train, n_passes(spec, n_rows)
    keeps = not why_not(settings, made.model, made.techniques, passes)
    return forecast(
        made.model,
        replace(work_for(spec, made, tokens, n_rows), asked=asked),
        pace=pace_of(machine),
        precision=machine.precision,
        layer=layer_cost(made.model, machine.device),
        word_s=word_cost(made.model, machine.device) if asked else 0.0,
        optimizer=settings.optimizer,
        passes=passes if keeps else None,
        cpu=machine.device.type == "cpu",
    )


def work_for(spec: Spec, made: Ready, tokens: Tokens, n_rows: int) -> Work:
    """What the run feeds its model; `tokens` as in `forecast_of`."""
    settings = spec.train
    return work_of(
        tokens.lengths + made.method.virtual,
        n_rows=n_rows,
        batch=settings.batch,
        steps=n_steps(spec, n_rows),
        micro_tokens=settings.micro_tokens,
        grouped=settings.group_by_length,
    )
