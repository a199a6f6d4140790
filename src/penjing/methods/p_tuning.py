"""P-tuning: a prompt through an encoder (Liu et al. 2021, arXiv 2103.10385), or deep prompts (2110.07602)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from penjing.errors import SpecError
from penjing.models.prefix import put_before
from penjing.models.prompting import Prompt, beginning, perceptron, recurrent
from penjing.records import Method


def p_tuning(
    *,
    version: Literal[1, 2] = 2,
    tokens: int = 20,
    encoder: Literal["lstm", "mlp"] | None = None,
    hidden: int | None = None,
    layers: int | None = None,
) -> Method:
    """Train virtual tokens through an encoder (version 1), or deep prompts in every layer (version 2).

    version: 2 is prefix tuning from random keys and values. tokens: how many; texts may be that much shorter.
    encoder: of version 1, `lstm` when not given; what it gives is saved, not itself. hidden: its width, the
    base's when not given. layers: of the LSTM, 2 when not given.
    """
    if tokens < 1:
        raise SpecError(f"`p_tuning.tokens` must be at least 1; it is {tokens}. 10 to 100 are usual.")
    given = {"encoder": encoder, "hidden": hidden, "layers": layers}
    idle = list(given) if version == 2 else ["layers"] if encoder == "mlp" else []
    for name in idle:
        if given[name] is not None:
            why = "version 2 has no encoder" if version == 2 else "only the LSTM has layers"
            raise SpecError(f"`p_tuning.{name}` is {given[name]!r}; {why}. Leave it out.")
    for name, value in (("hidden", hidden), ("layers", layers)):
        if value is not None and value < 1:
            raise SpecError(f"`p_tuning.{name}` must be at least 1; it is {value}. Leave it out.")

    def apply(trunk: Any) -> nn.Module:
        if version == 2:
            put_before(trunk, tokens, "random")
            return trunk
        trunk.requires_grad_(False)
        start = beginning(trunk, tokens, "random")
        width = start.shape[1]
        with torch.device(start.device):
            made = (
                perceptron(width, hidden or width)
                if encoder == "mlp"
                else recurrent(width, hidden or width, layers or 2)
            )
        trunk.added = Prompt(start, made)
        return trunk

    return Method("p_tuning", apply, lr=1e-2, saves="peft", keeps_start=False, virtual=tokens)
