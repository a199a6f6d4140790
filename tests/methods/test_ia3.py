"""(IA)^3: where its factors stand, found by names and proved here by gradients; its arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import FAMILIES, told
from penjing.errors import NotSupported
from penjing.methods.ia3 import ia3
from penjing.models import packing
from penjing.models.layers import keys_and_values_of, layers_of, linears_of, sublayers_of
from penjing.models.load import load

Tiny = Callable[..., Path]


def seen_by_others(trunk: nn.Module, way: Any) -> list[str]:
    """Linear layers of the top layer whose outputs at the first token move the last token's state.

    Only through keys and values does one token see another within a layer.
    """
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            out.retain_grad()
            outputs[name] = out  # a layer that is gone through often is noted the last time

        return hook

    for name in linears_of(trunk):
        trunk.get_submodule(name).register_forward_hook(note(name))
    state = packing.run(trunk.eval(), way, torch.tensor([40, 50, 60]), [3])
    state[-1].square().sum().backward()
    top = {name for name in outputs if _gradient_at_first(outputs[name])}
    own = [name for name in linears_of(trunk) if name in top]
    blocks = len(layers_of(trunk))
    return own[-len(own) // blocks :] if blocks > 1 else own


def _gradient_at_first(out: Tensor) -> bool:
    assert out.grad is not None
    return bool(out.grad.reshape(-1, out.shape[-1])[0].any())


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_what_other_tokens_see(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    found = keys_and_values_of(base.trunk)
    last = max(int(name.split(".")[_place(base.trunk)]) for name in found)
    inside = [name for name in found if int(name.split(".")[_place(base.trunk)]) == last]
    seen = [n for n in seen_by_others(base.trunk, base.way) if int(n.split(".")[_place(base.trunk)]) == last]
    assert seen == inside


def _place(trunk: nn.Module) -> int:
    """Where in a name the layer's number stands."""
    first = sublayers_of(trunk)[0].first
    return next(i for i, word in enumerate(first.split(".")) if word.isdigit())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_factor_scales_keys_values_and_what_the_last_layer_reads(family: str, tiny: Tiny) -> None:
    trunk: Any = ia3().apply(load(str(tiny(family))).trunk)
    plain = load(str(tiny(family))).trunk
    adapted = [n for n, m in trunk.named_modules() if "default" in getattr(m, "ia3_l", ())]
    assert adapted
    for name in adapted:
        layer = trunk.get_submodule(name)
        linear = plain.get_submodule(name.removeprefix("base_model.model."))
        factor = layer.ia3_l["default"].data.uniform_(0.5, 2.0).flatten()
        weight = linear.weight.T if type(linear).__name__ == "Conv1D" else linear.weight
        x = torch.randn(3, weight.shape[1])
        bias = linear.bias if linear.bias is not None else torch.zeros(len(weight))
        wanted = (x * factor) @ weight.T + bias if layer.is_feedforward else (x @ weight.T + bias) * factor
        assert torch.allclose(layer(x), wanted, atol=1e-5), name


def test_an_attention_of_another_make_is_refused(tiny: Tiny) -> None:
    trunk: Any = load(str(tiny("bert"))).trunk
    for layer in trunk.encoder.layer:
        layer.attention.self.other = layer.attention.self.key
        del layer.attention.self.key
    with pytest.raises(NotSupported) as error:
        ia3().apply(trunk)
    told(error, "keys and values", "BertModel", "query, value, other, dense", "`method: lora`")
