"""How the report writes numbers: shares, scores, intervals, times, sizes. What is no finite number is an en
dash."""

from __future__ import annotations

import math
from typing import Any

from penjing.jobs.words import Say

GAP = "\u00a0"  # a space at which no line breaks
IN_PERCENT = (
    "accuracy", "macro_f1", "micro_f1", "subset_accuracy", "ece",
    "recall_1", "recall_5", "recall_10", "recall_100",
    "precision", "recall", "intent_accuracy", "frame_accuracy", "official_f1",
    "exact_match", "f1", "f1_answerable", "unanswerable_right", "token_accuracy", "preference_accuracy",
    "rouge_1", "rouge_2", "rouge_l", "repeated", "empty", "unended", "similarity", "exact",
    "pass_at_1", "pass_at_10", "pass_at_100",
)  # fmt: skip


def percent(value: Any) -> str:
    """A share as `93.4 %`; an en dash where it is no finite number."""
    return f"{100 * value:.1f}{GAP}%" if finite(value) else "–"


def plain(value: Any) -> str:
    """A number short enough to read: `1,234`, `12.3`, `0.468`, `1.25e-05`."""
    if not finite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if 10 <= abs(value) < 1e6 else f"{value:.3g}"


def score(name: str, value: Any) -> str:
    """A score as it is usually written: shares in percent, others with three decimals."""
    return (
        percent(value)
        if name in IN_PERCENT
        else f"{value:z.3f}".replace("-", "−")
        if finite(value) and abs(value) < 100
        else plain(value)
    )


def tick(name: str, value: float) -> str:
    """A score beside an axis, without needless zeros."""
    return f"{round(100 * value, 6):g}{GAP}%" if name in IN_PERCENT else plain(value)


def span(pair: Any, name: str = "accuracy", *, signed: bool = False) -> str:
    """An interval as `[92.5, 94.2]`, in points where the score is a share; empty where it is none."""
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(finite, pair))):
        return ""
    sign = "+" if signed else ""
    low, high = (
        f"{100 * v:{sign}z.1f}" if name in IN_PERCENT else (sign if v > 0 else "") + plain(v) for v in pair
    )
    return f"[{low},{GAP}{high}]".replace("-", "−")


def duration(seconds: Any, say: Say) -> str:
    """`1 h 5 min`, `12 min`, `3 min 20 s`, `8.2 s`."""
    if not finite(seconds):
        return "–"
    if seconds < 60:
        return say(
            "only_seconds",
            s=plain(round(seconds, 1))
            if 0.1 <= seconds < 10
            else "< 0.1"
            if seconds < 0.1
            else f"{seconds:.0f}",
        )
    whole = round(seconds)
    if whole < 600:
        return say("minutes", m=whole // 60, s=whole % 60)
    if whole < 3600:
        return say("only_minutes", m=round(whole / 60))
    return say("hours", h=f"{whole // 3600:,}", m=whole % 3600 // 60)


def milliseconds(ms: float) -> str:
    """`3.21 ms`, `178 ms`, `1,060 ms`."""
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def memory(mib: Any) -> str:
    """`812 MiB`, `3.4 GiB`."""
    if not finite(mib):
        return "–"
    return f"{mib:,.0f} MiB" if mib < 1024 else f"{mib / 1024:,.1f} GiB"


def short_count(n: Any) -> str:
    """`22.7 M` for parameters."""
    if not finite(n):
        return "–"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(n) >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f}"


def finite(value: Any) -> bool:
    """Whether this is a number one can write (True and False are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def gain(name: str, difference: float, *, signed: bool = False) -> str:
    """A difference of scores: in percentage points where they are shares, else with three decimals."""
    if name in IN_PERCENT:
        return points(difference, signed=signed)
    return f"{difference:{'+' if signed else ''}z.3f}".replace("-", "−")


def points(difference: float, *, signed: bool = False) -> str:
    """A difference of shares in percentage points, `4.3` or `+4.3`, with a true minus sign."""
    return f"{100 * difference:{'+' if signed else ''}z.1f}".replace("-", "−")
