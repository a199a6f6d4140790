"""(IA)^3: learned factors on keys, values and the feed-forward's inner activation (Liu et al. 2022,
arXiv 2205.05638), by peft.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from penjing.models.layers import keys_and_values_of, sublayers_of
from penjing.models.wrap import wrapped
from penjing.records import Method


def ia3() -> Method:
    """Train a factor, 1 at first, for each channel of keys, values and the feed-forward's inner activation.

    Where one layer makes queries, keys and values at once (GPT-2, ModernBERT), all its outputs have factors,
    as in peft; a gated feed-forward (Llama) has them on what its last layer reads.
    """

    def apply(trunk: Any) -> nn.Module:
        from peft import IA3Config

        inner = [place.last for place in sublayers_of(trunk) if not place.attention]
        names = [*keys_and_values_of(trunk), *inner]
        made = wrapped(trunk, IA3Config(target_modules=names, feedforward_modules=inner))
        for name, parameter in made.named_parameters():
            if "ia3_l" in name:  # (n, 1) or (1, n), and to decay is to leave 1
                parameter.is_vector = True  # type: ignore[attr-defined]
        return made

    return Method("ia3", apply, lr=1e-2, saves="peft")
