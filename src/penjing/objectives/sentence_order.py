"""Sentence-order prediction: do two parts of a text stand in their order?  Lan et al. 2019 (ALBERT, arXiv
1909.11942, section 3.1)."""

from __future__ import annotations

from penjing.data.neighbours import swapped
from penjing.models.sentences import sentence_task
from penjing.task import Task


def sentence_order(*, head_dropout: float = 0.1) -> Task:
    """Say whether two parts of a text stand in their order or were exchanged.

    Pieces are cut in two at random; half of the pairs are made wrong. head_dropout: before the last layer.
    """
    return sentence_task("sentence_order", swapped, head_dropout)
