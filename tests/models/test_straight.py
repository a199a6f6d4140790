"""Encoders run straight: the states of transformers' own way, and only where nobody would miss that way."""

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from penjing.models import packing
from penjing.models.int8 import Int8Linear
from penjing.models.layers import linears_of
from penjing.models.load import Base, load
from penjing.models.slim import weight_of
from penjing.models.straight import BLOCK, blocks, run, straight

Tiny = Callable[..., Path]
LENGTHS = [6, 3, 17, 6, 30, 4]


def opened(folder: Path) -> Base:
    base = load(str(folder))
    base.trunk.eval().requires_grad_(False)
    return base


def words(base: Base, n: int) -> Tensor:
    return torch.randint(5, 60, (n,), generator=torch.Generator().manual_seed(1))


def held_in_int8(trunk: nn.Module) -> None:
    for name in linears_of(trunk):
        bias = trunk.get_submodule(name).bias
        trunk.set_submodule(name, Int8Linear.of(weight_of(trunk, name), bias))


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert"])
def test_states_are_those_of_transformers_own_way(family: str, tiny: Tiny) -> None:
    base = opened(tiny(family))
    ids = words(base, sum(LENGTHS))
    with torch.inference_mode():
        assert straight(base.trunk, base.way) is not None
        found = run(base.trunk, base.way, ids, LENGTHS)
        wanted = packing.run(base.trunk, base.way, ids, LENGTHS)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "modernbert"])
def test_a_trunk_of_another_build_runs_as_ever(family: str, tiny: Tiny) -> None:
    base = opened(tiny(family))
    ids = words(base, sum(LENGTHS))
    with torch.inference_mode():
        assert straight(base.trunk, base.way) is None
        found = run(base.trunk, base.way, ids, LENGTHS)
        assert torch.equal(found, packing.run(base.trunk, base.way, ids, LENGTHS))


def test_types_of_tokens_are_heard(tiny: Tiny) -> None:
    base = opened(tiny("bert"))
    ids, types = words(base, sum(LENGTHS)), torch.arange(sum(LENGTHS)) % 2
    with torch.inference_mode():
        found = run(base.trunk, base.way, ids, LENGTHS, types)
        wanted = packing.run(base.trunk, base.way, ids, LENGTHS, types)
        assert not torch.allclose(found, run(base.trunk, base.way, ids, LENGTHS), atol=1e-3)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_int8_gives_the_bits_of_transformers_own_way_alone_and_in_company(tiny: Tiny) -> None:
    base = opened(tiny("bert"))
    held_in_int8(base.trunk)
    lengths = [5, 17, 9, *[30] * 25]  # more than one block
    ids = words(base, sum(lengths))
    with torch.inference_mode():
        assert straight(base.trunk, base.way) is not None
        found = run(base.trunk, base.way, ids, lengths)
        alone = [run(base.trunk, base.way, own, [len(own)]) for own in ids.split(lengths)]
        assert torch.equal(found, packing.run(base.trunk, base.way, ids, lengths))
        assert torch.equal(found, torch.cat(alone))
        other = base.trunk.encoder.layer[0].attention.self.key
        other.scale.mul_(2)  # what stood side by side is looked at again
        assert torch.equal(
            run(base.trunk, base.way, ids, lengths), packing.run(base.trunk, base.way, ids, lengths)
        )


def test_who_watches_a_layer_or_changes_one_is_served(tiny: Tiny) -> None:
    base, seen = opened(tiny("bert")), list[int]()
    ids = words(base, 5)
    layer = base.trunk.encoder.layer[1]
    with torch.inference_mode():
        before = run(base.trunk, base.way, ids, [5])
        hook = layer.register_forward_hook(lambda *given: seen.append(1))
        assert torch.equal(run(base.trunk, base.way, ids, [5]), before)
        assert seen == [1]
        hook.remove()
        run(base.trunk, base.way, ids, [5])
        assert seen == [1]
        layer.output.dense = nn.Linear(*reversed(layer.output.dense.weight.shape))
        changed = run(base.trunk, base.way, ids, [5])
        assert not torch.allclose(changed, before, atol=1e-4)
        torch.testing.assert_close(changed, packing.run(base.trunk, base.way, ids, [5]))
        del base.trunk.encoder.layer[1]
        fewer = run(base.trunk, base.way, ids, [5])
        assert torch.equal(fewer, packing.run(base.trunk, base.way, ids, [5]))


def test_who_watches_a_linear_sees_no_trial(tiny: Tiny) -> None:
    base, seen = opened(tiny("bert")), list[int]()
    hook = base.trunk.encoder.layer[0].output.dense.register_forward_pre_hook(
        lambda module, given: seen.append(given[0].reshape(-1, given[0].shape[-1]).shape[0])
    )
    with torch.inference_mode():
        run(base.trunk, base.way, words(base, 9), [5, 4])
        assert seen == [9]
        hook.remove()
        assert straight(base.trunk, base.way) is not None


def test_a_copy_runs_with_its_own_weights_and_a_trunk_is_let_go(tiny: Tiny) -> None:
    base = opened(tiny("bert"))
    ids = words(base, 5)
    with torch.inference_mode():
        before = run(base.trunk, base.way, ids, [5])
        copied = copy.deepcopy(base.trunk)
        for weight in copied.parameters():
            weight.mul_(1.5)
        changed = run(copied, base.way, ids, [5])
        torch.testing.assert_close(changed, packing.run(copied, base.way, ids, [5]))
        assert torch.equal(run(base.trunk, base.way, ids, [5]), before)
    gone = weakref.ref(copied)
    del copied, weight
    gc.collect()
    assert gone() is None


def test_who_wants_gradients_gets_them(tiny: Tiny) -> None:
    base = opened(tiny("bert"))
    base.trunk.requires_grad_(True)
    assert run(base.trunk, base.way, words(base, 5), [5]).requires_grad


def test_blocks_hold_every_sequence_in_order() -> None:
    lengths = (400, 400, 200, 900, 3, 600)
    assert blocks(lengths) == ((400,), (400, 200), (900,), (3, 600))
    assert BLOCK == 640
