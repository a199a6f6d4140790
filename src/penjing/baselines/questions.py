"""The cheap baseline of questions about a text: the sentence that shares most with the question, and in it
the words nearest to those of the question that the question does not have (as the sliding window of
Richardson et al. 2013, weighted by how rare words are).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from penjing.data.entities import Place, words_of
from penjing.data.questions import Question

_SENTENCE = re.compile(r"[^.!?。！？；\n]*(?:[.!?](?!\s)[^.!?。！？；\n]*)*[.!?。！？；\n]?")
NEAR = 8  # words from which on a word of the question hardly helps

Found = tuple[
    int, int, float
]  # first character, the one after the last, how much of the question is met, 0..1


def fit_questions(items: Sequence[Question]) -> Callable[[Sequence[Question]], list[Found]]:
    """A function from questions to where their answers may stand. What is learned of train rows is how rare
    words are, and how many of them answers usually have."""
    texts = list(dict.fromkeys(item.context for item in items))
    counts = Counter(word for text in texts for word in {w for w, _ in _words(text)})
    weights = {word: float(np.log((1 + len(texts)) / (0.5 + n))) for word, n in counts.items()}
    rarest = float(np.log(2 * (1 + len(texts))))
    sizes = [len(words_of(answer.text)) for item in items for answer in item.answers[:1]]
    usual = max(1, round(float(np.median(sizes)))) if sizes else 3

    def one(item: Question) -> Found:
        wanted = {word: max(0.0, weights.get(word, rarest)) for word, _ in _words(item.question)}
        words = _words(item.context)
        first, last, met = _sentence(item.context, words, wanted)
        a, b = _span(words[first:last], wanted, usual)
        if a == b:
            return 0, 0, 0.0
        return words[first + a][1][0], words[first + b - 1][1][1], met

    return lambda asked: [one(item) for item in asked]


def _words(text: str) -> list[tuple[str, Place]]:
    places = words_of(text)
    return [(text[a:b].lower(), (a, b)) for a, b in places if text[a].isalnum() or b - a > 1]


def _sentence(text: str, words: list[tuple[str, Place]], wanted: dict[str, float]) -> tuple[int, int, float]:
    """(first word, the one after the last, share of the question's weight) of the sentence nearest to it."""
    best = (0, len(words), -1.0)
    at = 0
    whole = sum(wanted.values()) or 1.0
    for match in _SENTENCE.finditer(text):
        first = at
        while at < len(words) and words[at][1][0] < match.end():
            at += 1
        met = sum(wanted.get(word, 0.0) for word in {word for word, _ in words[first:at]}) / whole
        if at > first and met > best[2]:
            best = (first, at, met)
    return best[0], best[1], max(0.0, best[2])


def _span(words: list[tuple[str, Place]], wanted: dict[str, float], usual: int) -> tuple[int, int]:
    """The run of `usual` words with the most of the question around it and the least of it inside."""
    n = len(words)
    size = min(usual, n)
    if not n:
        return 0, 0
    inside = np.array([wanted.get(word, 0.0) for word, _ in words])
    places = np.arange(n)
    around = np.array([(inside / (1 + np.minimum(np.abs(places - p), NEAR))).sum() for p in places])
    gain = np.convolve(around - 3 * inside, np.ones(size), mode="valid")
    first = int(gain.argmax())
    return first, first + size
