"""Points in a plane: price and quality with the line of those that nothing beats in both (the Pareto front),
and predicted against true numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penjing.jobs import svg
from penjing.jobs.svg import WIDTH


@dataclass(frozen=True)
class Spot:
    """A price (lower is better), a quality (higher is better), and what is told when pointed at."""

    price: float
    quality: float
    told: str


def front(spots: Sequence[Spot]) -> list[Spot]:
    """The spots that no other beats: none is as good or better for as little or less; cheapest first."""
    found: list[Spot] = []
    for spot in sorted(spots, key=lambda one: (one.price, -one.quality)):
        if not found or spot.quality > found[-1].quality:
            found.append(spot)
    return found


def scatter(
    spots: Sequence[Spot], *, title: str, about: str, x_label: str, x_write: Callable[[float], str]
) -> str:
    """Qualities in percent over prices on a logarithmic axis; the front is a line of steps."""
    drawn = [s for s in spots if math.isfinite(s.price) and math.isfinite(s.quality) and s.price > 0]
    if not drawn:
        return ""
    low, high = min(s.price for s in drawn), max(s.price for s in drawn)
    marks = svg.ticks(100 * min(s.quality for s in drawn), 100 * max(s.quality for s in drawn), 4)
    left, right, top, bottom = 52.0, WIDTH - 28, 12.0, 200.0
    x_of = svg.scale(low * 0.9, high * 1.1, left, right, log=True)
    y_of = svg.scale(marks[0], max(marks[-1], marks[0] + 1), bottom, top)
    parts = []
    for value in marks:
        parts.append(svg.line(left, y_of(value), right, y_of(value), "grid"))
        parts.append(svg.text(f"{value:g}", left - 7, y_of(value) + 4, "tick end"))
    for value in svg.log_ticks(low * 0.9, high * 1.1):
        parts.append(svg.text(x_write(value), x_of(value), bottom + 17, "tick mid"))
    parts.append(svg.text(x_label, right, bottom + 34, "tick end"))
    best = [(x_of(s.price), y_of(100 * s.quality)) for s in front(drawn)]
    steps = [(best[i][0], best[max(0, i - 1)][1]) for i in range(1, len(best))]
    corners = [point for pair in zip(best, [*steps, (right, best[-1][1])], strict=True) for point in pair]
    parts.append(svg.path(corners, "line"))
    parts += [svg.dot(x_of(s.price), y_of(100 * s.quality), 3.2, s.told) for s in drawn]
    return svg.picture(title, about, WIDTH, bottom + 38, parts)


def agreement(
    dots: Sequence[tuple[float, float]],
    *,
    title: str,
    about: str,
    x_label: str,
    y_label: str,
    write: Callable[[float], str],
) -> str:
    """(truth, prediction) of rows on equal axes, with the line on which they agree."""
    if not dots:
        return ""
    values = [value for dot in dots for value in dot]
    marks = svg.ticks(min(values), max(values), 5)
    low, high = marks[0], max(marks[-1], marks[0] + 1e-9)
    left, top, side = 60.0, 24.0, 300.0
    bottom = top + side
    x_of, y_of = svg.scale(low, high, left, left + side), svg.scale(low, high, bottom, top)
    parts = []
    for value in marks:
        parts.append(svg.line(left, y_of(value), left + side, y_of(value), "grid"))
        parts.append(svg.text(write(value), left - 7, y_of(value) + 4, "tick end"))
        parts.append(svg.text(write(value), x_of(value), bottom + 17, "tick mid"))
    parts.append(svg.line(left, bottom, left + side, top, "ideal"))
    parts += [svg.dot(x_of(x), y_of(y), 2.2, f"{write(x)} → {write(y)}") for x, y in dots]
    parts += [svg.text(x_label, left + side, bottom + 36, "tick end"), svg.text(y_label, 4, 10, "tick")]
    return svg.picture(title, about, left + side + 24, bottom + 42, parts, "square")
