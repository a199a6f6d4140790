"""The contract of every compressor: what it gives is smaller, and a bundle holds it with equal outputs.

A new file in compressors/ is tested by its name alone; SETTINGS are what a base of two layers needs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressed import answers, held_of, rehearsal_of, reopened, shrink
from conftest import tickets
from penjing import plugin
from penjing.compressor import Compressor, Held
from penjing.engine.scoring import outputs
from penjing.errors import NotSupported
from penjing.models.layers import linears_of

Tiny = Callable[..., Path]
SETTINGS: dict[str, dict[str, Any]] = {}
SAME_SIZE = {"magnitude", "wanda", "sparsegpt"}  # their gain is zeros, which another step stores
# Compressor and family that cannot be, and say so: layers that share weights, or relative positions by head.
REFUSED = {("prune_heads", "albert"), ("prune_heads", "t5"), ("prune_ffn", "albert")}


def _prune(held: Held) -> None:
    for name in linears_of(held.model.trunk):
        weight = held.model.trunk.get_submodule(name).get_parameter("weight")
        weight[torch.rand(weight.shape) < 0.5] = 0


FIRST: dict[str, Callable[[Held], None]] = {"sparse": _prune}  # what must have happened to the model before
OWN = {"onnx", "openvino"}  # a graph takes long to make: test_graphs.py holds them to the same
COMPRESSORS = sorted(set(plugin.found("compressors")) - OWN)
TEXTS = [text for text, _ in tickets(12)]
NAMES = [label for _, label in tickets(12)]


def compressor_of(name: str) -> Compressor:
    made: Compressor = plugin.build("compressors", plugin.Choice(name, SETTINGS.get(name, {})))
    return made


def size_of(held: Held) -> int:
    """Bytes of all that a bundle holds of the model."""
    state = held.model.trunk.state_dict()
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in state.values()}.values())


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_compressor_shrinks_and_a_bundle_gives_the_same_answers(
    name: str, tiny: Tiny, tmp_path: Path
) -> None:
    step = compressor_of(name)
    assert (step.shrink is None) != (step.changes is None), "a step shrinks or trains"
    if step.shrink is None:
        return
    held = held_of(tiny("bert"))
    FIRST.get(name, lambda held: None)(held)
    before, old = size_of(held), answers(held, TEXTS)
    rehearsal = rehearsal_of(held, TEXTS, NAMES if step.wants == "labels" else None)
    made = shrink(step, held, rehearsal)
    after = size_of(made.held)
    assert after == before if name in SAME_SIZE else after < before
    found = answers(made.held, TEXTS)
    assert found.isfinite().all()
    assert not made.exact or torch.equal(found, old)
    assert not any(p.requires_grad for p in made.held.model.parameters())
    assert not made.held.model.training
    opened = reopened(made.held, tmp_path / "bundle")
    torch.testing.assert_close(outputs(opened.model, opened.tokens(TEXTS)), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "albert", "t5"])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_other_families_shrink_or_are_refused_and_batch_mates_change_no_answer(
    name: str, family: str, tiny: Tiny
) -> None:
    step = compressor_of(name)
    if step.shrink is None:
        return
    held = held_of(tiny(family))
    FIRST.get(name, lambda held: None)(held)
    rehearsal = rehearsal_of(held, TEXTS, NAMES if step.wants == "labels" else None)
    if (name, family) in REFUSED:
        with pytest.raises(NotSupported):
            shrink(step, held, rehearsal)
        return
    made = shrink(step, held, rehearsal).held
    alone = torch.cat([answers(made, [text]) for text in TEXTS[:3]])
    torch.testing.assert_close(alone, answers(made, TEXTS)[:3], rtol=1e-4, atol=1e-4)
