"""SmoothQuant: the inputs' outlying channels are made smaller and the weights that meet them larger, before
both are rounded to int8. Xiao et al. 2022, arXiv 2211.10438, equation 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import Ranges
from penjing.compressors.eight_bits import calibrated, moved_by
from penjing.errors import SpecError

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST = 1e-5  # of an input's or a weight's greatest value


def smoothquant(
    *,
    alpha: float | None = None,
    static: bool = True,
    clip: bool = False,
    embeddings: bool = True,
    keep: float | list[str] = 0.0,
    rows: int = 256,
) -> Compressor:
    """Hold linears in int8 and compute in int8, each channel of the inputs divided by
    max|x|^alpha / max|w|^(1 - alpha).

    Where a norm's output goes to these layers alone the norm divides, else the layers do.

    Args:
        alpha: how much of the difficulty goes from the inputs to the weights; null, for each layer what moves
            its outputs least (the paper takes 0.5 for all).
        static: one scale for all tokens, found on the rehearsal's texts; else one a token as it comes.
        clip: a static grid spans the share of what was seen that moves inputs least; else all of it.
        embeddings: hold the word table in int8, too, unless the head says words with it.
        keep: the share of linears, those that hurt the answers most, or names such as `["*.output.dense"]`,
        that
            stay in fp32.
        rows: of the train rows, so many are looked at.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise SpecError(
            f"`smoothquant.alpha` must lie in 0..1; it is {alpha}. The paper takes 0.5; null tries several."
        )
    if clip and not static:
        raise SpecError(
            "`smoothquant.clip` is of static grids; `static` is false, where each token has its own. Leave "
            "one of them out."
        )

    def factors(seen: Ranges, weights_OI: Sequence[Tensor]) -> Tensor:
        met = torch.stack([weight.abs().amax(0) for weight in weights_OI]).amax(0)
        if alpha is not None:
            return smoothing(seen.largest, met, alpha)
        tried = [smoothing(seen.largest, met, one) for one in ALPHAS]
        return min(tried, key=lambda by: moved_by(seen, weights_OI, by, static=static))

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        return calibrated(
            held, rehearsal, static=static, clip=clip, embeddings=embeddings, keep=keep, factors=factors
        )

    return Compressor("smoothquant", shrink, wants="texts", rows=rows)


def smoothing(inputs_I: Tensor, weights_I: Tensor, alpha: float) -> Tensor:
    """(I,) factors of the greatest |x| and |w| of each channel."""
    powers = inputs_I.clamp_min(SMALLEST) ** alpha / weights_I.clamp_min(SMALLEST) ** (1 - alpha)
    return powers.clamp_min(SMALLEST)
