"""What is known of rows, the same of new rows, and whether anything moved: one family of tests, one level.

**Repeated looks.** A watch looks again and again, for years. A level spent over looks one to infinity makes
it blind with age, and so does a betting martingale that loses while nothing happens. Here each look is tested
at `alpha / looks`: among any `looks` looks in a row the chance of even one false alarm is at most `alpha`, by
the union bound, whether their rows overlap or not. The watch keeps its eyes, and no state is needed.

**Within a look** Holm's rule holds that level over all checks together.

**Effect.** With enough rows any difference is significant. An alarm also needs one that matters: `least`, on
a scale that all checks share, the share of the rows that would have to be other ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.drift.counts import compare_counts
from penjing.drift.numbers import distances, holm, p_values, rises
from penjing.drift.vectors import discrepancy
from penjing.errors import DataError, SpecError

LOOKED = 16  # components that are tested one by one; the discrepancy takes all
MOST = 2000  # rows of a side in the discrepancy, drawn where there are more: it holds the square of all
FEWEST = 50  # rows below which nothing is said
ALPHA, LOOKS, LEAST = 0.05, 30, 0.1
CHECKS = 16  # twice as many as there are
NUMBERS = ("lengths", "unknown", "unseen", "confidence")


@dataclass(frozen=True)
class Seen:
    """What is known of n rows. Everything but lengths may be missing.

    vectors: (n, K + 1) by `drift.vectors.Axes`. lengths: tokens. unknown, unseen: share of the tokens that
    the tokenizer, or the train rows, do not have. language, answers: (n,) names; with several answers a row,
    those of all rows. confidence: 0..1, or the number that is answered. right: (m,) bool, of rows whose truth
    is known.
    """

    lengths: NDArray[Any]
    vectors: NDArray[Any] | None = None
    unknown: NDArray[Any] | None = None
    unseen: NDArray[Any] | None = None
    language: Sequence[str] | None = None
    answers: Sequence[str] | None = None
    confidence: NDArray[Any] | None = None
    right: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class Check:
    """One thing looked at. p: after Holm's rule over all checks. effect: share of the rows that would have to
    be others, beyond chance; `least` of it with p at or below the look's level is `moved`."""

    name: str
    p: float
    effect: float
    moved: bool
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """checks: in the order of their p-values. level: of this look. moved: any of them did."""

    checks: tuple[Check, ...]
    level: float
    least: float
    n_reference: int
    n_new: int

    @property
    def moved(self) -> bool:
        """Whether the world is another one than that of the reference."""
        return any(check.moved for check in self.checks)


def refuse_levels(*, alpha: float, looks: int, least: float) -> None:
    """Raises SpecError for a share out of its range, or no look."""
    for key, value in (("alpha", alpha), ("least", least)):
        if not 0 < value < 1:
            raise SpecError(
                f"`{key}` must lie between 0 and 1; it is {value:g}. {ALPHA} and {LEAST} are usual."
            )
    if looks < 1:
        raise SpecError(
            f"`looks` must be at least 1; it is {looks}. {LOOKS} holds the level for a month of days."
        )


def compare(
    reference: Seen,
    new: Seen,
    *,
    alpha: float = ALPHA,
    looks: int = LOOKS,
    least: float = LEAST,
    seed: int = 0,
) -> Verdict:
    """Test all that both know of their rows.

    alpha: chance of a false alarm in any `looks` looks in a row. least: effect below which nothing is alarm.

    Raises:
        DataError: fewer than 50 rows on either side.
        SpecError: a share out of its range, or no look.
    """
    refuse_levels(alpha=alpha, looks=looks, least=least)
    for name, rows in (("the reference", reference), ("what came since", new)):
        if len(rows) < FEWEST:
            raise DataError(
                f"At least {FEWEST} rows were wanted of {name}; there are {len(rows)}. So few say nothing of "
                "a world that moves: wait for more, or look at more of them with `--last`."
            )
    generator, level = np.random.default_rng(seed), alpha / looks
    shuffles = math.ceil(CHECKS / level)  # else the least p-value there is would be above the level
    found = [_number(name, getattr(reference, name), getattr(new, name)) for name in NUMBERS]
    for name in ("language", "answers"):
        found.append(_names(name, getattr(reference, name), getattr(new, name), generator, shuffles))
    found.append(_vectors(reference.vectors, new.vectors, generator, shuffles))
    found.append(_quality(reference.right, new.right))
    known = [check for check in found if check is not None]
    adjusted = holm(np.array([check.p for check in known]))
    checks = [
        Check(c.name, float(p), c.effect, bool(p <= level and c.effect >= least), c.facts)
        for c, p in zip(known, adjusted, strict=True)
    ]
    checks.sort(key=lambda check: (not check.moved, check.p, -check.effect))
    return Verdict(tuple(checks), level, least, len(reference), len(new))


