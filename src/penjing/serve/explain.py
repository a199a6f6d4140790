"""Which words an answer came from: by how much its label falls when a word is left out (Li, Monroe and
Jurafsky 2016, "Understanding Neural Networks through Representation Erasure").

It looks at the model from outside alone, so it holds for every bundle that scores labels of a text, and asks
as many texts as there are words, in the same passes as all else. What two words say together only is not
seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from penjing.errors import NotSupported, SpecError
from penjing.serve.asked import Caller
from penjing.serve.service import Reply, Service

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+")  # a Chinese character is a word of its own


def words_of(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends, in characters; signs are none."""
    return [found.span() for found in WORD.finditer(text)]


def without(text: str, start: int, end: int) -> str:
    """The text less a word, and less the space that would stand twice."""
    if text[end : end + 1] == " " and (start == 0 or text[start - 1] == " "):
        end += 1
    return text[:start] + text[end:]


def spans_of(inputs: Sequence[Any], *, most: int) -> list[list[tuple[int, int]]]:
    """The words of each text that are left out in turn; of a text of one word none, as nothing would be left.

    Raises:
        NotSupported: not texts. SpecError: more words than `most`.
    """
    if not all(isinstance(text, str) for text in inputs):
        raise NotSupported(
            "Words were wanted that an answer came from; that is known of texts alone, and an input is none. "
            "Leave `explain` out."
        )
    spans = [words_of(text) for text in inputs]
    n_words = sum(map(len, spans))
    if n_words > most:
        raise SpecError(
            f"At most {most:,} words are explained at once; there are {n_words:,}. Send fewer or shorter "
            "texts."
        )
    return [own if len(own) > 1 else [] for own in spans]


async def explained(
    service: Service,
    reply: Reply,
    inputs: Sequence[Any],
    spans: Sequence[Sequence[tuple[int, int]]],
    *,
    caller: Caller,
    within_s: float | None,
) -> tuple[list[dict[str, Any]], int]:
    """The answers, each with `words`: start, end and effect of every word, which is how much the score of the
    label (of several: the likeliest) falls without it; below 0, it spoke against. And the tokens read for it.
    Of `within_s` there is what the answers left.

    Raises:
        NotSupported: the answers are no scores of labels.
    """
    scores = [one.get("scores") if isinstance(one, dict) else None for one in reply.answers]
    if not all(isinstance(known, dict) and known for known in scores):
        raise NotSupported(
            "Words were wanted that an answer came from; that is known of labels with scores, and "
            f"`{reply.opened.version.name}` is a bundle of `{reply.opened.bundle.task.name}`. Leave "
            "`explain` out."
        )
    asked = [without(text, *span) for text, own in zip(inputs, spans, strict=True) for span in own]
    answers: list[Any] = []
    n_tokens = 0
    if asked:
        seconds = max(0.0, min(within_s or service.within_s, service.within_s) - reply.seconds)
        answers, n_tokens, _ = await service.answered(reply.opened, "predict", asked, caller, seconds)
    found, others = [], iter(answers)
    for one, own, known in zip(reply.answers, spans, scores, strict=True):
        assert known is not None
        label = one.get("label") or max(known, key=known.__getitem__)
        words = [
            {"start": start, "end": end, "effect": known[label] - next(others)["scores"][label]}
            for start, end in own
        ]
        found.append({**one, "words": words})
    return found, n_tokens
