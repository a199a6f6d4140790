"""Scores of texts that were said, beside those that were wanted: BLEU, chrF, ROUGE, repetition, lengths.

BLEU and chrF are sacrebleu's (Post 2018, arXiv 1804.08771; its tokenizers 13a and, for Chinese, zh),
intervals by drawing rows anew. ROUGE (Lin 2004) is the F-measure of words in small letters; each Chinese
character is a word.

Legend: n rows, N orders of n-grams.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.errors import NotSupported

HAN = re.compile(r"[㐀-䶿一-鿿]")
WORD = re.compile(r"[㐀-䶿一-鿿]|[^\W㐀-䶿一-鿿]+")
ORDERS = 4
DRAWS = 1000
ROUGES = ("rouge_1", "rouge_2", "rouge_l")


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether Han characters are more than a quarter of the signs of some of these texts."""
    signs = "".join(texts[:500])
    return len(HAN.findall(signs)) > 0.25 * max(1, len(signs))


def words_of(text: str) -> list[str]:
    """Words in small letters; Chinese by characters; marks are none."""
    return WORD.findall(text.lower())


def bleu_counts(said: Sequence[str], wanted: Sequence[str]) -> NDArray[np.float64]:
    """(n, 2 N + 2) of each row: n-grams found, n-grams said, lengths of both, in sacrebleu's tokens.

    Raises:
        NotSupported: sacrebleu is not installed.
    """
    bleu = sacrebleu().BLEU(tokenize="zh" if is_chinese(wanted) else "13a", effective_order=True)
    rows = []
    for one, other in zip(said, wanted, strict=True):
        found = bleu.sentence_score(one, [other])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return np.array(rows, np.float64).reshape(-1, 2 * ORDERS + 2)


SCALES = {"bleu": 100.0}  # scores that do not end at 1


def bleu_of(sums: NDArray[Any]) -> NDArray[np.float64]:
    """BLEU, 0 to 100, of summed counts (…, 2 N + 2), with sacrebleu's exponential smoothing of orders that
    nothing was found of; 0 where not even one word was found."""
    found, said = sums[..., :ORDERS].astype(np.float64), sums[..., ORDERS : 2 * ORDERS]
    some = (said > 0).all(-1) & (found > 0).any(-1)
    none = (found == 0) & (said > 0)
    found = np.where(none, 0.5 ** none.cumsum(-1), found)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(said > 0, found / np.maximum(said, 1), 0.0)
        mean = np.exp(np.log(precision).mean(-1))
        short = np.exp(np.minimum(0.0, 1 - sums[..., -1] / np.maximum(sums[..., -2], 1e-9)))
    return np.asarray(np.where(some, 100 * mean * short, 0.0))


def sacrebleu() -> Any:
    """sacrebleu's metrics.

    Raises:
        NotSupported: it is not installed.
    """
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise NotSupported(
            "BLEU and chrF were wanted; they are sacrebleu's, which is not installed. Say "
            "`pip install 'penjing[scores]'`."
        ) from error
    return metrics


def chrf(said: Sequence[str], wanted: Sequence[str]) -> float:
    """chrF, 0 to 100 (Popović 2015)."""
    return float(sacrebleu().CHRF().corpus_score(list(said), [list(wanted)]).score)


def rouge(said: str, wanted: str) -> tuple[float, float, float]:
    """ROUGE-1, -2 and -L, 0 to 1: F-measures of words, pairs of words, the longest common subsequence."""
    ours, theirs = words_of(said), words_of(wanted)
    found = [_overlap(_grams(ours, n), _grams(theirs, n)) for n in (1, 2)]
    return found[0], found[1], _f(_longest_common(ours, theirs), len(ours), len(theirs))


def _grams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _overlap(ours: Counter[tuple[str, ...]], theirs: Counter[tuple[str, ...]]) -> float:
    return _f((ours & theirs).total(), ours.total(), theirs.total())


def _f(hits: int, said: int, wanted: int) -> float:
    return 2 * hits / (said + wanted) if hits else 0.0


def _longest_common(one: list[str], other: list[str]) -> int:
    """Length of the longest subsequence of both."""
    best = [0] * (len(other) + 1)
    for word in one:
        left = 0
        for j, theirs in enumerate(other, 1):
            above = best[j]
            best[j] = left + 1 if word == theirs else max(above, best[j - 1])
            left = above
    return best[-1]


def manner(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """How it was said: words a text, that over the wanted texts', the share of 3-grams of a text that came in
    it before, and the share of empty texts."""
    words = [words_of(text) for text in said]
    grams = [_grams(own, 3) for own in words]
    total = sum(own.total() for own in grams)
    length = sum(map(len, words))
    theirs = sum(len(words_of(text)) for text in wanted)
    return {
        "words": length / max(1, len(words)),
        "length_ratio": length / max(1, theirs),
        "repeated": 1 - sum(map(len, grams)) / total if total else 0.0,
        "empty": sum(not own for own in words) / max(1, len(words)),
    }


def interval(
    rows: NDArray[Any],
    value: Callable[[NDArray[Any]], NDArray[Any]],
    seed: int,
    minus: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """95 % interval of `value` of summed rows (n, k), rows drawn anew; less that of `minus` on the same."""
    generator, n = np.random.default_rng(seed), len(rows)
    found = []
    for _ in range(DRAWS):
        weights = np.bincount(generator.integers(n, size=n), minlength=n)
        own = value(weights @ rows)
        found.append(float(own if minus is None else own - value(weights @ minus)))
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def mean_of(sums: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of rows (value, 1) from their sum."""
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-9))