def _number(name: str, old: Any, new: Any) -> Check | None:
    if old is None or new is None or not len(old) or not len(new):
        return None
    if name in ("unknown", "unseen"):  # mostly 0: their means tell more; that there are fewer is no harm
        effect, p = rises(old, new)
        return Check(name, p, effect, False, {"was": float(np.mean(old)), "is": float(np.mean(new))})
    distance = distances(old, new)
    facts = {"was": float(np.median(old)), "is": float(np.median(new))}
    return Check(name, float(p_values(distance, len(old), len(new))[0]), float(distance[0]), False, facts)


def _names(
    name: str, old: Sequence[str] | None, new: Sequence[str] | None, rng: np.random.Generator, shuffles: int
) -> Check | None:
    if old is None or new is None or not len(old) or not len(new):
        return None
    kinds, places = np.unique(np.concatenate([np.asarray(old), np.asarray(new)]), return_inverse=True)
    counts = [np.bincount(part, minlength=len(kinds)) for part in (places[: len(old)], places[len(old) :])]
    if len(kinds) == 1:
        return Check(name, 1.0, 0.0, False, {"most": []})
    moved = compare_counts(counts[0], counts[1], generator=rng, most=shuffles)
    was, now = (part / part.sum() for part in counts)
    order = np.argsort(-np.abs(now - was), kind="stable")[:5]
    facts = {
        "share": moved.share,
        "by_chance": moved.by_chance,
        "chi2": moved.chi2,
        "v": moved.v,
        "most": [{"name": str(kinds[i]), "was": float(was[i]), "is": float(now[i])} for i in order],
    }
    return Check(name, moved.p, max(0.0, moved.share - moved.by_chance), False, facts)


def _vectors(old: Any, new: Any, rng: np.random.Generator, shuffles: int) -> Check | None:
    """Kolmogorov-Smirnov on each component, confirmed by the discrepancy of all: both must say so, therefore
    the greater of their p-values is the p-value."""
    if old is None or new is None or not len(old) or not len(new):
        return None
    columns = [*range(min(LOOKED, old.shape[1] - 1)), old.shape[1] - 1]
    apart = distances(old[:, columns], new[:, columns])
    by_column = float(holm(p_values(apart, len(old), len(new))).min())
    few = [
        rows if len(rows) <= MOST else rows[np.sort(rng.choice(len(rows), MOST, replace=False))]
        for rows in (old, new)
    ]
    together = discrepancy(*few, generator=rng, most=shuffles)
    facts = {
        "p_components": by_column,
        "p_discrepancy": together.p,
        "mmd2": together.mmd2,
        "component": int(apart.argmax()),
        "beside": bool(apart.argmax() == len(columns) - 1),
        "distances": [float(d) for d in apart],
    }
    return Check("vectors", max(by_column, together.p), float(apart.max()), False, facts)


def _quality(old: Any, new: Any) -> Check | None:
    """Fisher's exact test that fewer answers are right than were; the effect is how many fewer."""
    if old is None or new is None or not len(old) or not len(new):
        return None
    from scipy.stats import hypergeom

    right = (int(np.sum(old)), int(np.sum(new)))
    p = float(hypergeom.cdf(right[1], len(old) + len(new), sum(right), len(new)))
    was, now = right[0] / len(old), right[1] / len(new)
    return Check("quality", p, max(0.0, was - now), False, {"was": was, "is": now, "rows": len(new)})
