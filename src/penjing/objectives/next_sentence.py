"""Next-sentence prediction: does the second part follow the first, or is it of another document?

Devlin et al. 2018 (arXiv 1810.04805). Topics give the answer away, so `sentence_order` teaches more (Lan et
al. 2019, table 5)."""

from __future__ import annotations

from penjing.data.neighbours import foreign
from penjing.models.sentences import sentence_task
from penjing.task import Task


def next_sentence(*, head_dropout: float = 0.1) -> Task:
    """Say whether the second part of a text follows the first or comes from another document.

    Pieces are cut in two at random; half of the pairs are made wrong. head_dropout: before the last layer.
    """
    return sentence_task("next_sentence", foreign, head_dropout)
