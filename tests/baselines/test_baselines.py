"""Cheap baselines of numbers and of pairs learn what is plain to see."""

import numpy as np
from scipy.stats import spearmanr

from penjing.baselines.numbers import fit_numbers, ridge
from penjing.baselines.pairs import fit_classes_of_pairs, fit_numbers_of_pairs

WORDS = ["red", "green", "blue", "old", "new", "large", "small", "warm", "cold", "fast"]


def _texts(n: int, seed: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [[str(w) for w in draw.choice(WORDS, 4, replace=False)] for _ in range(n)]


def test_numbers_that_words_decide_are_found() -> None:
    worth = {word: float(i) for i, word in enumerate(WORDS)}
    texts = _texts(200, 0)
    truth = np.array([[sum(worth[w] for w in text), worth[text[0]]] for text in texts])
    predict, notes = fit_numbers([" ".join(text) for text in texts[:150]], truth[:150], 0)
    found = predict([" ".join(text) for text in texts[150:]])
    assert found.shape == (50, 2)
    assert spearmanr(found[:, 0], truth[150:, 0])[0] > 0.9
    assert notes == ()


def test_ridge_is_the_closed_form() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(8, 3)), draw.normal(size=(8, 1))  # too few rows to choose: the penalty is 1
    middle = x.mean(0)
    weights = np.linalg.solve((x - middle).T @ (x - middle) + np.eye(3), (x - middle).T @ (y - y.mean(0)))
    assert np.allclose(ridge(x, y)(x), (x - middle) @ weights + y.mean(0), atol=1e-3)


def test_pairs_are_told_apart_by_what_they_share() -> None:
    texts = _texts(240, 1)
    near = [
        (" ".join(t), " ".join(reversed(t)) if i % 2 else " ".join(texts[i - 1])) for i, t in enumerate(texts)
    ]
    truth = np.arange(240) % 2
    predict, _ = fit_classes_of_pairs(near[:200], truth[:200], 2, 0)
    p = predict(near[200:])
    assert np.allclose(p.sum(1), 1)
    assert (p.argmax(1) == truth[200:]).mean() > 0.9
    scores, _ = fit_numbers_of_pairs(near[:200], truth[:200, None] * 5.0, 0)
    assert spearmanr(scores(near[200:])[:, 0], truth[200:])[0] > 0.8
