"""Scores of entities: an answer counts where start, end and label are all right, as in seqeval and CoNLL.

*micro F1* is over all entities, *macro F1* the mean over labels that are there or were answered; *precision*
and *recall* are micro. With intents, *frame accuracy* is the share of rows where the intent and every entity
are right. Intervals draw rows, not entities, as the entities of a row are not independent.

Shape suffixes: S rows, C labels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penjing.intervals import bootstrap, difference_of_counts, f1, of_counts, one_hot
from penjing.measures import calibration

if TYPE_CHECKING:
    from penjing.records import Scores

NONE = "(none)"  # of the table of confusions: no entity


@dataclass(frozen=True)
class Truth:
    """What is right of a row: (start, end, label) of its entities in characters, and its intent's place."""

    entities: frozenset[tuple[int, int, int]]
    intent: int = -1


Truths = Sequence[Truth] | NDArray[np.object_]


@dataclass(frozen=True)
class Said:
    """What a model says of a row: (start, end, label, how sure) of entities, and probabilities of intents."""

    text: str
    entities: tuple[tuple[int, int, int, float], ...]
    intents: NDArray[np.float64] | None = None  # (K,)

    @property
    def places(self) -> frozenset[tuple[int, int, int]]:
        """The entities, without how sure they are."""
        return frozenset((start, end, label) for start, end, label, _ in self.entities)


def scores_of(
    said: Sequence[Said], truth: Truths, labels: Sequence[str], intents: Sequence[str], seed: int
) -> Scores:
    """Values `micro_f1 macro_f1 precision recall ece`, with intents `intent_accuracy frame_accuracy`; tables
    `per_class`, `confusion` of entities with right borders, `reliability` of answered entities."""
    from penjing.records import Scores  # imports torch

    hits_SC, support_SC, predicted_SC = counts_of(said, truth, len(labels))
    hits, support, predicted = (table.sum(0) for table in (hits_SC, support_SC, predicted_SC))
    each, present = f1(hits, support, predicted), (support + predicted) > 0
    sure = [(p, (a, b, c) in right.entities) for one, right in zip(said, truth, strict=True)
            for a, b, c, p in one.entities]  # fmt: skip
    confidence, right_ones = np.array([p for p, _ in sure]), np.array([ok for _, ok in sure], dtype=bool)
    ece, reliability = calibration(confidence, right_ones) if sure else (0.0, [])
    values = {
        "micro_f1": float(f1(hits.sum(), support.sum(), predicted.sum())),
        "macro_f1": float(each[present].mean()) if present.any() else 0.0,
        "precision": float(hits.sum() / max(predicted.sum(), 1)),
        "recall": float(hits.sum() / max(support.sum(), 1)),
    }
    intervals = of_counts(hits_SC, support_SC, predicted_SC, seed=seed)
    if intents:
        more, spans = _of_intents(said, truth, len(intents), seed)
        values, intervals = values | more, intervals | spans
    tables = {
        "per_class": [
            {
                "label": label,
                "precision": float(hits[c] / max(predicted[c], 1)),
                "recall": float(hits[c] / max(support[c], 1)),
                "f1": float(each[c]),
                "support": int(support[c]),
            }
            for c, label in enumerate(labels)
        ],
        "confusion": _confusion(said, truth, labels),
        "reliability": reliability,
    }
    return Scores({**values, "ece": ece}, intervals, tables)


def counts_of(
    said: Sequence[Said], truth: Truths, n_labels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Three (S, C): entities answered right, there, and answered."""
    hits, support, predicted = (np.zeros((len(truth), n_labels), dtype=np.int64) for _ in range(3))
    for row, (one, right) in enumerate(zip(said, truth, strict=True)):
        for table, places in (
            (hits, one.places & right.entities),
            (support, right.entities),
            (predicted, one.places),
        ):
            for _, _, label in places:
                table[row, label] += 1
    return hits, support, predicted


def difference(
    ours: Sequence[Said], theirs: Sequence[Said], truth: Truths, seed: int
) -> tuple[float, tuple[float, float]]:
    """micro F1 of ours minus theirs, and its 95 % interval over the same rows."""
    places = (one.places for system in (ours, theirs) for one in system)
    known = {label for one in (*places, *(right.entities for right in truth)) for _, _, label in one}
    first, second = (counts_of(one, truth, 1 + max(known, default=0)) for one in (ours, theirs))
    hits, predicted = (first[0], second[0]), (first[2], second[2])
    return difference_of_counts(hits, first[1], predicted, "micro_f1", seed=seed)


def _of_intents(
    said: Sequence[Said], truth: Truths, n: int, seed: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    wanted = one_hot(np.array([right.intent for right in truth]), n)
    found = one_hot(np.array([-1 if one.intents is None else int(one.intents.argmax()) for one in said]), n)
    right = (wanted == found).all(1)
    frames = right & np.array([one.places == two.entities for one, two in zip(said, truth, strict=True)])
    values = {"intent_accuracy": float(right.mean()), "frame_accuracy": float(frames.mean())}
    spans = bootstrap(wanted, found, ("accuracy",), seed=seed)["accuracy"]
    whole = np.ones((len(truth), 1), dtype=bool)
    return values, {
        "intent_accuracy": spans,
        "frame_accuracy": bootstrap(whole, frames[:, None], ("accuracy",), seed=seed)["accuracy"],
    }


def _by_place(entities: frozenset[tuple[int, int, int]]) -> dict[tuple[int, int], set[int]]:
    """The labels at each place: with `decode: span` there may be several."""
    found: dict[tuple[int, int], set[int]] = defaultdict(set)
    for start, end, label in entities:
        found[start, end].add(label)
    return found


def _confusion(said: Sequence[Said], truth: Truths, labels: Sequence[str]) -> dict[str, Any]:
    """counts[truth][answer] of labels; the last line and column stand for no entity at that place."""
    pairs = Counter[tuple[int, int]]()
    none = len(labels)
    for one, right in zip(said, truth, strict=True):
        answered, there = _by_place(one.places), _by_place(right.entities)
        for place in answered.keys() | there.keys():
            wanted, found = there[place], answered[place]
            pairs.update((label, label) for label in wanted & found)
            pairs.update(zip_longest(sorted(wanted - found), sorted(found - wanted), fillvalue=none))
    counts = np.zeros((none + 1, none + 1), dtype=np.int64)
    for (a, b), n in pairs.items():
        counts[a, b] = n
    return {"labels": [*labels, NONE], "counts": counts.tolist()}
