"""Prefix tuning: keys and values before those of every sequence (Li and Liang 2021, arXiv 2101.00190)."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from penjing.errors import SpecError
from penjing.models.prefix import put_before
from penjing.records import Method


def prefix(
    *,
    tokens: int = 20,
    init: Literal["vocabulary", "text", "random"] | None = None,
    text: str | None = None,
    hidden: int | None = None,
) -> Method:
    """Train keys and values that every layer's attention sees before the text's own.

    tokens: length of the prefix; texts may be that much shorter. init: begin with the keys and values that
    the base has for random words (`vocabulary`, when not given) or for the words of `text`, or at `random`.
    text: such as `classify this support ticket`, with `init: text`. hidden: width of a network that makes the
    prefix while it trains, which steadies it at random beginnings (the paper's way); only what it gives is
    saved.
    """
    if tokens < 1:
        raise SpecError(f"`prefix.tokens` must be at least 1; it is {tokens}. 10 to 100 are usual.")
    if (init == "text") != bool(text):
        raise SpecError(
            f"`prefix.text` is {text!r} and `prefix.init` is `{init}`; the one needs the other. Give both "
            "`init: text` and a text, or neither."
        )
    if hidden is not None and (hidden < 1 or init not in (None, "random")):
        raise SpecError(
            f"`prefix.hidden` is {hidden} with `init: {init}`; it must be at least 1, and a network cannot "
            "begin at given keys and values. Leave out one of the two."
        )
    how = init or ("vocabulary" if hidden is None else "random")

    def apply(trunk: Any) -> nn.Module:
        put_before(trunk, tokens, how, text, hidden)
        return trunk

    return Method("prefix", apply, lr=1e-2, saves="peft", keeps_start=False, virtual=tokens)
