"""Heads and units taken out: the same answers as zeroing them, in the shapes that transformers would make."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressed import answers, held_of
from conftest import tickets
from penjing.compressor import Held
from penjing.errors import NotSupported
from penjing.models.skeleton import differs
from penjing.models.slim import Site, describe, narrow, sites_of

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(6)]
KEPT = {4: [0, 3], 2: [1], 64: [*range(8), *range(40, 64)]}  # of so many units


def masked_answers(held: Held, sites: list[Site], kept: list[list[int]]) -> Tensor:
    """The answers with the inputs of each `last` multiplied by 0 where a unit goes, by hooks."""

    def hook(mask: Tensor) -> Callable[..., tuple[Tensor]]:
        return lambda module, given: (given[0] * mask,)

    handles = []
    for site, some in zip(sites, kept, strict=True):
        mask = torch.zeros(site.n, site.size)
        mask[some] = 1
        last: nn.Module = held.model.trunk.get_submodule(site.last)
        handles.append(last.register_forward_pre_hook(hook(mask.flatten())))
    try:
        return answers(held, TEXTS)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("attention", [True, False], ids=["heads", "units"])
@pytest.mark.parametrize(
    "family",
    ["bert", "gpt2", "llama", "distilbert", "modernbert", "qwen3", "electra", "roberta"],
)
def test_taking_units_out_is_zeroing_them(family: str, attention: bool, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    trunk = held.model.trunk
    sites = sites_of(trunk, attention=attention)
    assert [site.layer for site in sites] == [1, 2]
    assert sites[0].n == ({"llama": 2, "qwen3": 2}.get(family, 4) if attention else sites[0].n)
    kept = [KEPT.get(site.n, [*range(0, site.n, 3)]) for site in sites]
    wanted = masked_answers(held, sites, kept)
    before = sum(p.numel() for p in trunk.parameters())
    for site, some in zip(sites, kept, strict=True):
        narrow(trunk, site, some)
    assert [site.n for site in sites_of(trunk, attention=attention)] == [len(some) for some in kept]
    torch.testing.assert_close(answers(held, TEXTS), wanted, rtol=1e-6, atol=1e-6)
    assert sum(p.numel() for p in trunk.parameters()) < before
    plain = describe(trunk, sites)
    assert plain == (not attention or family in ("llama", "qwen3"))
    assert bool(differs(trunk)) != plain
    torch.testing.assert_close(answers(held, TEXTS), wanted, rtol=1e-6, atol=1e-6)


def test_unequal_layers_are_said_beside_the_config(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    trunk, sites = held.model.trunk, sites_of(held.model.trunk, attention=False)
    narrow(trunk, sites[0], [0, 1, 2])
    assert not describe(trunk, sites)
    assert trunk.config.intermediate_size == 64
    layer = "encoder.layer.0"
    assert {*differs(trunk)} == {f"{layer}.intermediate.dense", f"{layer}.output.dense"}


def test_layers_that_share_weights_are_refused(tiny: Tiny) -> None:
    held = held_of(tiny("albert"))
    with pytest.raises(NotSupported, match="Layers with weights of their own"):
        sites_of(held.model.trunk, attention=True)
