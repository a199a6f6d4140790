"""What is odd about a job, in words: ends of rows that are cut, a base of another language, a rate that stays
low."""

from __future__ import annotations

import numpy as np

from penjing.keys import TrainSpec
from penjing.models.load import Base
from penjing.plural import counted
from penjing.records import Part, Rows

SAMPLED = 1_000_000  # tokens that are looked at, evenly from all
MANY_UNKNOWN = 0.1  # share of unknown tokens from which on a base is of another language


def odd(train: Part, valid: Part, limit: int, base: Base) -> list[str]:
    """All that is odd about the tokens of a job's rows."""
    cut = [
        cut_said(part.tokens.cut, f"{name} row", limit)
        for name, part in (("train", train), ("validation", valid))
    ]
    return [text for text in (*cut, unknown_said(train.tokens.ids, base)) if text]


def cut_said(n_cut: int, name: str, limit: int) -> str:
    """That so many of what is called so lose their ends; empty where none does."""
    if not n_cut:
        return ""
    theirs = "its end is" if n_cut == 1 else "their ends are"
    are = counted(n_cut, f"{name} is", f"{name}s are")
    return f"{are} longer than {limit} tokens; {theirs} cut"


def laid_said(part: Part, rows: Rows, name: str) -> list[str]:
    """What reading `rows` of a split as tokens showed: what was left out, moved or cut."""
    return [f"{name} rows: {note}" for note in part.rows.notes[len(rows.notes) :]]


def warm_up_said(settings: TrainSpec, steps: int) -> str:
    """That the warm-up takes every step, so that the rate never reaches its peak; empty where it does not."""
    if steps > settings.warmup or settings.warmup < 1 or not steps:
        return ""
    return (
        f"`train.warmup` is {settings.warmup:g} steps and the run makes {steps:,}: the rate never reaches "
        "its peak (a share below 1, such as 0.1, fits any run)"
    )


def unknown_said(ids: np.ndarray, base: Base) -> str:
    """That the base does not know the rows' language, by the share of tokens it has no word for; empty where
    it does."""
    unknown = getattr(base.tokenizer, "unk_token_id", None)
    if unknown is None or not len(ids):
        return ""
    share = float((ids[:: max(1, len(ids) // SAMPLED)] == unknown).mean())
    if share <= MANY_UNKNOWN:
        return ""
    return (
        f"{share:.0%} of the train tokens are unknown to `{base.name}`: take a base of this language "
        "(`base:` and the folder of its checkpoint)"
    )
