"""Which settings to try next: at random, through a grid, or by Optuna's tree of Parzen estimators.

Each sampler is a function of the trials so far and its seed, with no state between calls: a search that was
killed draws what it would have drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from penjing.chains.space import Axis, Settings, axes, filled
from penjing.errors import NotSupported, SpecError

GRID = 4  # points of a range in a grid
MOST = 1_000  # points of a grid
EQUAL = 20  # draws in a row that were all tried before: the space is exhausted


@dataclass(frozen=True)
class Tried:
    """A trial so far: its settings and its score at each rung it reached; none yet, or it failed."""

    settings: Settings
    scores: tuple[float, ...] = ()
    over: bool = False  # it reached the last rung


Draw = Callable[[Sequence[Tried]], Settings | None]


def sampler(name: str, values: Any, seed: int) -> Draw:
    """`draw(tried)` gives the next settings, or None when the space has no others.

    Raises:
        NotSupported: the sampler needs a library that is not there.
    """
    return {"random": _random, "grid": _grid, "tpe": _tpe}[name](values, seed)


def _random(values: Any, seed: int) -> Draw:
    def draw(tried: Sequence[Tried]) -> Settings | None:
        known = [one.settings for one in tried]
        for attempt in range(EQUAL):
            settings = _drawn(values, _by_chance(random.Random(f"{seed} {len(tried)} {attempt}")))
            if settings not in known:
                return settings
        return None

    return draw


def _by_chance(chance: random.Random) -> Callable[[Axis], Any]:
    return lambda axis: _at(axis, chance.random())


def _grid(values: Any, seed: int) -> Draw:
    every = list(islice(_points(values), MOST + 1))
    if len(every) > MOST:
        raise SpecError(
            f"`search.sampler: grid` goes through every combination ({GRID} values a range); this space "
            f"has more than {MOST:,}. Write fewer options, or take `sampler: random`."
        )
    random.Random(seed).shuffle(every)  # so that a part of it covers the whole space

    def draw(tried: Sequence[Tried]) -> Settings | None:
        return every[len(tried)] if len(tried) < len(every) else None

    return draw


def _points(values: Any, fixed: Settings | None = None) -> Iterator[Settings]:
    """Every point of the grid: all options, `GRID` values of each range (fewer where it holds fewer)."""
    fixed, opened = fixed or {}, list[Axis]()

    def ask(axis: Axis) -> Any:
        if axis.key not in fixed:
            opened.append(axis)
        return fixed.get(axis.key, axis.ends[0])

    settings = _drawn(values, ask)
    if not opened:
        yield settings
        return
    axis = opened[0]
    spread = [_at(axis, i / (GRID - 1)) for i in range(GRID)]
    for value in axis.options or tuple(dict.fromkeys(spread)):
        yield from _points(values, {**fixed, axis.key: value})


def _at(axis: Axis, share: float) -> Any:
    """The value at a share of an axis, 0..1."""
    if axis.options:
        return axis.options[min(int(share * len(axis.options)), len(axis.options) - 1)]
    low, high = axis.low, axis.high
    if axis.whole:  # each whole number has the width of one
        low, high = low - 0.5 + 1e-9, high + 0.5 - 1e-9
    if "log" in axis.kind:
        return axis.value(low * math.exp(share * math.log(high / low)))
    return axis.value(low + share * (high - low))


def _drawn(values: Any, ask: Callable[[Axis], Any]) -> Settings:
    settings: Settings = {}

    def noted(axis: Axis) -> Any:
        settings[axis.key] = ask(axis)
        return settings[axis.key]

    filled(values, noted)
    return settings


def _tpe(values: Any, seed: int) -> Draw:
    """Bergstra et al. 2011, as Optuna has it; trials stopped at a rung are what Optuna calls pruned."""
    try:
        import optuna
    except ImportError as error:
        raise NotSupported(
            "`search.sampler: tpe` needs Optuna; it is not installed. Install it with `pip install "
            "'penjing[search]'`, or take `sampler: random`, which needs nothing."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from optuna.trial import TrialState, create_trial

    def distribution(axis: Axis) -> Any:
        if axis.options:
            return optuna.distributions.CategoricalDistribution(axis.options)
        log = "log" in axis.kind
        if axis.whole:
            return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log)
        return optuna.distributions.FloatDistribution(axis.low, axis.high, log)

    def past(one: Tried) -> Any:
        return create_trial(
            params=one.settings,
            distributions={axis.key: distribution(axis) for axis in axes(values, one.settings)},
            value=one.scores[-1] if one.over else None,
            intermediate_values=dict(enumerate(one.scores)),
            state=TrialState.COMPLETE if one.over else TrialState.PRUNED,
        )

    def draw(tried: Sequence[Tried]) -> Settings | None:
        known = [one.settings for one in tried]
        for attempt in range(EQUAL):
            mixed = random.Random(f"{seed} {len(tried)} {attempt}").randrange(2**31)
            wise = optuna.samplers.TPESampler(seed=mixed)
            study = optuna.create_study(direction="maximize", sampler=wise)
            study.add_trials([past(one) for one in tried if one.scores])

            settings = _drawn(values, partial(_suggested, study.ask()))
            if settings not in known:
                return settings
        return None

    return draw


def _suggested(trial: Any, axis: Axis) -> Any:
    if axis.options:
        return trial.suggest_categorical(axis.key, axis.options)
    log = "log" in axis.kind
    if axis.whole:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=log)
    return axis.value(trial.suggest_float(axis.key, axis.low, axis.high, log=log))
