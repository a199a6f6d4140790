"""Put an adapter of peft on a trunk: which layers, and what peft says in words of ours."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from penjing.errors import NotSupported
from penjing.models.four_bit import let_go
from penjing.models.layers import linears_of


def wrapped(trunk: nn.Module, config: Any) -> nn.Module:
    """The trunk with the adapter that a peft config describes; only the adapter trains.

    Raises:
        NotSupported: peft cannot put it on this base, with peft's own reason.
    """
    from peft import get_peft_model

    kind = config.peft_type.value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about layouts that peft sets right itself, and about itself
            made: nn.Module = get_peft_model(trunk, config)
    except (ValueError, TypeError, NotImplementedError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0][:240] if str(error).strip() else type(error).__name__
        raise NotSupported(
            f"{kind} was to be put on {type(trunk).__name__}; peft cannot do it: {reason} Change the "
            f"method's settings, or take another method: `penjing list methods` says which bases "
            f"each works on."
        ) from error
    if not any(p.requires_grad for p in made.parameters()):
        raise NotSupported(
            f"{kind} was to be put on {type(trunk).__name__}; nothing of it would train. Take another "
            f"method: `penjing list methods` says which bases each works on."
        )
    return made


def targets_of(trunk: nn.Module, wanted: str | list[str], key: str) -> list[str]:
    """Full names of the linear layers that `wanted` means: `all`, those of `attention`, or ends of names.

    Raises:
        NotSupported: a name that matches no linear layer. `key` is the setting to name.
    """
    linear = linears_of(trunk)
    if isinstance(wanted, str):
        names = linears_of(trunk, attention_only=wanted == "attention")
        lost = []
    else:
        names = [n for n in linear if any(n == w or n.endswith(f".{w}") for w in wanted)]
        lost = [w for w in wanted if not any(n == w or n.endswith(f".{w}") for n in linear)]
    if lost or not names:
        some = sorted({n.rpartition(".")[2] for n in linear})
        raise NotSupported(
            f"`{key}` {lost or wanted} match no linear layer of {type(trunk).__name__}; these are named "
            f"{', '.join(some)}. Take some of them, or `targets: all`."
        )
    return names


def merged(trunk: Any) -> nn.Module:
    """The base with the adapter's change added into its weights; `trunk` itself is used up.

    Raises:
        NotSupported: what was learned is no change of the base's weights, or is not finite.
    """
    if not hasattr(trunk, "peft_config"):
        return trunk  # type: ignore[no-any-return]
    kind = trunk.peft_config["default"].peft_type.value
    let_go(trunk)
    try:
        whole: nn.Module = trunk.merge_and_unload(safe_merge=True)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise NotSupported(
            f"{kind} was to be merged into {type(trunk.get_base_model()).__name__}; peft cannot do it: "
            f"{error} Use the bundle as it is, over its base."
        ) from error
    whole.__dict__.pop("peft_config", None)  # peft leaves its mark, and nothing of it is left to run
    return whole
