"""The cheap baseline of entities: logistic regression on a word and its neighbours, decoded by tags' rules.

Features are those of taggers before neural ones (Ratinov & Roth 2009): the word, its shape, prefixes and
suffixes, and words and shapes around it, hashed. One pass of stochastic gradient descent costs what reading
the rows costs, and rows are bounded, so that it stays cheap beside what it is compared with. scikit-learn is
imported inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.baseline import unwarned
from penjing.data.align import sites_of
from penjing.data.entities import Place, Tagged
from penjing.data.schemes import tag_names, tagged
from penjing.entities.scores import Said, Truth, Truths

MOST_WORDS = 200_000  # learned from: a bound on the cost
FEATURES = 2**20  # of the hash
PASSES = 6
SCHEME = "bio"


@dataclass(frozen=True)
class WordTagger:
    """A fitted tagger: rows with their words to what it says of them; `notes` tell what was left out."""

    tag: Callable[[Sequence[Tagged]], list[Said]]
    notes: tuple[str, ...] = ()


def fit_tagger(
    items: Sequence[Tagged],
    truth: Truths,
    n_labels: int,
    *,
    intents: tuple[Sequence[str], Callable[[Sequence[str]], np.ndarray]] | None = None,
    seed: int = 0,
) -> WordTagger:
    """Fit on train rows. `intents`: their names, and a baseline of texts that gives their probabilities."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    chosen, notes = _bounded(items, seed)
    rows = [items[i] for i in chosen]
    targets = [_targets(items[i], truth[i]) for i in chosen]
    hasher = FeatureHasher(FEATURES, input_type="string", dtype=np.float32, alternate_sign=False)
    model = SGDClassifier(
        loss="log_loss", alpha=1e-6, max_iter=PASSES, tol=None, random_state=seed, average=True
    )
    flat = np.concatenate([*targets, np.zeros(0, np.int64)])
    kinds = np.unique(flat)
    if len(kinds) > 1:
        with unwarned():  # it is not meant to converge
            model.fit(hasher.transform(features for row in rows for features in _features(row)), flat)
    n_tags = len(tag_names([""] * n_labels, SCHEME))

    def tag(asked: Sequence[Tagged]) -> list[Said]:
        found: list[Said] = []
        for begin in range(0, len(asked), 2000):
            chunk = asked[begin : begin + 2000]
            features = [one for row in chunk for one in _features(row)]
            logits = np.full((len(features), n_tags), -30.0, dtype=np.float32)
            if features and len(kinds) > 1:
                logits[:, kinds] = _log_p(model.decision_function(hasher.transform(features)))
            else:  # one tag is all that was there to learn
                logits[:, kinds] = 0.0
            found += _decoded(chunk, logits, n_labels)
        if intents:
            shares = intents[1]([item.text for item in asked])
            found = [Said(one.text, one.entities, share) for one, share in zip(found, shares, strict=True)]
        return found

    return WordTagger(tag, notes)


def _bounded(items: Sequence[Tagged], seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The rows to learn from: all, or as many by chance as have the most words that are allowed."""
    order = np.random.default_rng(seed).permutation(len(items))
    sizes = np.cumsum([len(items[i].words) for i in order])
    n = int(np.searchsorted(sizes, MOST_WORDS, side="right"))
    if n >= len(items):
        return np.arange(len(items)), ()
    return np.sort(order[: max(1, n)]), (f"the baseline learned from {max(1, n):,} of {len(items):,} rows",)


def _targets(item: Tagged, truth: Truth) -> np.ndarray:
    spans = []
    for start, end, label in sorted(truth.entities):
        first, last = sites_of(item.words, start, end)
        if first < last:
            spans.append((first, last, label))
    return tagged(spans, len(item.words), SCHEME)


def _log_p(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities of one-against-rest scores, one column a class."""
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    p = 1 / (1 + np.exp(-np.clip(scores, -50, 50)))
    return np.asarray(np.log(p / p.sum(1, keepdims=True)), dtype=np.float32)


def _decoded(items: Sequence[Tagged], logits: np.ndarray, n_labels: int) -> list[Said]:
    import torch

    from penjing.models.tagging import by_tags

    counts = [len(item.words) for item in items]
    spans = by_tags(n_labels, SCHEME).decode(torch.from_numpy(logits).split(counts), None)
    return [
        Said(item.text, tuple((*_place(item.words, a, b), label, p) for a, b, label, p in own))
        for item, own in zip(items, spans, strict=True)
    ]


def _place(words: Sequence[Place], first: int, end: int) -> Place:
    return words[first][0], words[end - 1][1]


def _features(item: Tagged) -> Iterator[list[str]]:
    """Of every word: what a tagger may look at."""
    words = [item.text[start:end] for start, end in item.words]
    lower = [word.lower() for word in words]
    shapes = [_shape(word) for word in words]
    last = len(words) - 1
    for i, word in enumerate(lower):
        found = ["bias", f"w={word}", f"s={shapes[i]}", f"p={word[:3]}", f"f={word[-3:]}", f"f2={word[-2:]}"]
        for step in (-2, -1, 1, 2):
            at = i + step
            near, shape = (lower[at], shapes[at]) if 0 <= at <= last else ("", "")
            found += [f"{step}w={near}", f"{step}s={shape}"]
        before, after = lower[i - 1] if i else "", lower[i + 1] if i < last else ""
        found += [f"bg={before} {word}", f"ag={word} {after}", f"sg={shapes[i - 1] if i else ''} {shapes[i]}"]
        yield found


def _shape(word: str) -> str:
    """`Xx` for Peter, `X.X.` for U.N., `d-d` for 1996-08: runs of a kind count once."""
    kinds = re.sub(r"[^\W\d_]", lambda m: "X" if m[0].isupper() else "x", re.sub(r"\d", "d", word))
    return re.sub(r"(.)\1+", r"\1", kinds)
