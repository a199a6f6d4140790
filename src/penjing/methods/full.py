"""Full fine-tuning: every weight of the base trains."""

from __future__ import annotations

from typing import Any

from torch import nn

from penjing.records import Method


def full() -> Method:
    """Train every weight of the base."""

    def apply(trunk: Any) -> nn.Module:
        trunk.requires_grad_(True)
        return trunk

    return Method("full", apply, lr=1e-4, saves="full", by_width=1.0)
