"""A linear probe: how well plain logistic regression tells labelled rows by what a base makes of them.

It says at each validation whether a base becomes of use, without tuning it (Alain & Bengio 2016, arXiv
1610.01644). Rows are cut into folds once, so scores of a run are of the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from penjing.baseline import unwarned
from penjing.data.read import read
from penjing.data.tokenize import tokenize
from penjing.engine.scoring import embed
from penjing.errors import DataError
from penjing.models.load import Base

FOLDS = 3
MOST = 2_000  # rows, evenly chosen
LONGEST = 128  # tokens read of each


def prober(source: str | list[str], base: Base, *, seed: int) -> Callable[[Any], dict[str, float]]:
    """A function from a model over this base to `probe_accuracy`: the mean over folds of the rows.

    Raises:
        DataError: the rows cannot be read, or hold too few of two classes.
    """
    rows = read(source)
    if len(rows) > MOST:
        rows = rows.take(np.linspace(0, len(rows) - 1, MOST).astype(np.int64))
    classes, targets = np.unique(["\x1e".join(labels) for labels in rows.labels], return_inverse=True)
    counts = np.bincount(targets)
    kept = np.flatnonzero(counts[targets] >= FOLDS)
    if len(np.unique(targets[kept])) < 2:
        raise DataError(
            f"`data.probe` ({source}) must hold at least {FOLDS} rows of two labels; of {len(classes)} "
            f"labels in {len(rows):,} rows {int((counts >= FOLDS).sum())} have as many. Give more labelled "
            "rows."
        )
    texts, targets = [rows.texts[i] for i in kept], targets[kept]
    tokens = tokenize(base.tokenizer, texts, max_length=min(LONGEST, base.limit))
    pooling = "mean" if base.kind == "encoder" else "last"

    def probe(model: Any) -> dict[str, float]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_score

        states = embed(model, tokens, pooling).double().numpy()
        states = (states - states.mean(0)) / (states.std(0) + 1e-6)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        with unwarned():  # a hundred passes are enough to compare steps of one run
            found = cross_val_score(LogisticRegression(C=0.1, max_iter=100), states, targets, cv=folds)
        return {"probe_accuracy": float(found.mean())}

    return probe
