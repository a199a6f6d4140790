"""Adapters merged into the base's weights give the same states."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common import stir, told
from contract import SETTINGS, states
from penjing import plugin
from penjing.errors import NotSupported
from penjing.methods.lora import lora
from penjing.methods.peft import peft
from penjing.models.load import load
from penjing.models.wrap import merged

Tiny = Callable[..., Path]
MERGING = [{"lora": {"rank": 3}}, {"lora": {"rank": 3, "dora": True}}, {"lora": {"rank": 3, "init": "pissa"}}]
MERGING += [{name: SETTINGS.get(name, {})} for name in ("adalora", "ia3", "peft")]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("chosen", MERGING, ids=str)
def test_merged_weights_give_the_same_states(chosen: Any, family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    trunk = plugin.build("methods", plugin.choice(chosen, kind="methods", key="method")).apply(base.trunk)
    stir(trunk, by=0.03)
    wanted = states(base, trunk)
    whole = merged(trunk)
    assert not hasattr(whole, "peft_config")
    assert {name for name, _ in whole.named_parameters()} == {
        name for name, _ in load(str(tiny(family))).trunk.named_parameters()
    }
    assert float((states(base, whole) - wanted).abs().max()) < 1e-5


def test_what_cannot_be_merged_is_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported) as error:
        merged(peft(peft_type="LILY", r=4).apply(load(str(tiny("bert"))).trunk))
    told(error, "LILY", "BertModel", "not supported", "over its base")


def test_weights_that_are_not_finite_are_not_merged(tiny: Tiny) -> None:
    trunk: Any = lora(rank=2).apply(load(str(tiny("bert"))).trunk)
    with torch.no_grad():
        next(p for n, p in trunk.named_parameters() if "lora_B" in n).fill_(float("nan"))
    with pytest.raises(NotSupported) as error:
        merged(trunk)
    told(error, "LORA", "BertModel", "NaN", "over its base")
