"""A trunk that its config does not describe comes back as it was, or is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common import told
from families import FAMILIES
from penjing.errors import NotSupported
from penjing.models import packing, skeleton
from penjing.models.load import load

LENGTHS = [5, 3]


def uneven(trunk: Any) -> None:
    """One layer keeps one head of its attention, the other a narrower feed-forward network."""
    first, second = trunk.encoder.layer[0].attention, trunk.encoder.layer[1]
    size = first.self.attention_head_size
    for name in ("query", "key", "value"):
        old = getattr(first.self, name)
        new = nn.Linear(old.in_features, size)
        new.load_state_dict({"weight": old.weight[:size], "bias": old.bias[:size]})
        setattr(first.self, name, new)
    first.self.num_attention_heads, first.self.all_head_size = 1, size
    first.output.dense.weight = nn.Parameter(first.output.dense.weight[:, :size].detach().clone())
    first.output.dense.in_features = size
    wide = second.intermediate.dense
    second.intermediate.dense = nn.Linear(wide.in_features, 7)
    second.output.dense = nn.Linear(7, wide.in_features)


def states(base: Any) -> torch.Tensor:
    ids = torch.arange(10, 18)
    with torch.no_grad():
        return packing.run(base.trunk.eval(), base.way, ids, LENGTHS)


@pytest.fixture
def odd(tiny: Any, tmp_path: Path) -> Any:
    base = load(str(tiny("bert")))
    uneven(base.trunk)
    skeleton.save(base.trunk, tmp_path / "trunk", skeleton.differs(base.trunk))
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    return base, tmp_path / "trunk"


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_a_trunk_as_its_config_says_has_nothing_more_to_be_told(tiny: Any, family: str) -> None:
    assert family in FAMILIES
    assert skeleton.differs(load(str(tiny(family)), whole=family == "t5").trunk) == {}


def test_heads_and_widths_of_any_shape_come_back_with_equal_states(odd: Any) -> None:
    base, folder = odd
    again = load(str(folder))
    assert again.way.packed
    assert torch.equal(states(again), states(base))
    assert skeleton.differs(again.trunk) == skeleton.differs(base.trunk)


def test_shapes_alone_can_be_had_without_weights(odd: Any) -> None:
    _, folder = odd
    trunk = load(str(folder), device="meta").trunk
    assert trunk.encoder.layer[1].intermediate.dense.weight.shape[0] == 7


@pytest.mark.slow
def test_a_tensor_that_is_missing_or_too_many_is_refused(odd: Any) -> None:
    _, folder = odd
    path = folder / skeleton.WEIGHTS
    whole = load_file(path)
    name = "encoder.layer.0.attention.self.query.weight"
    for changed in (
        {k: v for k, v in whole.items() if k != name},
        {**whole, "more": torch.zeros(2)},
        {**whole, name: torch.zeros(3, 3)},
    ):
        save_file(changed, path)
        with pytest.raises(NotSupported) as error:
            load(str(folder))
        told(error, "tensors", str(path), "compress anew")


def test_a_file_sets_nothing_but_numbers_that_are_there(odd: Any) -> None:
    _, folder = odd
    path = folder / skeleton.PLACES
    known = json.loads(path.read_text())
    for about in ({"set": {"forward": 3}}, {"set": {"num_attention_heads": "x"}}, {"kind": "int9"}):
        places = {**known["places"], "encoder.layer.0.attention.self": {"in": 1, "out": 1, **about}}
        path.write_text(json.dumps({**known, "places": places}))
        with pytest.raises(NotSupported) as error:
            load(str(folder))
        told(error, "encoder.layer.0.attention.self", "release")
