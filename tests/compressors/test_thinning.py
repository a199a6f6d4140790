"""Zeros in every linear layer of the stacks, as many as asked for, and layers told apart by what they err."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressed import answers, held_of, rehearsal_of, shrink
from conftest import tickets
from penjing.compressors.calibrating import plain_linears
from penjing.compressors.magnitude import magnitude
from penjing.compressors.sparsegpt import sparsegpt
from penjing.compressors.wanda import wanda
from penjing.models.slim import weight_of

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(24)]


@pytest.mark.parametrize("pattern", [None, "2:4"])
@pytest.mark.parametrize("step", [magnitude, wanda, sparsegpt])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_half_of_every_layers_weights_are_zero_exactly(
    family: str, step: Any, pattern: str | None, tiny: Tiny
) -> None:
    held = held_of(tiny(family))
    made = shrink(step(share=0.5, pattern=pattern), held, rehearsal_of(held, TEXTS))
    assert made.facts["zeros_share"] == 0.5
    for name in plain_linears(held):
        weight = weight_of(held.model.trunk, name)
        assert int((weight == 0).sum()) * 2 == weight.numel()
        assert pattern is None or bool(((weight.reshape(-1, 4) == 0).sum(1) == 2).all())
    assert step is magnitude or made.facts["error"] < made.facts["error_of_magnitude"]


@pytest.mark.parametrize("step", [magnitude, wanda, sparsegpt])
def test_at_a_share_of_nothing_answers_stay(step: Any, tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    before = answers(held, TEXTS)
    shrink(step(share=0.0), held, rehearsal_of(held, TEXTS))
    assert torch.equal(answers(held, TEXTS), before)


def test_each_layer_is_judged_by_what_the_thinned_ones_below_give(tiny: Tiny) -> None:
    """SparseGPT by hand: the first layer thinned alone, then the second by its new inputs."""
    whole, halves = held_of(tiny("gpt2")), held_of(tiny("gpt2"))
    shrink(sparsegpt(), whole, rehearsal_of(whole, TEXTS))
    trunk = halves.model.trunk
    second = {n: p.detach().clone() for n, p in trunk.named_parameters() if n.startswith("h.1.")}
    shrink(sparsegpt(), halves, rehearsal_of(halves, TEXTS))
    with torch.no_grad():  # the second layer as it was, and once more over the thinned first one
        for name, value in second.items():
            trunk.get_parameter(name).copy_(value)
    shrink(sparsegpt(), halves, rehearsal_of(halves, TEXTS))
    for name in second:
        torch.testing.assert_close(
            trunk.get_parameter(name), whole.model.trunk.get_parameter(name), rtol=1e-3, atol=1e-3
        )
