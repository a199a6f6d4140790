"""Any other adapter that the installed peft has, by peft's own name and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from torch import nn

from penjing.errors import NotSupported, SpecError, nearest
from penjing.models.layers import linears_of
from penjing.models.wrap import wrapped
from penjing.records import Method

# Types that methods/ has a file for: there they get what peft alone does not give them.
OWN = {
    "LORA": "lora",
    "ADALORA": "adalora",
    "IA3": "ia3",
    "PREFIX_TUNING": "prefix",
    "PROMPT_TUNING": "prompt",
    "P_TUNING": "p_tuning",
}
# Types that the loop or packed execution cannot carry, and why.
UNFIT = {
    "ADAPTION_PROMPT": "it replaces the attention that packed execution runs",
    "CARTRIDGE": "it learns a cache for one text, not a task",
    "CPT": "it learns prompts of a causal language model",
    "MULTITASK_PROMPT_TUNING": "it needs several tasks and their numbers in each batch",
    "OSF": "it rewrites the weights of the base, and saves no adapter",
    "POLY": "it needs the numbers of tasks in each batch",
    "SHADOW": "it runs a second model beside the base",
    "TRAINABLE_TOKENS": "it trains rows of the word table, which hold no adapter",
    "XLORA": "it mixes adapters that exist already",
}
# Fields of every config that the run decides.
TAKEN = {"peft_type", "task_type", "inference_mode", "base_model_name_or_path", "auto_mapping", "revision"}
TAKEN |= {"peft_version", "modules_to_save"}


def peft(*, peft_type: str, **settings: Any) -> Method:
    """Train an adapter of peft, such as VERA, OFT, LOHA or LN_TUNING, with peft's own settings.

    peft_type: its name in peft, in any case. All other settings are those of its config in peft; its target
    modules are all linear layers of the trunk (for LN_TUNING the norms) when not given.
    """
    name = peft_type.upper()
    kind = _config_of(name)
    _check(name, kind, settings)

    def apply(trunk: Any) -> nn.Module:
        return wrapped(trunk, _made(kind, {"target_modules": _targets(name, trunk), **settings}))

    return Method("peft", apply, lr=2e-3, saves="peft", keeps_start=False)


def _config_of(name: str) -> Any:
    """The config class of a type."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    if name in OWN:
        raise SpecError(f"`peft.peft_type` {name} has a method of its own. Say `method: {OWN[name]}`.")
    if name in UNFIT:
        raise NotSupported(
            f"`peft.peft_type` {name} cannot be trained here: {UNFIT[name]}. Take another type."
        )
    known = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    fit = sorted(known.keys() - OWN.keys() - UNFIT.keys())
    if name not in known:
        raise SpecError(
            f"`peft.peft_type` {name} is not a type that the installed peft has.{nearest(name, fit)} It has "
            f"{', '.join(fit)}."
        )
    return known[name]


def _check(name: str, kind: Any, settings: Mapping[str, Any]) -> None:
    """Names and types of the settings against the config's fields."""
    from pydantic import TypeAdapter, ValidationError

    fields = {field.name for field in dataclasses.fields(kind)} - TAKEN
    hints = get_type_hints(kind)
    for key, value in settings.items():
        if key not in fields:
            raise SpecError(
                f"`peft.{key}` is not a setting of peft's {kind.__name__}.{nearest(key, fields)} It has "
                f"{', '.join(sorted(fields))}."
            )
        try:
            TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            raise SpecError(
                f"`peft.{key}` must be {hints[key]}; it is {value!r} ({error.errors()[0]['msg']}). See "
                f"{kind.__name__} in peft's documentation."
            ) from error


def _targets(name: str, trunk: nn.Module) -> list[str]:
    if name == "LN_TUNING":
        return [n for n, m in trunk.named_modules() if type(m).__name__.endswith("Norm")]
    return linears_of(trunk)


def _made(kind: Any, settings: Mapping[str, Any]) -> Any:
    try:
        return kind(**settings)
    except (ValueError, TypeError) as error:
        raise SpecError(
            f"`method.peft` cannot make a {kind.__name__} of {dict(settings) | {'target_modules': '…'}}: "
            f"{error} See {kind.__name__} in peft's documentation."
        ) from error
