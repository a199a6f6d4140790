"""Quick LoRA layers give what peft's own give, in fewer passes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from penjing.methods.lora import lora
from penjing.models import packing
from penjing.models.load import Base, load
from penjing.models.lowrank import quicken

Tiny = Callable[..., Path]


def adapted(folder: Path, **settings: object) -> tuple[Base, nn.Module]:
    """A base with an adapter that does something."""
    base = load(str(folder))
    trunk = lora(rank=2, **settings).apply(base.trunk)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trunk.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=generator)
    return base, trunk


def run(base: Base, trunk: nn.Module) -> Tensor:
    return packing.run(trunk, base.way, torch.arange(40, 70), [10, 20])


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "mpnet"])
def test_outputs_and_gradients_are_those_of_peft(family: str, tiny: Tiny) -> None:
    base, trunk = adapted(tiny(family))
    trunk.eval()
    found = []
    for quick in (False, True):
        assert bool(quicken(trunk)) == quick if quick else True
        trunk.zero_grad()
        out = run(base, trunk)
        out.square().mean().backward()
        found.append((out.detach(), [p.grad.clone() for p in trunk.parameters() if p.grad is not None]))
    (wanted, wanted_grads), (out, grads) = found
    assert torch.allclose(out, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    for mine, theirs in zip(grads, wanted_grads, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_switching_the_adapter_off_gives_the_base(tiny: Tiny) -> None:
    base, trunk = adapted(tiny("bert"))
    quicken(trunk.eval())
    with torch.no_grad(), trunk.disable_adapter():  # type: ignore[operator]
        off = run(base, trunk)
    plain = load(str(tiny("bert")))
    with torch.no_grad():
        assert torch.equal(off, run(plain, plain.trunk.eval()))


@pytest.mark.parametrize("settings", [{"dropout": 0.2}, {"dora": True}])
def test_layers_that_do_more_keep_their_own_forward(settings: dict[str, object], tiny: Tiny) -> None:
    _, trunk = adapted(tiny("bert"), **settings)
    assert quicken(trunk) == 0


def test_a_second_call_changes_nothing(tiny: Tiny) -> None:
    _, trunk = adapted(tiny("bert"))
    assert quicken(trunk) > 0
    assert quicken(trunk) == 0


def test_a_base_weight_that_trains_gets_its_gradient(tiny: Tiny) -> None:
    base, trunk = adapted(tiny("bert"))
    bias = next(p for n, p in trunk.named_parameters() if n.endswith("query.base_layer.bias"))
    bias.requires_grad_(True)
    quicken(trunk.eval())
    run(base, trunk).square().mean().backward()
    assert bias.grad is not None
    assert bias.grad.abs().sum() > 0
