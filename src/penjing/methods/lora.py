"""LoRA: low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685), by peft."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from penjing.errors import NotSupported, SpecError
from penjing.models.four_bit import hold
from penjing.models.mutated import keep_start
from penjing.models.wrap import targets_of, wrapped
from penjing.records import Method

MUTATING = ("pissa", "olora")  # begin at parts of the base's weights, which they take out of it


def lora(
    *,
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Literal["all", "attention"] | list[str] = "all",
    rslora: bool = False,
    dora: bool = False,
    init: Literal["kaiming", "gaussian", "orthogonal", "pissa", "olora"] = "kaiming",
    plus_ratio: float = 1.0,
    quantize: Literal["nf4"] | None = None,
) -> Method:
    """Train low-rank updates W + (alpha / rank) B A beside the frozen linear layers.

    rank: columns of A and B. alpha: scale, twice the rank when not given. dropout: on the updates' input.
    targets: `all` linear layers of the trunk, those of `attention`, or a list of module names (as in peft).
    rslora: divide by the square root of the rank. dora: learn the columns' norms apart.
    init: how A begins, B being 0 (`kaiming`, `gaussian`); `orthogonal` rows; or A and B are the base's main
    parts by singular values (`pissa`, arXiv 2404.02948) or QR (`olora`, arXiv 2406.01775), and train alone.
    plus_ratio: B's learning rate over A's (LoRA+, arXiv 2402.12354); its authors take 16, with a lower rate.
    quantize: hold the frozen layers in 4 bits (`nf4`: QLoRA, arXiv 2305.14314); less memory, slower steps.
    """
    if rank < 1:
        raise SpecError(f"`lora.rank` must be at least 1; it is {rank}. 8 to 32 are usual.")
    if alpha is not None and not alpha > 0:
        raise SpecError(f"`lora.alpha` must be above 0; it is {alpha}. Leave it out for twice the rank.")
    if not 0 <= dropout < 1:
        raise SpecError(
            f"`lora.dropout` must be at least 0 and below 1; it is {dropout}. 0 to 0.1 are usual."
        )
    if dora and init in MUTATING:
        raise SpecError(
            f"`lora.dora` and `lora.init: {init}` both change how the base's weights are seen; what is "
            f"learned could not be saved over the base as it came. Drop one."
        )

    if not plus_ratio > 0:
        raise SpecError(
            f"`lora.plus_ratio` must be above 0; it is {plus_ratio}. 1 is plain LoRA, 4 to 16 are usual."
        )
    if quantize and (dora or init in MUTATING):
        other = "lora.dora" if dora else f"lora.init: {init}"
        raise SpecError(
            f"`lora.quantize` holds the base's weights in 4 bits; `{other}` wants them as they "
            "came. Drop one."
        )

    def apply(trunk: Any) -> nn.Module:
        from peft import LoraConfig

        if init == "olora" and any(type(module).__name__ == "Conv1D" for module in trunk.modules()):
            raise NotSupported(
                f"`lora.init` is olora; peft factors the weights of {type(trunk).__name__} the wrong way "
                f"round (they are Conv1D). Take `init: pissa`, or leave it out."
            )
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha if alpha is not None else 2 * rank,
            lora_dropout=dropout,
            target_modules=targets_of(trunk, targets, "lora.targets"),
            use_rslora=rslora,
            use_dora=dora,
            init_lora_weights=True if init == "kaiming" else init,
        )
        made = wrapped(trunk, config)
        if init in MUTATING:
            keep_start(made)
        if plus_ratio != 1.0:
            for name, parameter in made.named_parameters():
                if "lora_B" in name:
                    parameter.rate_factor = plus_ratio  # type: ignore[attr-defined]
        return hold(made) if quantize else made

    keeps = init in ("kaiming", "gaussian") and not quantize
    return Method("lora", apply, lr=1e-3, saves="peft", by_width=0.5, keeps_start=keeps)
