"""What an evaluation finds: scores, their intervals, and the tables the report draws.

Definitions, once: *macro F1* is the mean over the classes that appear in the truth or in the answers
(scikit-learn's default for one label a row; of several labels it counts those that appear in neither as 0);
*ECE* is the expected calibration error over 15 equal-width, right-closed bins of confidence (Guo et al. 2017,
equation 3); *Brier* is the mean over rows of the squared distance between the probabilities and the one-hot
truth, 0..2 (Brier 1950); *NLL* is the mean of -ln p(truth) in nats. All others lie in 0..1. numpy alone is
imported.

Shape suffixes: S rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penjing.errors import DataError
from penjing.intervals import Bools, Floats, bootstrap, f1, one_hot

if TYPE_CHECKING:
    from penjing.records import Scores

BINS = 15
LENT = 1.0  # true rows that all labels together lend to each when its threshold is chosen
DRAWS = 200  # of the bootstrap over documents
TINY = 1e-12  # a probability of zero costs 27.6 nats, not infinity


def single_label(
    probabilities: NDArray[Any], targets: NDArray[Any], labels: Sequence[str], seed: int
) -> Scores:
    """Scores where each row has exactly one of C classes; the answer is the most probable (the first among
    equals).

    Args:
        probabilities: (S, C) floats, each row sums to 1.
        targets: (S,) ints in 0..C-1.
        labels: C names, in the order of the columns.
        seed: of the 1,000 bootstrap draws.

    Returns:
        values `accuracy macro_f1 micro_f1 ece nll brier`; 95 % intervals of the first three (micro F1 equals
        accuracy here); tables `per_class` (a dict a class: label, precision, recall, f1, support),
        `confusion` ({labels, counts}, counts[truth][answer]) and `reliability` (a dict a bin that holds rows:
        confidence, accuracy, count).

    Raises:
        DataError: no rows, shapes that do not agree, a target outside the labels, probabilities that are not
            finite.
    """
    from penjing.records import Scores  # imports torch

    p, y = _checked(probabilities, labels, len(targets)), np.asarray(targets, dtype=np.int64)
    if y.shape != (len(p),) or y.min() < 0 or y.max() >= len(labels):
        raise DataError(
            f"Targets must be one number in 0..{len(labels) - 1} a row ({len(p)} rows); they have shape "
            f"{y.shape} and reach from {y.min()} to {y.max()}. Give the positions of the labels in `labels`."
        )
    answers = p.argmax(axis=1)
    truth, answered = one_hot(y, len(labels)), one_hot(answers, len(labels))
    values, per_class = _f1_table(truth, answered, labels)
    right = answers == y
    ece, reliability = calibration(p.max(axis=1), right)
    n = len(labels)
    counts = np.bincount(y * n + answers, minlength=n * n).reshape(n, n)
    intervals = bootstrap(truth, answered, ("accuracy", "macro_f1"), seed=seed)
    return Scores(
        {
            "accuracy": float(right.mean()),
            **values,
            "ece": ece,
            "nll": float(-np.log(np.maximum(p[np.arange(len(y)), y], TINY)).mean()),
            "brier": float(((p - truth) ** 2).sum(axis=1).mean()),
        },
        {**intervals, "micro_f1": intervals["accuracy"]},
        {
            "per_class": per_class,
            "confusion": {"labels": [*labels], "counts": counts.tolist()},
            "reliability": reliability,
        },
    )


def language_scores(
    found: NDArray[Any],
    targets: NDArray[Any],
    sources: Sequence[str],
    chosen: dict[str, Any],
    seed: int = 0,
    *,
    whole: bool = False,
) -> Scores:
    """How well a language model says the tokens it is asked for.

    Args:
        found: (n, 3) of each piece: summed loss in nats, tokens asked for, those answered rightly.
        targets: (n, 4) of each piece: its source, document, whether it ends the document, its bytes.
        whole: every token is asked for, so that bits per byte can be told (Gao et al. 2020, arXiv 2101.00027,
            section 3.1), which compare models of different tokenizers.

    Returns:
        values `loss` (nats a token), `perplexity`, `token_accuracy` and with `whole` `bits_per_byte`; the
        95 % interval of the loss over documents (of one document over its pieces; none of one piece);
        table `per_source`.
    """
    from penjing.records import Scores  # imports torch

    values = _language(found, targets, whole)
    rows = []
    for place, name in enumerate(sources):
        own = targets[:, 0] == place
        if own.any() and found[own, 1].sum():
            n_tokens = int(found[own, 1].sum())
            rows.append({"source": name, **_language(found[own], targets[own], whole), "tokens": n_tokens})
    _, document = np.unique(targets[:, :2], axis=0, return_inverse=True)
    unit = document.ravel() if document.any() else np.arange(len(found))
    sums = np.stack([np.bincount(unit, found[:, i]) for i in (0, 1)], 1)
    generator = np.random.default_rng(seed)
    drawn = [sums[generator.integers(len(sums), size=len(sums))].sum(0) for _ in range(DRAWS)]
    means = [total / max(n, 1) for total, n in drawn]
    low, high = (float(np.quantile(means, q)) for q in (0.025, 0.975))
    return Scores(values, {"loss": (low, high)} if len(sums) > 1 else {}, {"per_source": rows})


def _language(found: NDArray[Any], targets: NDArray[Any], whole: bool) -> dict[str, float]:
    total, n_tokens, right = (float(x) for x in found.sum(0))
    loss = total / max(n_tokens, 1.0)
    values = {
        "loss": loss,
        "perplexity": float(np.exp(min(loss, 700.0))),
        "token_accuracy": right / max(n_tokens, 1.0),
    }
    if whole:
        values["bits_per_byte"] = total / np.log(2) / max(float(targets[:, 3].sum()), 1.0)
    return values


def multi_label(
    probabilities: NDArray[Any],
    targets: NDArray[Any],
    labels: Sequence[str],
    thresholds: NDArray[Any] | float,
    seed: int,
) -> Scores:
    """Scores where each row has any number of C labels; a label is answered where its probability reaches its
    threshold.

    Args:
        probabilities: (S, C) floats in 0..1, each label on its own.
        targets: (S, C) bool.
        labels: C names, in the order of the columns.
        thresholds: (C,) in 0..1, or one for all; `best_thresholds` finds them on validation rows.
        seed: of the 1,000 bootstrap draws.

    Returns:
        values `micro_f1 macro_f1 subset_accuracy ece` (ECE over all row-label pairs: probability against
        share present); 95 % intervals of the first three; tables `per_class` and `reliability` as in
        `single_label`.

    Raises:
        DataError: no rows, shapes that do not agree, probabilities that are not finite.
    """
    from penjing.records import Scores  # imports torch

    p, truth = _checked(probabilities, labels, len(targets)), np.asarray(targets, dtype=bool)
    if truth.shape != p.shape:
        raise DataError(
            f"Targets must be (rows, labels) like the probabilities {p.shape}; they are {truth.shape}."
        )
    answered = p >= np.asarray(thresholds, dtype=np.float64)
    values, per_class = _f1_table(truth, answered, labels)
    ece, reliability = calibration(p.ravel(), truth.ravel())
    return Scores(
        {**values, "subset_accuracy": float((answered == truth).all(axis=1).mean()), "ece": ece},
        bootstrap(truth, answered, ("micro_f1", "macro_f1", "subset_accuracy"), seed=seed),
        {"per_class": per_class, "reliability": reliability},
    )


def best_thresholds(probabilities: NDArray[Any], targets: NDArray[Any], *, lent: float = LENT) -> Floats:
    """(C,) for each label the threshold with the best F1 on these rows, to which all labels lend; 0.5 for all
    where no row has a label.

    A threshold of a label's own fits the few rows that have it: a label of one row is then answered for any
    text a little like that one (Yang 2001, "A study of thresholding strategies for text categorization"). So
    each label is judged as if it had `lent` more true rows, spread over the probabilities as those of all
    labels together are: rare labels follow the threshold that all share, frequent ones their own rows.
    `bench/thresholds.py` on Reuters-21578, 50, 100 and 400 validation rows: micro F1 0.72, 0.76 and 0.80 (own
    thresholds 0.54, 0.65, 0.65), macro F1 0.24, 0.32 and 0.42 (0.19, 0.27, 0.38).

    Candidates lie midway between neighbouring probabilities; among equally good ones the nearest to the
    shared one (of that, to 0.5) is taken. Choose on validation rows and report on others, since a threshold
    fits its own rows (Lipton et al. 2014).

    Args:
        probabilities: (S, C) floats in 0..1.
        targets: (S, C) bool.
        lent: true rows; 0 gives each label its own threshold.
    """
    p, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=bool)
    if not truth.any():
        return np.full(p.shape[1], 0.5)
    values, hits = _falling(p.ravel(), truth.ravel())
    shared = _nearest(_between(values), f1(hits, hits[-1], np.arange(1, len(hits) + 1)), 0.5)
    found = np.empty(p.shape[1])
    falling, lent_hits, each = -values, np.append(0, hits) * lent / hits[-1], lent / hits[-1]
    for label in range(p.shape[1]):
        own, own_hits = _falling(p[:, label], truth[:, label])
        cuts = np.append(_between(own), shared)
        here, everywhere = (np.searchsorted(up, -cuts, side="right") for up in (-own, falling))
        found_true = np.append(0, own_hits)[here] + lent_hits[everywhere]
        scores = f1(found_true, own_hits[-1] + lent, here + each * everywhere)
        found[label] = _nearest(cuts, scores, shared)
    return found


def _falling(p: Floats, truth: NDArray[Any]) -> tuple[Floats, NDArray[Any]]:
    """Probabilities from the greatest to the least, and how many true rows each has at or above it."""
    order = np.argsort(-p, kind="stable")
    return p[order], np.cumsum(truth[order])


def _between(values: Floats) -> Floats:
    """The cuts below each of these, NaN where none can fall between equals."""
    below = np.append(values[1:], 0.0)
    return np.where(values == below, np.nan, (values + below) / 2)


def _nearest(cuts: Floats, scores: Floats, wanted: float) -> float:
    """Of the cuts with the best score, the nearest to the wanted one; that where no score is above 0."""
    scores = np.where(np.isnan(cuts), -1.0, scores)
    if scores.max() <= 0:
        return wanted
    best = cuts[scores == scores.max()]
    return float(best[np.abs(best - wanted).argmin()])


def calibration(confidence: NDArray[Any], right: NDArray[Any]) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error and its bins, those without rows left out.

    Args:
        confidence: (n,) in 0..1.
        right: (n,) bool, whether what was claimed with that confidence is so.

    Returns:
        sum over bins of (share of rows) x |accuracy - mean confidence|, and {confidence, accuracy, count} a
        bin.
    """
    bins = np.clip(np.ceil(np.asarray(confidence) * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    confident = np.bincount(bins, weights=confidence, minlength=BINS)
    correct = np.bincount(bins, weights=right, minlength=BINS)
    ece = float(np.abs(correct - confident).sum() / len(bins))
    rows = [
        {
            "confidence": float(confident[b] / counts[b]),
            "accuracy": float(correct[b] / counts[b]),
            "count": int(counts[b]),
        }
        for b in np.flatnonzero(counts)
    ]
    return ece, rows


def _f1_table(
    truth: Bools, answered: Bools, labels: Sequence[str]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    hits, support, predicted = (truth & answered).sum(axis=0), truth.sum(axis=0), answered.sum(axis=0)
    scores = f1(hits, support, predicted)
    present = (support + predicted) > 0
    values = {
        "macro_f1": float(scores[present].mean()) if present.any() else 0.0,
        "micro_f1": float(f1(hits.sum(), support.sum(), predicted.sum())),
    }
    per_class = [
        {
            "label": label,
            "precision": float(hits[c] / max(predicted[c], 1)),
            "recall": float(hits[c] / max(support[c], 1)),
            "f1": float(scores[c]),
            "support": int(support[c]),
        }
        for c, label in enumerate(labels)
    ]
    return values, per_class


def _checked(probabilities: NDArray[Any], labels: Sequence[str], n_rows: int) -> Floats:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape != (n_rows, len(labels)) or not n_rows:
        raise DataError(
            f"Scoring needs one probability a row and label, ({n_rows}, {len(labels)}), of at least one row; "
            f"it got {p.shape}. Score the rows whose targets are given."
        )
    bad = np.flatnonzero(~np.isfinite(p).all(axis=1))
    if len(bad):
        raise DataError(
            f"Probabilities must be finite; those of {len(bad):,} of {len(p):,} rows are not (first: row "
            f"{bad[0]}, counted from 0). The weights are probably broken: train with a lower `train.lr`."
        )
    return p
