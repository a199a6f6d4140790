"""What layers gave in the last pass: beside transformers' own states, and the layer's own linear maps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common import each, words
from penjing.errors import NotSupported
from penjing.models.layers import layers_of
from penjing.models.load import load
from penjing.models.packing import layer_states, run
from penjing.models.watching import Watched

Tiny = Callable[..., Path]
LENGTHS = torch.tensor([5, 2, 4])


@pytest.mark.parametrize("family", each(["bert", "gpt2", "distilbert", "modernbert", "qwen3", "mpnet"]))
def test_states_are_those_between_layers_packed_or_padded(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    ids = words(base, int(LENGTHS.sum()))
    base.trunk.eval()
    watched = Watched(base.trunk, base.way, states=[1])
    with torch.no_grad():
        between = layer_states(base.trunk, base.way, ids, LENGTHS.tolist())
    run(base.trunk, base.way, ids, LENGTHS.tolist())
    torch.testing.assert_close(watched.states(1, LENGTHS).detach(), between[1])


def test_queries_keys_and_values_are_those_of_the_layer(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    base.trunk.eval()
    ids = words(base, 11)
    watched = Watched(base.trunk, base.way, attention=[2])
    with torch.no_grad():
        below = layer_states(base.trunk, base.way, ids, LENGTHS.tolist())[1]
    run(base.trunk, base.way, ids, LENGTHS.tolist())
    own = layers_of(base.trunk)[1].attention.self
    found = watched.attention(2)
    for name, linear in (("q", own.query), ("k", own.key), ("v", own.value)):
        torch.testing.assert_close(found[name], linear(below))
    assert watched.heads(2) == base.trunk.config.num_attention_heads  # type: ignore[union-attr]


def test_keys_that_heads_share_count_for_each(tiny: Tiny) -> None:
    base = load(str(tiny("qwen3")))
    watched = Watched(base.trunk, base.way, attention=[1])
    run(base.trunk, base.way, words(base, 11), LENGTHS.tolist())
    assert {x.shape for x in watched.attention(1).values()} == {watched.attention(1)["q"].shape}


def test_passes_without_gradients_count_only_where_asked_and_are_let_go(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    student, teacher = (Watched(base.trunk, base.way, states=[1], always=always) for always in (False, True))
    with torch.no_grad():
        run(base.trunk, base.way, words(base, 11), LENGTHS.tolist())
    assert teacher.states(1, LENGTHS).shape == (11, base.width)
    teacher.forget()
    for one in (student, teacher):
        with pytest.raises(KeyError):
            one.states(1, LENGTHS)


@pytest.mark.parametrize(("family", "told"), [("albert", "shares 1 among all"), ("mpnet", "runs padded")])
def test_what_cannot_be_looked_into_is_refused(family: str, told: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    with pytest.raises(NotSupported, match=told):
        Watched(base.trunk, base.way, attention=[1])
