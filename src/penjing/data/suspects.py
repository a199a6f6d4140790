"""Rows whose label is likely wrong, by confident learning over a cheap model's out-of-fold probabilities."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from penjing.baseline import unwarned
from penjing.data.duplicates import near_groups
from penjing.data.split import folds
from penjing.records import Rows

_MOST_ROWS = 20_000
_READ = 2000  # characters of each text
_TOKEN = re.compile(r"[^\W\u3400-\u9fff]+|[\u3400-\u9fff]")  # a run of letters without Han, or one of Han


def suspects(
    rows: Rows, *, seed: int = 0, n_folds: int = 4, n_most: int = 200, groups: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Likely label errors, the likeliest first.

    Each has `row`, `where`, `text`, `given`, `likely`, and their `given_probability` and `probability`.

    Confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70, eq. 2): with p(j | x) from models that did
    not see x, t_j is the mean of p(j | x) over rows given j; a row given i counts as j when j is the
    likeliest label among those with p(j | x) >= t_j; it is suspect when j differs from i. Ranked by p(j | x)
    - p(i | x). The model is TF-IDF (words and Han characters, one and two in a row) with logistic regression;
    equal texts are in one fold. At most 20,000 rows are looked at, drawn by seed. Rows with several labels
    are passed over; with fewer than two labels there is nothing to confuse, and the list is empty, as it is
    of texts without a word (emoji alone).
    """
    single = np.flatnonzero(np.fromiter((len(labels) == 1 for labels in rows.labels), bool, len(rows)))
    if len(single) > _MOST_ROWS:
        single = np.sort(np.random.default_rng(seed).choice(single, _MOST_ROWS, replace=False))
        groups = None
    part = rows.take(single)
    names = sorted({labels[0] for labels in part.labels})
    own = groups[single] if groups is not None else near_groups(part.texts)
    if (
        len(names) < 2
        or len(np.unique(own)) < 2
        or not any(_TOKEN.search(text, 0, _READ) for text in part.texts)
    ):
        return []
    code = {name: i for i, name in enumerate(names)}
    given = np.array([code[labels[0]] for labels in part.labels])
    chances = _out_of_fold(part, given, len(names), own, seed=seed, n_folds=n_folds)
    bar = np.array([chances[given == j, j].mean() for j in range(len(names))])
    confident = np.where(chances >= bar[None, :], chances, -1.0)
    likely = confident.argmax(axis=1)
    here = np.arange(len(part))
    margin = chances[here, likely] - chances[here, given]
    hits = np.flatnonzero((confident[here, likely] >= 0) & (likely != given) & (margin > 0))
    return [
        {
            "row": int(single[i]),
            "where": part.where(i),
            "text": part.texts[i],
            "given": names[given[i]],
            "likely": names[likely[i]],
            "probability": round(float(chances[i, likely[i]]), 4),
            "given_probability": round(float(chances[i, given[i]]), 4),
        }
        for i in hits[np.argsort(-margin[hits], kind="stable")][:n_most]
    ]


def _out_of_fold(
    rows: Rows, given: np.ndarray, n_labels: int, groups: np.ndarray, *, seed: int, n_folds: int
) -> np.ndarray:
    """(n, C) probability of each label for each row, from models trained on the other folds."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    chances = np.zeros((len(rows), n_labels))
    n_folds = min(n_folds, len(np.unique(groups)))
    counts = TfidfVectorizer(
        token_pattern=_TOKEN.pattern,
        ngram_range=(1, 2),
        max_features=50_000,
        sublinear_tf=True,
        dtype=np.float32,
    )
    features = counts.fit_transform([text[:_READ] for text in rows.texts])
    for train, valid in folds(rows, n_folds=n_folds, seed=seed, groups=groups):
        if len(np.unique(given[train])) == 1:
            chances[valid, given[train][0]] = 1.0
            continue
        # saga: one thread, the same everywhere; lbfgs took 5 to 30 times as long for 77 labels.
        model = LogisticRegression(C=10.0, solver="saga", max_iter=15, tol=1e-2, random_state=seed)
        with unwarned():  # near enough is what is wanted, and few rows a label are usual
            model.fit(features[train], given[train])
        chances[np.ix_(valid, model.classes_)] = model.predict_proba(features[valid])
    return chances
