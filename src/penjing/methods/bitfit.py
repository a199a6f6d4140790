"""BitFit: train the biases only (Ben Zaken et al. 2021, arXiv 2106.10199)."""

from __future__ import annotations

from typing import Any

from torch import nn

from penjing.errors import NotSupported
from penjing.records import Method


def bitfit() -> Method:
    """Train every bias of the base, norms' included, and the head."""

    def apply(trunk: Any) -> nn.Module:
        n_biases = 0
        for name, parameter in trunk.named_parameters():
            parameter.requires_grad_(name.rpartition(".")[2] == "bias")
            n_biases += parameter.requires_grad
        if not n_biases:
            raise NotSupported(
                f"BitFit trains biases; {type(trunk).__name__} has none. Take `method: lora`, or "
                f"`{{top: {{layers: 2}}}}`."
            )
        return trunk

    return Method("bitfit", apply, lr=2e-3, saves="changed")
