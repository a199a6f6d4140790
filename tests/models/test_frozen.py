"""The layers a method leaves alone: found by structure, without dropout, a function of each row alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.data.batches import pack
from penjing.methods.bitfit import bitfit
from penjing.methods.full import full
from penjing.methods.lora import lora
from penjing.methods.top import top
from penjing.models import packing
from penjing.models.frozen import blocks, frozen_depth
from penjing.models.heads import ClassHead
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.records import Method, Tokens

Tiny = Callable[..., Path]
PACKED = ["bert", "distilbert", "modernbert", "gpt2", "llama", "electra", "roberta", "qwen3"]
UPPER = {  # the linear layers of the second of two layers
    "bert": ["encoder.layer.1.attention.self.query", "encoder.layer.1.output.dense"],
    "gpt2": ["h.1.attn.c_attn"],
    "llama": ["layers.1.self_attn.q_proj", "layers.1.mlp.up_proj"],
}
LENGTHS = np.array([3, 9, 5, 5, 17, 2, 9, 40])
TOKENS = Tokens(
    np.random.default_rng(0).integers(40, 150, LENGTHS.sum()).astype(np.int32),
    np.concatenate([[0], LENGTHS.cumsum()]),
)


def model_of(base: Base, method: Method, precision: str = "fp32", *, head: nn.Module | None = None) -> Model:
    head = head or ClassHead(base.width, 3, pooling="mean", dropout=0.1)
    return Model(method.apply(base.trunk), head, base.way).prepare(precision)


def states_of(model: Model, rows: list[int]) -> dict[int, Tensor]:
    """What the frozen part makes of each row, computed together."""
    batch = pack(TOKENS, np.array(rows))
    assert model.frozen is not None
    found = model.frozen.states(batch.ids, batch.lengths.tolist())
    return dict(zip(rows, found.split(batch.lengths.tolist()), strict=True))


@pytest.mark.parametrize(
    ("method", "wanted"),
    [(top(), 2), (top(layers=1), 1), (top(layers=2), 0), (full(), 0), (lora(rank=2), 0), (bitfit(), 0)],
    ids=["head only", "top 1", "top 2", "full", "lora", "bitfit"],
)
def test_the_depth_is_that_of_the_lowest_thing_that_trains(method: Method, wanted: int, tiny: Tiny) -> None:
    assert frozen_depth(method.apply(load(str(tiny("bert"))).trunk)) == wanted


@pytest.mark.parametrize("family", sorted(UPPER))
def test_lora_on_upper_layers_leaves_the_lowest_alone(family: str, tiny: Tiny) -> None:
    model = model_of(load(str(tiny(family))), lora(rank=2, targets=UPPER[family]))
    assert model.frozen is not None
    assert (model.frozen.depth, model.frozen.whole, model.frozen.reason) == (1, False, "")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_what_trains_outside_the_base_counts_as_below_it(tiny: Tiny) -> None:
    """peft's prompts enter below the first layer, whatever their parameters are called."""
    from peft import PromptTuningConfig, get_peft_model

    trunk = load(str(tiny("bert"))).trunk
    prompted = get_peft_model(trunk, PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3))
    assert frozen_depth(prompted) == 0


@pytest.mark.parametrize(  # ALBERT's layers are one: it is frozen or not
    ("family", "layers"), [(f, k) for f in (*PACKED, "mpnet", "t5") for k in (0, 1)] + [("albert", 0)]
)
def test_dropout_is_off_in_what_is_frozen_and_on_above(family: str, layers: int, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    model = model_of(base, top(layers=layers)).train()
    assert model.frozen is not None
    drops = {id(m): m for m in base.trunk.modules() if "Dropout" in type(m).__name__}
    above = {id(m) for layer in model.frozen.layers[model.frozen.depth :] for m in layer.modules()}
    assert [m.training for key, m in drops.items()] == [key in above for key in drops]
    assert model.head.training
    assert not any(m.training for m in model.eval().modules())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("layers", [0, 1])
def test_states_of_a_row_are_the_same_bits_alone_and_among_others(
    family: str, layers: int, precision: str, tiny: Tiny
) -> None:
    model = model_of(load(str(tiny(family))), top(layers=layers), precision).eval()
    together = states_of(model, [7, 1, 0, 3, 2, 6, 5, 4])
    for row in range(len(LENGTHS)):
        assert torch.equal(together[row], states_of(model, [row])[row]), row
        assert torch.equal(together[row], states_of(model, [row, 4, 5])[row]), row


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_states_of_real_widths_are_the_same_bits_alone_and_among_others(precision: str) -> None:
    """Kernels differ with the number of rows only where products are as wide as real ones."""
    model = model_of(load("minilm"), top(layers=2), precision).eval()
    together = states_of(model, list(range(8)))
    assert all(torch.equal(together[row], states_of(model, [row])[row]) for row in range(8))


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("layers", [0, 1])
def test_the_two_parts_one_after_the_other_are_the_trunk(family: str, layers: int, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    model = model_of(base, top(layers=layers)).eval()
    batch = pack(TOKENS, np.arange(len(LENGTHS)))
    with torch.no_grad():
        wanted = packing.run(base.trunk, base.way, batch.ids, LENGTHS.tolist())
        assert float((model.states(batch) - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


def test_a_frozen_part_without_a_way_to_pack_is_run_as_before(tiny: Tiny) -> None:
    model = model_of(load(str(tiny("mpnet"))), top(layers=1))
    assert model.frozen is not None
    assert "padded" in model.frozen.reason
    assert model.states(pack(TOKENS, np.arange(2))).shape == (12, 32)


class Ladder(nn.Module):
    """A small network beside a trunk, reading its first layer; it begins at nothing."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk, self.config = trunk, trunk.config
        self.down, self.up = nn.Linear(32, 4), nn.Linear(4, 32)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, **inputs: Any) -> Any:
        seen: list[Tensor] = []
        hook = self.trunk.encoder.layer[0].register_forward_hook(lambda m, a, out: seen.append(out))
        out = self.trunk(**inputs)
        hook.remove()
        out.last_hidden_state = out.last_hidden_state + self.up(self.down(seen[0]))
        return out


def test_layers_that_something_beside_the_trunk_reads_are_not_left_out(tiny: Tiny) -> None:
    """Its outputs begin equal, with or without the layer it reads: gradients give it away."""
    base = load(str(tiny("bert")))
    base.trunk.requires_grad_(False)
    trunk = Ladder(base.trunk)
    model = Model(trunk, ClassHead(32, 3, pooling="mean", dropout=0.0), base.way).prepare("fp32")
    assert model.frozen is not None
    assert "reads layers" in model.frozen.reason


def test_blocks_hold_each_row_once_and_their_size_is_a_function_of_its_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 600, 300)
    made = blocks(lengths)
    assert sorted(int(r) for rows, _ in made for r in rows) == list(range(300))
    for rows, room in made:
        assert int(lengths[rows].sum()) <= room
        for row in rows:
            assert room == blocks(lengths[[row]])[0][1] >= 4 * lengths[row]
    assert sum(room for _, room in made) < 1.3 * lengths.sum()


def test_a_model_nobody_trains_has_no_frozen_part(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    model = Model(base.trunk, ClassHead(32, 3, pooling="mean", dropout=0.0), base.way)
    assert model.requires_grad_(False).prepare("fp32").frozen is None
