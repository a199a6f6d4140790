"""The pieces that figures are drawn of: lines, text, scales and ticks, as strings of well-formed SVG.

Nothing here carries colour, style, script or address. Numbers and labels come from users' rows: all text is
escaped and freed of characters that XML forbids or that deceive the eye.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

WIDTH = 440.0  # so that 12-unit letters stay readable where a phone draws the figure 350 points wide
LETTER = 7.2  # units a column of 12-unit text takes in a wide font

Scale = Callable[[float], float]


def picture(title: str, about: str, width: float, height: float, parts: Sequence[str], look: str = "") -> str:
    """A whole SVG with a title and a description for those who cannot see it."""
    styled = f' class="{look}"' if look else ""
    said = f"<title>{clean(title)}</title><desc>{clean(about)}</desc>"
    return f'<svg{styled} viewBox="0 0 {width:.0f} {height:.0f}" role="img">{said}{"".join(parts)}</svg>'


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    """A straight line."""
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(points: Sequence[tuple[float, float]], look: str) -> str:
    """A line through points."""
    return f'<polyline class="{look}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def dot(x: float, y: float, radius: float, told: str = "") -> str:
    """A dot, with what it tells when pointed at."""
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{_told(told)}</circle>'


def box(
    x: float, y: float, width: float, height: float, look: str, told: str = "", *, shade: float = 1.0
) -> str:
    """A rectangle, `shade` its opacity in 0..1, with what it tells when pointed at."""
    size = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{max(height, 0.0):.1f}"'
    opacity = f' fill-opacity="{shade:.2f}"' if shade < 1 else ""
    return f'<rect class="{look}" {size}{opacity}>{_told(told)}</rect>'


def text(words: str, x: float, y: float, look: str, told: str = "") -> str:
    """A line of text at its baseline; `told` is the whole of it where it was shortened."""
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}">{clean(words)}{_told(told)}</text>'


def scale(low: float, high: float, start: float, end: float, *, log: bool = False) -> Scale:
    """The line that takes low to start and high to end; what lies outside is put on the border."""

    def place(value: float) -> float:
        kept = min(max(value, low), high)
        if log:
            share = math.log(kept / low) / (math.log(high / low) or 1)
        else:
            share = (kept - low) / ((high - low) or 1)
        return start + share * (end - start)

    return place


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from at or below low to at or above high."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((power * m for m in (1, 2, 5) if power * m >= raw), power * 10)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within low..high, at most six; the ends where none lies between."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [m * 10.0**e for e in exponents for m in (1, 2, 5) if low * 0.999 <= m * 10.0**e <= high * 1.001]
    while len(within) > 6:
        within = within[::2]
    return within or [low, high]


def shortened(label: str, columns: int) -> str:
    """At most so many columns of text, full-width characters counting two, `…` where its middle was cut
    out."""
    if columns_of(label) <= columns:
        return label
    head, tail = "", ""
    for a, b in zip(label, reversed(label), strict=True):
        if columns_of(head + a + tail) >= columns:
            break
        head += a
        if columns_of(head + b + tail) >= columns:
            break
        tail = b + tail
    return f"{head}…{tail}"


def columns_of(words: str) -> int:
    """Columns that text takes: two for a full-width character."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def clean(words: str) -> str:
    """Escaped, without control characters and lone surrogates (XML forbids them) and direction overrides
    (they lie)."""
    kept = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn") else " " for c in words)
    return escape("".join(kept))


def _told(words: str) -> str:
    return f"<title>{clean(words)}</title>" if words else ""
