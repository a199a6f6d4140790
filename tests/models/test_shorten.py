"""Bases with some of their layers: what runs, what the config says, and what opens again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common import each, words
from penjing.errors import NotSupported, SpecError
from penjing.models.load import Base, load
from penjing.models.packing import layer_states, run
from penjing.models.shorten import evenly, shortened, which

Tiny = Callable[..., Path]
LENGTHS = [5, 3]


def states(base: Base) -> Any:
    with torch.no_grad():
        return run(base.trunk.eval(), base.way, words(base, sum(LENGTHS)), LENGTHS)


def test_layers_are_kept_from_the_first_to_the_last() -> None:
    assert evenly(6, 12) == [1, 3, 5, 8, 10, 12]  # DistilBERT's 0, 2, 4, 7, 9, 11
    assert (evenly(3, 6), evenly(1, 6), evenly(4, 4)) == ([1, 3, 6], [1], [1, 2, 3, 4])


@pytest.mark.parametrize("family", each(["bert", "distilbert", "albert", "modernbert", "gpt2", "qwen3"]))
def test_the_lowest_layers_alone_give_the_states_between_layers(
    family: str, tiny: Tiny, tmp_path: Path
) -> None:
    whole = load(str(tiny(family)))
    with torch.no_grad():
        between = layer_states(whole.trunk.eval(), whole.way, words(whole, sum(LENGTHS)), LENGTHS)[1]
    short = shortened(load(str(tiny(family))), [1])
    assert short.n_layers == short.trunk.config.num_hidden_layers == 1
    norm = next((m for n, m in short.trunk.named_children() if n in ("norm", "ln_f", "final_norm")), None)
    expected = between if norm is None else norm(between)
    torch.testing.assert_close(states(short), expected.detach())
    short.trunk.save_pretrained(tmp_path)  # type: ignore[operator]
    short.tokenizer.save_pretrained(tmp_path)
    torch.testing.assert_close(states(load(str(tmp_path))), states(short))


def test_all_layers_are_the_base_itself_and_fewer_are_those_named(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    layers = [*base.trunk.encoder.layer]  # type: ignore[union-attr]
    assert shortened(base, which(base.n_layers, base.n_layers)) is base
    last = shortened(base, which([base.n_layers], base.n_layers))
    assert last.cut
    assert [*last.trunk.encoder.layer] == layers[-1:]  # type: ignore[union-attr]


@pytest.mark.parametrize("wanted", [0, 7, [], [2, 2], [0, 1], [3, 9]])
def test_layers_that_a_base_has_not_are_refused(wanted: Any) -> None:
    with pytest.raises(SpecError, match=r"`layers` is a number of layers from 1 to 6, or a rising list"):
        which(wanted, 6)


def test_a_layer_that_others_lean_on_stays(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match="Keep it, too"):
        shortened(load(str(tiny("t5"))), [2])
