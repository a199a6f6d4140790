"""Attention heads that matter least are taken out (Michel et al. 2019, arXiv 1905.10650)."""

from __future__ import annotations

from typing import Literal

from penjing.compressor import Compressor
from penjing.compressors.narrowing import Asked, shrink


def prune_heads(
    *,
    share: float = 0.33,
    by: Literal["taylor", "activation"] = "taylor",
    even: bool = True,
    repair: bool = True,
    rows: int = 1024,
) -> Compressor:
    """Take the heads out that matter least; queries, keys, values and the layer behind become narrower.

    Heads that share keys and values go together. Llama, Qwen and ViT stay plain checkpoints with `even`; no
    config of BERT or GPT-2 has fewer heads of the same size, so such a bundle is penjing's own.

    share: of the heads that go. by: `taylor`, how much the loss hangs on a head by first order, from labelled
    rows; `activation`, how much it adds to the states, from texts. even: as many in every layer, else the
    least of all layers. repair: what is left says what it can of what goes, by least squares on the rows.
    rows: looked at.
    """
    asked = Asked("prune_heads", True, share, by, even, repair, rows)
    wants: Literal["labels", "texts"] = "labels" if by == "taylor" else "texts"
    return Compressor("prune_heads", lambda held, seen: shrink(held, seen, asked), wants=wants, rows=rows)
