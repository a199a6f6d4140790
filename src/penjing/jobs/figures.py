"""Figures of the report as inline SVG, which the page's style sheet colours for light, dark and print.

Every figure tells its series apart by dash, mark or text and not by colour alone. What has nothing to show is
an empty string.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from penjing.jobs import svg
from penjing.jobs.svg import LETTER, WIDTH, Scale

MOST_POINTS = 240  # drawn of a series; more are averaged in neighbouring groups
NARROW = 8  # classes of a heat map that fit beside other figures
WIDE = 760.0  # width of one of more classes, which a phone scrolls sideways
ROW = 26.0  # height of a bar and what is around it
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart: its name (without one it is not in the legend), its points, and how it is
    drawn."""

    name: str
    points: Sequence[Point]
    look: str = "line"  # line, faint, dashed or dots
    whiskers: Sequence[tuple[float, float]] = ()  # (low, high) at each point


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: label, value, the text at its end, its 95 % interval and how it is drawn."""

    label: str
    value: float
    note: str
    interval: tuple[float, float] | None = None
    look: str = "main"  # main, cheap or before


def finite(points: Sequence[Point]) -> list[Point]:
    """Those points that can be drawn."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Each y as the mean of its neighbours, a twentieth of the curve to either side, fewer at the ends: no
    lag."""
    kept = finite(points)
    reach = len(kept) // 20
    sums = [0.0, *itertools.accumulate(y for _, y in kept)]
    found = []
    for i, (x, _) in enumerate(kept):
        near = min(reach, i, len(kept) - 1 - i)
        found.append((x, (sums[i + near + 1] - sums[i - near]) / (2 * near + 1)))
    return found


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: means of neighbouring groups, in order."""
    kept = finite(points)
    size = -(-len(kept) // most) or 1
    groups = [kept[i : i + size] for i in range(0, len(kept), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    about: str,
    x_label: str,
    write: Callable[[float], str],
    log: bool | None = None,
) -> str:
    """Lines over steps. `log` None takes a logarithmic axis where values are positive and span a factor of
    20."""
    drawn = [
        replace(s, points=s.points if s.whiskers else thinned(s.points)) for s in series if finite(s.points)
    ]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in finite(s.points)]
    ys = [y for s in drawn for _, y in finite(s.points)] + [
        v for s in drawn for pair in s.whiskers for v in pair
    ]
    low, high = min(ys), max(ys)
    is_log = low > 0 and (log if log is not None else high / low > 20)
    marks = svg.log_ticks(low, high) if is_log else svg.ticks(low, high, 5)
    if not is_log:
        low, high = min(low, marks[0]), max(high, marks[-1])
    legend = _legend(drawn)
    left, right, top, bottom = 52.0, WIDTH - 14, 34.0 if legend else 12.0, 214.0
    x_of, y_of = svg.scale(min(xs), max(xs), left, right), svg.scale(low, high, bottom, top, log=is_log)
    parts = [*legend]
    for value in marks:
        parts.append(svg.line(left, y_of(value), right, y_of(value), "grid"))
        parts.append(svg.text(write(value), left - 7, y_of(value) + 4, "tick end"))
    for value in svg.ticks(min(xs), max(xs), 5):
        if min(xs) <= value <= max(xs):
            parts.append(svg.text(f"{value:,.0f}", x_of(value), bottom + 17, "tick mid"))
    parts.append(svg.text(x_label, right, bottom + 34, "tick end"))
    parts += [_line_of(s, x_of, y_of) for s in drawn]
    return svg.picture(title, about, WIDTH, bottom + 38, parts)


def bars(rows: Sequence[Bar], *, title: str, about: str, high: float | None = None) -> str:
    """Horizontal bars from zero, each with its text at the end and its 95 % interval as a whisker."""
    if not rows:
        return ""
    left = min(max(56.0, max(svg.columns_of(row.label) for row in rows) * LETTER + 10), 170.0)
    right = WIDTH - max(svg.columns_of(row.note) for row in rows) * LETTER - 12
    x_of = svg.scale(0.0, high or max(row.value for row in rows) or 1.0, left, right)
    parts = [svg.line(left, 4, left, ROW * len(rows) + 2, "axis")]
    for i, row in enumerate(rows):
        middle = ROW * i + 17
        label = svg.shortened(row.label, round((left - 10) / LETTER))
        parts.append(
            svg.text(label, left - 8, middle + 4, "label end", row.label if label != row.label else "")
        )
        end = max(x_of(row.value), left + 1.5)
        parts.append(svg.box(left, middle - 7, end - left, 14, f"bar {row.look}"))
        if row.interval:
            a, b = (x_of(v) for v in row.interval)
            parts.append(svg.line(a, middle, b, middle, "whisker"))
            parts += [svg.line(x, middle - 4, x, middle + 4, "whisker") for x in (a, b)]
            end = max(end, b)
        parts.append(svg.text(row.note, end + 7, middle + 4, "note"))
    return svg.picture(title, about, WIDTH, ROW * len(rows) + 8, parts)


def heat_map(
    labels: Sequence[str], counts: Sequence[Sequence[int]], *, title: str, about: str, rows: str, columns: str
) -> str:
    """A confusion block: rows are the truth, columns the answers; numbers are rows, the shade their share."""
    n = len(labels)
    if not n:
        return ""
    width = WIDTH if n <= NARROW else WIDE
    widest = max(svg.columns_of(label) for label in labels)
    left = min(max(56.0, (widest + 4) * LETTER + 10), 0.4 * WIDTH if n <= NARROW else 206.0)
    cell, top = min((width - left - 6) / n, 56.0), 40.0
    named = cell >= widest * LETTER
    parts = [svg.text(columns, left + cell * n / 2, 12, "tick mid"), svg.text(rows, left - 8, 12, "tick end")]
    for i, label in enumerate(labels):
        y, total = top + i * cell, sum(counts[i]) or 1
        short = svg.shortened(label, round((left - 10) / LETTER) - 4)
        row_name, column_name = (label, label) if named else (f"{short} {i + 1}", f"{i + 1}")
        parts.append(svg.text(row_name, left - 8, y + cell / 2 + 4, "label end", label))
        parts.append(svg.text(column_name, left + (i + 0.5) * cell, top - 8, "tick mid", label))
        for j, count in enumerate(counts[i]):
            # The square root shows single errors beside full diagonals.
            shade = 0.12 + 0.8 * math.sqrt(count / total) if count else 0.0
            told = f"{label} → {labels[j]}: {count:,}"
            look = "cell hit" if i == j else "cell miss"
            parts.append(svg.box(left + j * cell + 0.5, y + 0.5, cell - 1, cell - 1, look, told, shade=shade))
            if count:
                look = "count mid over" if shade > 0.55 else "count mid"
                parts.append(svg.text(f"{count}", left + (j + 0.5) * cell, y + cell / 2 + 4, look))
    return svg.picture(title, about, width, top + cell * n + 6, parts, "" if n <= NARROW else "wide")


def reliability(
    bins: Sequence[tuple[float, float, int]], *, title: str, about: str, x_label: str, y_label: str
) -> str:
    """Share right against claimed confidence: a dot a bin, its area the rows in it, and the line of honest
    claims."""
    if not bins:
        return ""
    left, top, side = 52.0, 24.0, 300.0
    bottom = top + side
    x_of, y_of = svg.scale(0, 1, left, left + side), svg.scale(0, 1, bottom, top)
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(svg.line(left, y_of(value), left + side, y_of(value), "grid"))
        parts.append(svg.text(f"{value:.0%}", left - 7, y_of(value) + 4, "tick end"))
        parts.append(svg.text(f"{value:.0%}", x_of(value), bottom + 17, "tick mid"))
    parts.append(svg.line(left, bottom, left + side, top, "ideal"))
    most = max(count for _, _, count in bins) or 1
    for confidence, share, _ in bins:
        parts.append(svg.line(x_of(confidence), y_of(confidence), x_of(confidence), y_of(share), "gap"))
    parts.append(svg.path([(x_of(c), y_of(a)) for c, a, _ in bins], "line faint"))
    for confidence, share, count in bins:
        told = f"{confidence:.0%} → {share:.0%} ({count:,})"
        parts.append(svg.dot(x_of(confidence), y_of(share), 2.5 + 6.5 * math.sqrt(count / most), told))
    parts += [svg.text(x_label, left + side, bottom + 36, "tick end"), svg.text(y_label, 4, 10, "tick")]
    return svg.picture(title, about, left + side + 24, bottom + 42, parts, "square")


def histogram(
    edges: Sequence[float], counts: Sequence[float], *, title: str, about: str, x_label: str
) -> str:
    """Upright bars between neighbouring edges (one more edge than counts)."""
    if not counts or len(edges) != len(counts) + 1 or max(counts) <= 0:
        return ""
    left, right, top, bottom = 14.0, WIDTH - 14, 14.0, 150.0
    x_of, y_of = svg.scale(edges[0], edges[-1], left, right), svg.scale(0, max(counts), bottom, top)
    parts = []
    for (a, b), count in zip(itertools.pairwise(edges), counts, strict=True):
        told, wide = f"{a:,.0f}-{b:,.0f}: {count:,.0f}", x_of(b) - x_of(a) - 1
        parts.append(svg.box(x_of(a) + 0.5, y_of(count), wide, bottom - y_of(count), "bar main", told))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    for value in svg.ticks(edges[0], edges[-1], 6):
        if edges[0] <= value <= edges[-1]:
            parts.append(svg.text(f"{value:,.0f}", x_of(value), bottom + 17, "tick mid"))
    parts.append(svg.text(x_label, right, bottom + 34, "tick end"))
    return svg.picture(title, about, WIDTH, bottom + 40, parts)


def _line_of(series: Series, x_of: Scale, y_of: Scale) -> str:
    points = [(x_of(x), y_of(y)) for x, y in finite(series.points)]
    parts = [svg.path(points, f"line {series.look}")] if series.look != "dots" else []
    for (x, _), (low, high) in zip(series.points, series.whiskers, strict=False):
        parts.append(svg.line(x_of(x), y_of(low), x_of(x), y_of(high), "whisker"))
    if series.look == "dots" or series.whiskers or len(points) == 1:
        parts += [svg.dot(x, y, 3.2) for x, y in points]
    return "".join(parts)


def _legend(series: Sequence[Series]) -> list[str]:
    """Nothing where one line needs no name."""
    named = [one for one in series if one.name]
    parts, x = [], 52.0
    for one in named if len(named) > 1 else []:
        mark = (
            svg.dot(x + 9, 12, 3.2) if one.look == "dots" else svg.line(x, 12, x + 18, 12, f"line {one.look}")
        )
        parts += [mark, svg.text(one.name, x + 24, 16, "label")]
        x += 38 + LETTER * svg.columns_of(one.name)
    return parts
