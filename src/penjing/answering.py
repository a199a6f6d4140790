"""Scores of answers in words, by the rules of the field: SQuAD's, and those of CMRC for Chinese.

*Exact match* and *F1* of an answer are the best over the right answers. SQuAD (Rajpurkar et al. 2016, 2018)
drops case, punctuation and articles, and counts words that both have. CMRC 2018 (Cui et al. 2019) cuts
Chinese into characters, drops a list of marks, and counts the longest run that both have. Where the text
holds no answer, saying none is right.

CMRC's own script cuts what is not Chinese with NLTK's English tokenizer; a rule of one line stands for it
here, so that no library is needed: runs of letters and digits, and every other mark by itself.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from penjing.records import Scores

DRAWS = 1000
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = re.compile(r"[\u4e00-\u9fa5]")
_PIECE = re.compile(r"[^\W_]+(?:[.,'][^\W_]+)*|\S")


def squad_words(text: str) -> list[str]:
    """Words as SQuAD's script compares them."""
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return _ARTICLES.sub(" ", bare).split()


def cmrc_pieces(text: str) -> list[str]:
    """Characters of Chinese, words of what else there is; marks left out."""
    pieces: list[str] = []
    other = ""
    for sign in text.lower().strip():
        if sign in _MARKS:
            continue
        if _HAN.match(sign):
            pieces += [*_PIECE.findall(other), sign]
            other = ""
        else:
            other += sign
    return [*pieces, *_PIECE.findall(other)]


def _of_squad(said: str, right: str) -> tuple[float, float]:
    ours, theirs = squad_words(said), squad_words(right)
    exact = float(ours == theirs)
    if not ours or not theirs:
        return exact, exact
    return exact, _f1(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def _of_cmrc(said: str, right: str) -> tuple[float, float]:
    ours, theirs = cmrc_pieces(said), cmrc_pieces(right)
    exact = float(_unmarked(said) == _unmarked(right))
    if not ours or not theirs:
        return exact, exact
    return exact, _f1(_longest_run(ours, theirs), len(ours), len(theirs))


def _unmarked(text: str) -> str:
    return "".join(sign for sign in text.lower().strip() if sign not in _MARKS)


def _f1(common: int, n_said: int, n_right: int) -> float:
    return 2.0 * common / (n_said + n_right)


def _longest_run(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest run of pieces that stands in both."""
    best, ends = 0, [0] * (len(b) + 1)
    for x in a:
        here = [0] * (len(b) + 1)
        for j, y in enumerate(b):
            if x == y:
                here[j + 1] = ends[j] + 1
        best, ends = max(best, *here), here
    return best


RULES: dict[str, Callable[[str, str], tuple[float, float]]] = {"squad": _of_squad, "cmrc": _of_cmrc}


def judged(said: str, right: Sequence[str], rules: str) -> tuple[float, float]:
    """(exact match, F1) of an answer, in 0..1: the best over the right answers; with none, "" is right."""
    each = [RULES[rules](said, one) for one in ([one for one in right if _counts(one, rules)] or [""])]
    return max(exact for exact, _ in each), max(f1 for _, f1 in each)


def _counts(right: str, rules: str) -> bool:
    """Whether anything is left of a right answer; SQuAD's script leaves others out."""
    return bool(squad_words(right) if rules == "squad" else cmrc_pieces(right))


def table_of(said: Sequence[str], right: Sequence[Sequence[str]], rules: str) -> NDArray[np.float64]:
    """(n, 2) exact match and F1 of every answer."""
    return np.array([judged(a, b, rules) for a, b in zip(said, right, strict=True)]).reshape(-1, 2)


def scores_of(said: Sequence[str], right: Sequence[Sequence[str]], rules: str, seed: int) -> Scores:
    """Values `exact_match` and `f1`; where some questions have no answer, `f1_answerable` and
    `unanswerable_right`, too; 95 % intervals over questions."""
    from penjing.records import Scores  # imports torch

    table = table_of(said, right, rules)
    there = np.array([bool(one) for one in right])
    values = {"exact_match": float(table[:, 0].mean()), "f1": float(table[:, 1].mean())}
    if there.any() and not there.all():
        values["f1_answerable"] = float(table[there, 1].mean())
        values["unanswerable_right"] = float(table[~there, 0].mean())
    means = _drawn(table, seed)
    names = ("exact_match", "f1")
    return Scores(values, {name: _span(means[:, i]) for i, name in enumerate(names)})


def difference_of(
    ours: Sequence[str], theirs: Sequence[str], right: Sequence[Sequence[str]], rules: str, seed: int
) -> tuple[float, tuple[float, float]]:
    """F1 of ours minus theirs, and its 95 % interval over the same questions."""
    gap = (table_of(ours, right, rules) - table_of(theirs, right, rules))[:, 1:]
    return float(gap.mean()), _span(_drawn(gap, seed)[:, 0])


def _drawn(table_nK: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(draws, K) means of rows drawn with replacement."""
    generator = np.random.default_rng(seed)
    n = len(table_nK)
    draws = [table_nK[generator.integers(n, size=n)].mean(0) for _ in range(DRAWS)]
    return np.stack(draws)


def _span(means: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def best_threshold(
    said: Sequence[str], doubt: NDArray[Any], right: Sequence[Sequence[str]], rules: str
) -> float:
    """The doubt above which saying nothing gives the best mean F1, as SQuAD 2.0's script finds it: a question
    is answered where its doubt is at most this."""
    told = table_of(said, right, rules)[:, 1]
    none = np.array([judged("", one, rules)[1] for one in right])
    order = np.argsort(doubt, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((told - none)[order])])
    last = np.append(np.diff(doubt[order]) > 0, True)  # equal doubts are answered together
    allowed = np.concatenate([[True], last])
    best = int(np.argmax(np.where(allowed, gains, -np.inf)))
    if best == 0:
        return float(doubt.min()) - 1.0 if len(doubt) else 0.0
    if best == len(order):
        return float(doubt[order[-1]])
    return float((doubt[order[best - 1]] + doubt[order[best]]) / 2)
