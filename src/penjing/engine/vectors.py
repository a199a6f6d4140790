"""Vectors of texts, by a model whose head makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penjing.data.tokenize import tokenize
from penjing.engine.scoring import over
from penjing.errors import DataError, NotSupported
from penjing.models.ensemble import Ensemble
from penjing.models.model import Model
from penjing.records import Tokens


def vectors(
    model: Model | Ensemble,
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    *,
    tokens: int = 8192,
    who: str = "the model",
) -> np.ndarray:
    """(n, D) float32, of length one, in the texts' order; at most `tokens` are computed at once.

    Raises:
        NotSupported: the head makes no vectors of texts alone; `who` names the model.
        DataError: a text has no token at all.
    """
    read = vector_tokens(model, tokenizer, texts, max_length, who=who)
    head: Any = model.head
    states: Any = model.states
    return over(model, read, lambda batch: head.embed(states(batch), batch.lengths), tokens=tokens).numpy()


def vector_tokens(
    model: Model | Ensemble, tokenizer: Any, texts: Sequence[str], max_length: int, *, who: str = "the model"
) -> Tokens:
    """The texts as they are read to make vectors of them; raises as `vectors` does."""
    head: Any = model.head if isinstance(model, Model) else None
    if not hasattr(head, "embed"):
        raise NotSupported(
            f"Vectors of texts were wanted; {who} makes none. Tune with `task: embed`, or with `task: "
            f"{{pair: {{how: two_tower}}}}`."
        )
    read = tokenize(tokenizer, texts, max_length=max_length, cache=False)
    empty = np.flatnonzero(read.lengths == 0)
    if len(empty):
        raise DataError(
            f"Text {empty[0] + 1} of {len(texts)} is {texts[empty[0]]!r}, and this base's tokenizer makes no "
            f"token of it; {len(empty)} are so. Leave such texts out."
        )
    return read
