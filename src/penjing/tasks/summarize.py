"""Summarization: what matters of a text, scored by ROUGE (Chinese by characters)."""

from __future__ import annotations

from penjing.task import Task
from penjing.tasks.generate import TRAIN, decoding_of, said_task

__all__ = ["TRAIN", "summarize"]


def summarize(
    *,
    prefix: str = "",
    behind: str = "\n",
    longest: int = 128,
    beams: int = 1,
    length_penalty: float = 1.0,
    no_repeat: int = 0,
    repetition_penalty: float = 1.0,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Task:
    """Say what matters of a text, learned from pairs; ROUGE-L picks the best.

    prefix: what stands before each source, such as T5's `summarize: `. behind: what stands between source and
    answer where one decoder reads both. longest: tokens of an answer. beams, length_penalty, no_repeat,
    repetition_penalty: as in generation, whenever an answer is found.
    source_language, target_language: of a base that knows several (mBART, NLLB, M2M100), its codes, such as
    `en_XX` or `eng_Latn`; of most summaries both are the same.
    """
    how = decoding_of(longest, beams, length_penalty, no_repeat, repetition_penalty)
    languages = (source_language, target_language)
    return said_task("summarize", "rouge_l", prefix, behind, how, baseline="lead", languages=languages)
