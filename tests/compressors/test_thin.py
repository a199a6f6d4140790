"""Low rank and sparse storage as compressors: what they keep, what they leave, what they refuse."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common import told
from compressed import answers, held_of, rehearsal_of, shrink
from conftest import tickets
from penjing.compressor import Held
from penjing.compressors.calibrating import plain_linears
from penjing.compressors.low_rank import low_rank
from penjing.compressors.sparse import sparse
from penjing.compressors.wanda import wanda
from penjing.errors import NotSupported, SpecError
from penjing.models.slim import weight_of
from penjing.models.stored import kind_of

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(24)]


def prune(held: Held, share: float) -> None:
    for name in plain_linears(held):
        weight = weight_of(held.model.trunk, name)
        weight[torch.rand(weight.shape) < share] = 0


def n_weights(held: Held) -> int:
    return sum(t.numel() for t in held.model.trunk.state_dict().values())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_two_thin_layers_have_the_share_of_weights_asked_for(family: str, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    before = sum(weight_of(held.model.trunk, name).numel() for name in plain_linears(held))
    names = plain_linears(held)
    made = shrink(low_rank(share=0.5), held, rehearsal_of(held, TEXTS))
    layers = [made.held.model.trunk.get_submodule(name) for name in names]
    after = sum(layer.up.numel() + layer.down.numel() for layer in layers)
    assert 0.4 * before < after <= 0.5 * before
    assert made.facts["layers"] == len(names)
    assert 0 < made.facts["error"] < 1


def test_all_energy_or_nearly_all_weights_change_next_to_nothing(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    before = answers(held, TEXTS)
    errors = [
        shrink(low_rank(share=share), held_of(tiny("bert")), rehearsal_of(held, TEXTS)).facts["error"]
        for share in (0.3, 0.6, 0.99)
    ]
    assert errors == sorted(errors, reverse=True)
    made = shrink(low_rank(share=None, energy=0.9), held, rehearsal_of(held, TEXTS))
    assert made.facts["error"] <= 0.1
    assert (answers(made.held, TEXTS) - before).abs().max() < before.std() * 2


def test_layers_of_pruned_weights_take_fewer_bytes_and_answer_to_the_bit(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    prune(held, 0.6)
    before = answers(held, TEXTS)
    made = shrink(sparse(), held, rehearsal_of(held, []))
    assert made.exact
    assert made.facts["zeros"] == pytest.approx(0.6, abs=0.01)
    assert torch.equal(answers(made.held, TEXTS), before)


def test_what_wanda_prunes_is_held_in_little_more_than_half(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    names = plain_linears(held)
    made = shrink(wanda(), held, rehearsal_of(held, TEXTS))
    before = answers(made.held, TEXTS)
    facts = shrink(sparse(), made.held, rehearsal_of(held, [])).facts
    assert facts["zeros"] == pytest.approx(0.5, abs=0.01)
    assert torch.equal(answers(held, TEXTS), before)
    layers = [held.model.trunk.get_submodule(name) for name in names]
    n_bytes = sum(t.nbytes for layer in layers for t in (layer.values, layer.places))
    n_weights = sum(layer.in_features * layer.out_features for layer in layers)
    assert n_bytes == pytest.approx(n_weights * (0.5 * 4 + 1 / 8), rel=0.02)


def test_layers_that_would_not_get_smaller_stay(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    names = plain_linears(held)
    weight_of(held.model.trunk, names[0])[:, ::2] = 0
    facts = shrink(sparse(), held, rehearsal_of(held, [])).facts
    assert (facts["layers"], facts["of"]) == (1, 12)
    assert [kind_of(held.model.trunk.get_submodule(name)) for name in names[:2]] == ["sparse", None]


def test_what_cannot_be_is_refused(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    with pytest.raises(NotSupported) as caught:
        shrink(sparse(), held, rehearsal_of(held, []))
    told(caught, "Weights with zeros", "12 linear layers 0 are 0", "Prune first", "wanda>sparse")
    with pytest.raises(SpecError) as error:
        low_rank(share=0.5, energy=0.9)
    told(error, "either `share` or `energy`", "0.5 and 0.9")
    with pytest.raises(SpecError) as error:
        low_rank(share=1.0)
    told(error, "`low_rank.share`", "it is 1.0")
    with pytest.raises(NotSupported) as caught:
        shrink(low_rank(share=None, energy=0.9999), held, rehearsal_of(held, TEXTS))
    told(caught, "none of the 12", "smaller `energy`")
