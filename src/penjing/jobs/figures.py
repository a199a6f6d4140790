"""Figures of the report as inline SVG, which the page's style sheet colours for light, dark and print.

Every figure is a string of well-formed XML with a title and a description for those who cannot see it, tells
its series apart by dash, mark or text and not by colour alone, and carries no style, script or address.
Numbers and labels come from users' rows: all text goes through `_text`. Figures are drawn 440 units wide, so
that on a phone 12-unit letters stay readable.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 440.0
MOST_POINTS = 240  # drawn of a series; more are averaged in neighbouring groups
Point = tuple[float, float]
Write = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line of a chart: its name, its points, and how it is drawn (`line`, `faint`, `dots` or
    `dashed`)."""

    name: str
    points: Sequence[Point]
    look: str = "line"
    whiskers: Sequence[tuple[float, float]] = ()  # (low, high) at each point


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: label, value (None draws nothing but the label), interval, the text at its end, and
    its class."""

    label: str
    value: float | None
    note: str
    interval: tuple[float, float] | None = None
    look: str = "main"


def smoothed(points: Sequence[Point], weight: float = 0.9) -> list[Point]:
    """Exponential moving average of y, without the pull towards zero at the start (Kingma & Ba 2015, section
    3)."""
    found, mean, total = [], 0.0, 0.0
    for x, y in points:
        mean, total = weight * mean + (1 - weight) * y, weight * total + 1 - weight
        found.append((x, mean / total))
    return found


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: means of neighbouring groups, in order. Points that are not finite are left
    out."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(finite) // most) or 1
    groups = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def line_chart(
    series: Sequence[Series], *, title: str, about: str, x_label: str, write: Write, log: bool | None = None
) -> str:
    """Lines over steps. `log` None takes a logarithmic axis where values are positive and span a factor of
    20."""
    kept = [s for s in series if any(math.isfinite(x) and math.isfinite(y) for x, y in s.points)]
    if not kept:
        return ""
    drawn = [Series(s.name, s.points if s.whiskers else thinned(s.points), s.look, s.whiskers) for s in kept]
    ys = [y for s in drawn for _, y in s.points] + [v for s in drawn for pair in s.whiskers for v in pair]
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for y in ys if math.isfinite(y)]
    is_log = min(ys) > 0 and (log if log is not None else max(ys) / min(ys) > 20)
    left, right, top, bottom, height = 50.0, WIDTH - 14, 34.0, 214.0, 250.0
    y_of, marks = _y_axis(min(ys), max(ys), bottom, top, is_log)
    x_low, x_high = min(xs), max(xs)
    x_of = lambda x: left + (x - x_low) / ((x_high - x_low) or 1) * (right - left)  # noqa: E731
    parts = []
    for value in marks:
        parts.append(_line(left, y_of(value), right, y_of(value), "grid"))
        parts.append(_text(write(value), left - 7, y_of(value) + 4, "tick end"))
    for value in _ticks(x_low, x_high, 5):
        if x_low <= value <= x_high:
            parts.append(_text(f"{value:,.0f}", x_of(value), bottom + 17, "tick mid"))
    parts.append(_text(x_label, right, height - 2, "tick end"))
    parts += [_series(s, x_of, y_of) for s in drawn]
    return _svg(title, about, height, [*parts, *_legend(drawn, left)])


def bars(rows: Sequence[Bar], *, title: str, about: str, low: float = 0.0, high: float | None = None) -> str:
    """Horizontal bars from `low`, each with its text at the end and its 95 % interval as a whisker."""
    if not rows:
        return ""
    widest = max(_width(row.label) for row in rows)
    left = min(max(60.0, widest * 6.4 + 10), 165.0)
    right = WIDTH - max(40.0, max(_width(row.note) for row in rows) * 6.6 + 10)
    top_value = high if high is not None else max([row.value or 0.0 for row in rows]) or 1.0
    x_of = lambda v: left + (min(max(v, low), top_value) - low) / ((top_value - low) or 1) * (right - left)  # noqa: E731
    parts = [_line(left, 4, left, 26 * len(rows) + 2, "axis")]
    for i, row in enumerate(rows):
        middle = 26.0 * i + 17
        label = shortened(row.label, int((left - 10) / 6.4))
        parts.append(_text(label, left - 8, middle + 4, "label end", row.label if label != row.label else ""))
        if row.value is None or not math.isfinite(row.value):
            parts.append(_text(row.note, left + 6, middle + 4, "note"))
            continue
        wide = max(x_of(row.value) - left, 1.5)
        parts.append(
            f'<rect class="bar {row.look}" x="{left:.1f}" y="{middle - 7:.1f}" width="{wide:.1f}" height="14" rx="2"/>'
        )
        end = left + wide
        if row.interval:
            a, b = (x_of(v) for v in row.interval)
            parts += [_line(a, middle, b, middle, "whisker"), _line(a, middle - 4, a, middle + 4, "whisker")]
            parts.append(_line(b, middle - 4, b, middle + 4, "whisker"))
            end = max(end, b)
        parts.append(_text(row.note, end + 7, middle + 4, "note"))
    return _svg(title, about, 26.0 * len(rows) + 8, parts)


def heat_map(
    labels: Sequence[str], counts: Sequence[Sequence[int]], *, title: str, about: str, rows: str, columns: str
) -> str:
    """A confusion block: rows are the truth, columns the answers; the shade is the share of the row, numbers
    are rows."""
    n = len(labels)
    if not n:
        return ""
    widest = max(_width(label) for label in labels)
    left = min(max(60.0, (widest + 4) * 5.8 + 10), 172.0)
    cell = min((WIDTH - left - 6) / n, 52.0)
    top = 40.0
    small = " small" if cell < 18 else ""
    parts = [_text(columns, left + cell * n / 2, 12, "tick mid"), _text(rows, left - 8, 12, "tick end")]
    named = cell >= 40 and widest <= 8
    for i, label in enumerate(labels):
        y, total = top + i * cell, sum(counts[i]) or 1
        short = shortened(label, int((left - 10) / 5.8) - 4)
        parts.append(_text(f"{short} {i + 1}", left - 8, y + cell / 2 + 4, "label end", label))
        parts.append(
            _text(label if named else f"{i + 1}", left + (i + 0.5) * cell, top - 8, f"tick mid{small}", label)
        )
        for j, count in enumerate(counts[i]):
            share = math.sqrt(count / total)  # the square root shows single errors beside full diagonals
            kind = "hit" if i == j else "miss"
            shade = 0.0 if not count else 0.12 + 0.88 * share
            inside = escape(_clean(f"{label} → {labels[j]}: {count}"))
            parts.append(
                f'<rect class="cell {kind}" x="{left + j * cell + 0.5:.1f}" y="{y + 0.5:.1f}" width="{cell - 1:.1f}" '
                f'height="{cell - 1:.1f}" fill-opacity="{shade:.2f}"><title>{inside}</title></rect>'
            )
            if count and cell >= 9:
                over = " over" if shade > 0.55 else ""
                parts.append(
                    _text(f"{count}", left + (j + 0.5) * cell, y + cell / 2 + 3, f"count mid{small}{over}")
                )
    return _svg(title, about, top + cell * n + 6, parts)


def reliability(
    bins: Sequence[tuple[float, float, int]], *, title: str, about: str, x_label: str, y_label: str
) -> str:
    """Share right against claimed confidence, one dot a bin (its area the rows in it), over the line of
    perfect honesty."""
    if not bins:
        return ""
    left, top, side = 50.0, 18.0, 300.0
    bottom = top + side
    x_of, y_of = (lambda v: left + v * side), (lambda v: bottom - v * side)
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [_line(left, y_of(value), left + side, y_of(value), "grid")]
        parts += [_text(f"{value:.0%}", left - 7, y_of(value) + 4, "tick end")]
        parts += [_text(f"{value:.0%}", x_of(value), bottom + 17, "tick mid")]
    parts.append(_line(left, bottom, left + side, top, "ideal"))
    most = max(count for _, _, count in bins)
    path = " ".join(f"{x_of(c):.1f},{y_of(a):.1f}" for c, a, _ in bins)
    parts.append(f'<polyline class="line faint" points="{path}"/>')
    for confidence, share, count in bins:
        radius = 3 + 9 * math.sqrt(count / most)
        said = escape(f"{confidence:.0%} → {share:.0%} ({count:,})")
        parts.append(_line(x_of(confidence), y_of(confidence), x_of(confidence), y_of(share), "gap"))
        parts.append(
            f'<circle class="dot" cx="{x_of(confidence):.1f}" cy="{y_of(share):.1f}" r="{radius:.1f}"><title>{said}</title></circle>'
        )
    parts += [_text(x_label, left + side, bottom + 36, "tick end"), _text(y_label, 4, 10, "tick")]
    return _svg(title, about, bottom + 42, parts, left + side + 24)


def histogram(
    edges: Sequence[float], counts: Sequence[float], *, title: str, about: str, x_label: str
) -> str:
    """Upright bars between neighbouring edges (one more edge than counts)."""
    if not counts or len(edges) != len(counts) + 1 or max(counts) <= 0:
        return ""
    left, right, top, bottom = 14.0, WIDTH - 14, 14.0, 150.0
    span = (edges[-1] - edges[0]) or 1
    x_of = lambda v: left + (v - edges[0]) / span * (right - left)  # noqa: E731
    parts = []
    for (a, b), count in zip(itertools.pairwise(edges), counts, strict=True):
        tall = (bottom - top) * count / max(counts)
        said = escape(f"{a:,.0f}-{b:,.0f}: {count:,.0f}")
        parts.append(
            f'<rect class="bar main" x="{x_of(a) + 0.5:.1f}" y="{bottom - tall:.1f}" width="{max(x_of(b) - x_of(a) - 1, 0.5):.1f}" '
            f'height="{tall:.1f}"><title>{said}</title></rect>'
        )
    parts.append(_line(left, bottom, right, bottom, "axis"))
    for value in _ticks(edges[0], edges[-1], 6):
        if edges[0] <= value <= edges[-1]:
            parts.append(_text(f"{value:,.0f}", x_of(value), bottom + 17, "tick mid"))
    parts.append(_text(x_label, right, bottom + 34, "tick end"))
    return _svg(title, about, bottom + 40, parts)


def shortened(label: str, columns: int) -> str:
    """At most so many columns of text, full-width characters counting two, with `…` in the middle where it
    was cut."""
    label = _clean(label)
    if _width(label) <= columns:
        return label
    head, tail = "", ""
    for a, b in zip(label, reversed(label), strict=True):
        if _width(head + a) + _width(tail) >= columns:
            break
        head += a
        if _width(head) + _width(b + tail) >= columns:
            break
        tail = b + tail
    return f"{head}…{tail}"


def _series(series: Series, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> str:
    points = [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]
    parts = []
    if series.look != "dots":
        parts.append(
            f'<polyline class="line {series.look}" points="{" ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)}"/>'
        )
    for (x, _), (low, high) in zip(series.points, series.whiskers, strict=False):
        parts.append(_line(x_of(x), y_of(low), x_of(x), y_of(high), "whisker"))
    if series.look == "dots" or len(points) == 1:
        parts += [f'<circle class="dot" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.2"/>' for x, y in points]
    return "".join(parts)


def _legend(series: Iterable[Series], left: float) -> list[str]:
    parts, x = [], left
    for one in series:
        if one.look == "dots":
            parts.append(f'<circle class="dot" cx="{x + 9:.1f}" cy="12" r="3.2"/>')
        else:
            parts.append(_line(x, 12, x + 18, 12, f"line {one.look}"))
        parts.append(_text(one.name, x + 24, 16, "label"))
        x += 40 + 6.6 * _width(one.name)
    return parts


def _y_axis(
    low: float, high: float, bottom: float, top: float, log: bool
) -> tuple[Callable[[float], float], list[float]]:
    if log:
        a, b = math.log10(low), math.log10(high)
        marks = [m * 10.0**e for e in range(math.floor(a), math.ceil(b) + 1) for m in (1, 2, 5)]
        within = [m for m in marks if low * 0.999 <= m <= high * 1.001] or [low, high]
        while len(within) > 6:
            within = within[::2]
        return (lambda y: bottom - (math.log10(max(y, low)) - a) / ((b - a) or 1) * (bottom - top)), within
    ticks = _ticks(low, high, 5)
    a, b = min(low, ticks[0]), max(high, ticks[-1])
    return (lambda y: bottom - (y - a) / ((b - a) or 1) * (bottom - top)), ticks


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) around low..high."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _svg(title: str, about: str, height: float, parts: Sequence[str], width: float = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
        f"<title>{escape(_clean(title))}</title><desc>{escape(_clean(about))}</desc>{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(text: str, x: float, y: float, look: str, whole: str = "") -> str:
    told = f"<title>{escape(_clean(whole))}</title>" if whole else ""
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}">{escape(_clean(text))}{told}</text>'


def _clean(text: str) -> str:
    """Without control characters, unpaired surrogates and direction overrides: XML forbids the first, the
    last deceive."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn") else " " for c in text)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
