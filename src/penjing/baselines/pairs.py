"""The cheap baseline of pairs of texts: how their TF-IDF vectors meet, and a linear model on that.

Features of a pair: cosines of words and of character n-grams, the share of words they have in common, how
unequal their lengths are, and what both have and only one has of each n-gram (products and absolute
differences of the vectors, as Ji & Eisenstein 2013 do for paraphrases).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.baseline import fit_classes, fit_features, plan_baseline
from penjing.baselines.numbers import ridge

Pairs = Sequence[tuple[str, str]]
MOST_ROWS = 20_000
WEIGHT = 2.0  # of the few dense features beside n-grams, which are mostly below 0.3


def fit_classes_of_pairs(
    pairs: Pairs, targets: NDArray[Any], n_classes: int, seed: int
) -> tuple[Callable[[Pairs], NDArray[np.float64]], tuple[str, ...]]:
    """A function from pairs to probabilities (S, C), and what was left out, in words."""
    features, train_SF, chosen, notes = _features(pairs, n_classes, seed)
    weights_CF, bias_C = fit_classes(train_SF, targets[chosen][:, None] == np.arange(n_classes), seed)

    def predict(pairs: Pairs) -> NDArray[np.float64]:
        logits = np.asarray(features(pairs) @ weights_CF.T, np.float64) + bias_C
        p: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        return p / p.sum(1, keepdims=True)

    return predict, notes


def fit_numbers_of_pairs(
    pairs: Pairs, truth_SK: NDArray[Any], seed: int
) -> tuple[Callable[[Pairs], NDArray[np.float64]], tuple[str, ...]]:
    """A function from pairs to numbers (S, K), and what was left out, in words."""
    features, train_SF, chosen, notes = _features(pairs, 1, seed)
    solve = ridge(train_SF, np.asarray(truth_SK, np.float64)[chosen])
    return lambda pairs: solve(features(pairs)), notes


def _features(
    pairs: Pairs, n_outputs: int, seed: int
) -> tuple[Callable[[Pairs], Any], Any, NDArray[np.int64], tuple[str, ...]]:
    both = [text for pair in pairs for text in pair]
    plan = plan_baseline(both, n_outputs)
    most = min(MOST_ROWS, max(1, plan.n_rows // 2))
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:most]
    vectors, _ = fit_features([text for i in chosen for text in pairs[i]], plan)

    def features(pairs: Pairs) -> Any:
        return _met(pairs, vectors)

    return features, features([pairs[i] for i in chosen]), chosen, plan.notes


def _met(pairs: Pairs, vectors: Callable[[Sequence[str]], Any]) -> Any:
    """(S, F) features of pairs, from a function that gives the vectors of texts."""
    from scipy.sparse import csr_matrix, hstack

    a, b = vectors([p[0] for p in pairs]), vectors([p[1] for p in pairs])
    product = a.multiply(b)
    size = np.sqrt(np.asarray(a.multiply(a).sum(1)) * np.asarray(b.multiply(b).sum(1))).ravel()
    cosine = np.asarray(product.sum(1)).ravel() / np.maximum(size, 1e-9)
    words = [(set(p[0].lower().split()), set(p[1].lower().split())) for p in pairs]
    shared = np.array([len(x & y) / max(1, len(x | y)) for x, y in words])
    lengths = np.array([abs(len(p[0]) - len(p[1])) / max(1, len(p[0]) + len(p[1])) for p in pairs])
    dense = WEIGHT * np.stack([cosine, cosine**2, shared, shared**2, lengths], axis=1)
    return hstack([csr_matrix(dense.astype(np.float32)), product, abs(a - b)], format="csr")
