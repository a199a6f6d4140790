"""What may be lost and what must be gained, in words, and which of the models that were made comes up to it.

`lose 1, speed 3`: at most 1 point of the score (`weighed.points`), at least 3 times the rows a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from penjing.chains.weighed import Weighed, points
from penjing.errors import SpecError, nearest

MEASURES: dict[str, Callable[[Weighed, Weighed, str], float]] = {
    "lose": lambda own, first, best: max(0.0, points(own, first, best)),
    "speed": lambda own, first, best: own.speed,  # times the original's rows a second
    "size": lambda own, first, best: first.n_bytes / own.n_bytes,  # times smaller on disk
    "latency": lambda own, first, best: own.latency_ms["1"],  # ms of one row alone
    "mib": lambda own, first, best: own.n_bytes / 2**20,  # on disk
}
LEAST = ("speed", "size")  # at least so much; of the others at most
ONE = re.compile(r"\s*([a-z_]+)\s*[:=]?\s*([0-9.]+)\s*(?:x|%|ms|mib|points?|times)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Advice:
    """Which model to take: its key, whether it meets the whole budget, and where it falls short."""

    chosen: str
    met: bool
    short: tuple[str, ...] = ()


def read(text: str | Mapping[str, float] | None) -> dict[str, float]:
    """The budget by measure.

    Raises:
        SpecError: an unknown measure, one that stands twice, or no number.
    """
    if text is None:
        return {}
    pairs = text.items() if isinstance(text, Mapping) else map(_pair, text.split(","))
    found: dict[str, float] = {}
    for name, given in pairs:
        if name not in MEASURES:
            raise SpecError(
                f"A budget names {', '.join(MEASURES)}; `{name}` is none of them.{nearest(name, MEASURES)} "
                'For example `--budget "lose 1, speed 3"`.'
            )
        try:
            value = float(given)
        except (TypeError, ValueError):
            value = math.nan
        if not 0 <= value < math.inf:
            raise SpecError(f"`{name}` of a budget must be 0 or more; it is {given}. For example `{name} 1`.")
        if name in found:
            raise SpecError(f"A budget names `{name}` twice: {found[name]:g} and {value:g}. Keep one.")
        found[name] = value
    return found


def _pair(piece: str) -> tuple[str, float]:
    found = ONE.fullmatch(piece)
    try:
        if found:
            return found[1].lower(), float(found[2])
    except ValueError:
        pass
    raise SpecError(
        f"A budget is written `measure number`, parted by commas; this part is {piece.strip()!r}. For "
        'example `--budget "lose 1, speed 3"`; measures are ' + ", ".join(MEASURES) + "."
    )


def advise(
    made: Mapping[str, Weighed],
    first: Weighed,
    budget: Mapping[str, float],
    fit: Sequence[str],
    *,
    best: str,
) -> Advice | None:
    """Of the models made (those of `fit` answer as they should), the fastest that keeps within the budget;
    else the one that falls least short, each measure by its ratio to what is wanted. None where nothing fits.
    `best` is the score that they are judged by.
    """
    known = {key: one for key, one in made.items() if key in fit}
    if not known:
        return None
    gaps = {key: _gaps(one, first, budget, best) for key, one in known.items()}
    within = [key for key in known if not gaps[key]]
    if within:
        return Advice(max(within, key=lambda key: (known[key].speed, -known[key].n_bytes)), True)
    nearest_one = min(known, key=lambda key: sum(gap for gap, _ in gaps[key].values()))
    return Advice(nearest_one, False, tuple(said for _, said in gaps[nearest_one].values()))


def _gaps(
    one: Weighed, first: Weighed, budget: Mapping[str, float], best: str
) -> dict[str, tuple[float, str]]:
    """By measure outside the budget: how far, as a logarithm of a ratio, and in words."""
    gaps = {}
    for name, wanted in budget.items():
        value = MEASURES[name](one, first, best)
        short = value < wanted if name in LEAST else value > wanted
        if short:
            a, b = (wanted, value) if name in LEAST else (value, wanted)
            least = name in LEAST
            words = f"{name} {value:.3g}, {'at least' if least else 'at most'} {wanted:g} wanted"
            gaps[name] = math.log(max(a, 1e-3) / max(b, 1e-3)), words
    return gaps
