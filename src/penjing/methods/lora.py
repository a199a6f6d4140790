"""LoRA: low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685), by peft."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from torch import nn

from penjing.errors import NotSupported, SpecError
from penjing.models.layers import linears_of
from penjing.records import Method


def lora(
    *,
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Literal["all", "attention"] | list[str] = "all",
    rslora: bool = False,
    dora: bool = False,
) -> Method:
    """Train low-rank updates W + (alpha / rank) B A beside the frozen linear layers.

    rank: columns of A and B. alpha: scale, twice the rank when not given. dropout: on the updates' input.
    targets: `all` linear layers of the trunk, those of `attention`, or a list of module names (as in peft).
    rslora: divide by the square root of the rank. dora: learn the columns' norms apart.
    """
    if rank < 1:
        raise SpecError(f"`lora.rank` must be at least 1; it is {rank}. 8 to 32 are usual.")
    if alpha is not None and not alpha > 0:
        raise SpecError(f"`lora.alpha` must be above 0; it is {alpha}. Leave it out for twice the rank.")
    if not 0 <= dropout < 1:
        raise SpecError(
            f"`lora.dropout` must be at least 0 and below 1; it is {dropout}. 0 to 0.1 are usual."
        )

    def apply(trunk: Any) -> nn.Module:
        from peft import LoraConfig, get_peft_model

        if isinstance(targets, list):
            names = targets
        else:
            names = linears_of(trunk, attention_only=targets == "attention")
        linear = linears_of(trunk)
        lost = [n for n in names if not any(k == n or k.endswith(f".{n}") for k in linear)]
        if lost or not names:
            some = sorted({k.rpartition(".")[2] for k in linear})
            raise NotSupported(
                f"`lora.targets` {lost or targets} match no linear layer of {type(trunk).__name__}; these "
                f"are named {', '.join(some)}. Take some of them, or `targets: all`."
            )
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha if alpha is not None else 2 * rank,
            lora_dropout=dropout,
            target_modules=names,
            use_rslora=rslora,
            use_dora=dora,
        )
        with warnings.catch_warnings():
            # both are peft's own, and not the user's to mend
            warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
            return get_peft_model(trunk, config)

    return Method("lora", apply, lr=1e-3, saves="peft")
