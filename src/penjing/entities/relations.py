"""The official score of SemEval-2010 task 8, (9 + 1)-way with directions: macro F1 without Other.

A relation is right where its name and its direction are; both directions of a name are one relation.
Precision divides by all answers with that name, recall by all rows with it, whatever the direction; Other
enters only as what is taken from others (scorer version 1.2 by Nakov).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penjing.intervals import difference_of_counts, f1, of_counts
from penjing.measures import single_label

if TYPE_CHECKING:
    from penjing.records import Scores

OTHERS = ("other", "no_relation", "none", "na", "unknown", "无", "其他")
_ENDINGS = ("(e1,e2)", "(e2,e1)")


def name_of(label: str) -> str:
    """A relation's name without its direction."""
    return next((label.removesuffix(end) for end in _ENDINGS if label.endswith(end)), label)


def is_other(label: str) -> bool:
    """Whether a label says that there is no relation, or none of those looked for."""
    return label.lower() in OTHERS


def is_directed(labels: Sequence[str]) -> bool:
    """Whether labels say which entity is which, so that a pair is asked about once."""
    return any(label.endswith(end) for label in labels for end in _ENDINGS)


def scores_of(p: NDArray[Any], targets: NDArray[np.int64], labels: Sequence[str], seed: int) -> Scores:
    """As `measures.single_label`, and `official_f1` with its interval."""
    found = single_label(p, targets, labels, seed)
    hits, support, predicted = counts_of(p.argmax(1), targets, labels)
    official = float(_official(hits.sum(0), support.sum(0), predicted.sum(0)))
    interval = of_counts(hits, support, predicted, seed=seed)["macro_f1"]
    values = {"official_f1": official, **found.values}
    return replace(found, values=values, intervals={"official_f1": interval, **found.intervals})


def counts_of(
    answers: NDArray[Any], targets: NDArray[np.int64], labels: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Three (S, R): relations of the truth answered right, there, and answered, by name, without Other."""
    there = [labels[place] for place in np.unique(targets)]
    names = sorted({name_of(label) for label in there if not is_other(label)})
    own = np.array([[name_of(label) == name and not is_other(label) for name in names] for label in labels])
    support, predicted = own[targets].astype(np.int64), own[answers].astype(np.int64)
    return support * (answers == targets)[:, None], support, predicted


def difference(
    ours: NDArray[Any], theirs: NDArray[Any], targets: NDArray[np.int64], labels: Sequence[str], seed: int
) -> tuple[float, tuple[float, float]]:
    """Official macro F1 of ours minus theirs, and its 95 % interval over the same rows."""
    first, second = (counts_of(p.argmax(1), targets, labels) for p in (ours, theirs))
    hits, predicted = (first[0], second[0]), (first[2], second[2])
    return difference_of_counts(hits, first[1], predicted, "macro_f1", seed=seed)


def _official(hits: NDArray[Any], support: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean F1 over the relations of the truth, as the scorer counts them."""
    there = support > 0
    return float(f1(hits, support, predicted)[there].mean()) if there.any() else 0.0
