"""Prompt tuning: vectors before the input learn what a prompt would say (Lester et al. 2021, 2104.08691)."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from penjing.errors import SpecError
from penjing.models.prompting import Prompt, beginning
from penjing.records import Method


def prompt(
    *,
    tokens: int = 20,
    init: Literal["vocabulary", "text", "random"] = "vocabulary",
    text: str | None = None,
) -> Method:
    """Train virtual tokens that stand before every text; the base stays as it is.

    tokens: how many; texts may be that much shorter. init: begin as random words of the `vocabulary`, as the
    words of `text`, or at `random`. text: such as `classify this support ticket`, with `init: text`.
    """
    if tokens < 1:
        raise SpecError(f"`prompt.tokens` must be at least 1; it is {tokens}. 10 to 100 are usual.")
    if (init == "text") != bool(text):
        raise SpecError(
            f"`prompt.text` is {text!r} and `prompt.init` is `{init}`; the one needs the other. Give both "
            "`init: text` and a text, or neither."
        )

    def apply(trunk: Any) -> nn.Module:
        trunk.requires_grad_(False)
        trunk.added = Prompt(beginning(trunk, tokens, init, text))
        return trunk

    return Method("prompt", apply, lr=3e-2, saves="peft", keeps_start=False, virtual=tokens)
