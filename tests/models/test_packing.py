"""Packed execution against transformers' own padded models: outputs, gradients, and who may see whom."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models import packing
from penjing.models.layout import layout_of, spread
from penjing.models.load import Base, load

PACKED = ["bert", "roberta", "electra", "distilbert", "albert", "modernbert", "gpt2", "llama", "qwen3"]
PADDED = ["mpnet", "t5"]
LENGTHS = [1, 5, 3, 40, 1, 12, 12, 7]  # 40 is beyond modernbert's window of 8 to each side

Tiny = Callable[..., Path]


def native(folder: Path) -> Any:
    """The same checkpoint as transformers runs it, its eager attention included; no code of ours."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    half = AutoConfig.from_pretrained(folder).model_type == "t5"
    auto = AutoModelForTextEncoding if half else AutoModel
    return auto.from_pretrained(folder, attn_implementation="eager").eval()


def words(base: Base, n: int, *, seed: int = 0) -> Tensor:
    """`n` ids, none of them special."""
    special = set(base.tokenizer.all_special_ids)
    allowed = torch.tensor([i for i in range(len(base.tokenizer)) if i not in special])
    return allowed[torch.randint(len(allowed), (n,), generator=torch.Generator().manual_seed(seed))]


def padded(model: Any, ids: Tensor, lengths: list[int]) -> Tensor:
    """What the native model says of the same sequences, padded on the right: (T, D)."""
    pad = model.config.pad_token_id or 0
    rows = ids.split(lengths)
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
    table = torch.full(mask.shape, pad)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    states = model(input_ids=table, attention_mask=mask).last_hidden_state
    return torch.cat([states[i, :n] for i, n in enumerate(lengths)])


def ours(base: Base, ids: Tensor, lengths: list[int]) -> Tensor:
    return packing.run(base.trunk.eval(), base.way, ids, lengths)


def gap(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest value wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("family", PACKED)
def test_these_families_run_packed(family: str, tiny: Tiny) -> None:
    way = load(str(tiny(family))).way
    assert way.packed, way.reason


@pytest.mark.parametrize("family", PADDED)
def test_other_families_fall_back_to_padding_and_say_why(family: str, tiny: Tiny) -> None:
    way = load(str(tiny(family))).way
    assert way.packed or way.reason


@pytest.mark.parametrize("family", PACKED + PADDED)
def test_hidden_states_equal_those_of_the_padded_model(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    ids = words(base, sum(LENGTHS))
    with torch.no_grad():
        assert gap(ours(base, ids, LENGTHS), padded(native(tiny(family)), ids, LENGTHS)) < 1e-5


@pytest.mark.parametrize("family", PACKED + PADDED)
def test_gradients_of_all_parameters_equal_those_of_the_padded_model(family: str, tiny: Tiny) -> None:
    base, model = load(str(tiny(family))), native(tiny(family))
    ids = words(base, sum(LENGTHS))
    pull = torch.randn(sum(LENGTHS), base.width)
    (ours(base, ids, LENGTHS) * pull).sum().backward()
    (padded(model, ids, LENGTHS) * pull).sum().backward()
    wanted = {name: p.grad for name, p in model.named_parameters() if not name.startswith("pooler.")}
    found = {name: p.grad for name, p in base.trunk.named_parameters()}
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values() if g is not None)
    for name, grad in found.items():
        assert (grad is None) == (wanted[name] is None), name
        if grad is not None:
            assert float((grad - wanted[name]).abs().max()) / largest < 1e-5, name


@pytest.mark.parametrize("family", PACKED + PADDED)
@pytest.mark.parametrize(
    "lengths",
    [[1], [1, 1, 1], [9, 9, 9], [2, 30], list(range(1, 16))],
    ids=["one", "ones", "equal", "far", "many"],
)
def test_every_mix_of_lengths_equals_each_sequence_alone(family: str, lengths: list[int], tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    ids = words(base, sum(lengths))
    with torch.no_grad():
        together = ours(base, ids, lengths)
        alone = torch.cat([ours(base, row, [len(row)]) for row in ids.split(lengths)])
    assert gap(together, alone) < 1e-5


@pytest.mark.parametrize("family", PACKED + PADDED)
def test_a_changed_sequence_leaves_the_others_alone(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    ids = words(base, sum(LENGTHS))
    changed = ids.clone()
    first = sum(LENGTHS[:5])
    inside = slice(first, first + LENGTHS[5])
    changed[inside] = words(base, LENGTHS[5], seed=1)
    with torch.no_grad():
        before, after = ours(base, ids, LENGTHS), ours(base, changed, LENGTHS)
    moved = (before - after).abs()
    assert float(moved[inside].max()) > 0.01
    moved[inside] = 0
    assert float(moved.max()) < 1e-6


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_decoders_look_only_back(family: str, tiny: Tiny) -> None:
    base = load(str(tiny(family)))
    ids = words(base, 21)
    changed = ids.clone()
    changed[15] = words(base, 1, seed=3)
    with torch.no_grad():
        before, after = ours(base, ids, [9, 12]), ours(base, changed, [9, 12])
    assert float((before - after)[:15].abs().max()) < 1e-6
    assert float((before - after)[15:].abs().max()) > 0.01


def test_segments_reach_the_base(tiny: Tiny) -> None:
    base, model = load(str(tiny("bert"))), native(tiny("bert"))
    ids, segments = words(base, 12), torch.tensor([0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1])
    with torch.no_grad():
        found = packing.run(base.trunk.eval(), base.way, ids, [5, 7], segments)
        alone = [
            model(input_ids=i[None], token_type_ids=s[None]).last_hidden_state[0]
            for i, s in zip(ids.split([5, 7]), segments.split([5, 7]), strict=True)
        ]
    assert gap(found, torch.cat(alone)) < 1e-5


def test_segments_reach_a_padded_base_too(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    ids, segments = words(base, 12), torch.tensor([0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1])
    with torch.no_grad():
        packed = packing.run(base.trunk.eval(), base.way, ids, [5, 7], segments)
        base.trunk.set_attn_implementation("sdpa")
        assert gap(packing.run(base.trunk, packing.Way(False), ids, [5, 7], segments), packed) < 1e-5


def test_lengths_seen_first_in_scoring_can_be_trained_on(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    ids, lengths = words(base, 37), [17, 16, 4]  # a mix that no other test uses: layouts are kept by lengths
    with torch.inference_mode():
        ours(base, ids, lengths)
    ours(base, ids, lengths).sum().backward()


def softcapped(layers: int = 2) -> nn.Module:
    """A tiny Gemma 2, whose attention caps its scores: our attention function does not know that."""
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=128,
        attn_logit_softcapping=0.5,
        sliding_window=16,
        attn_implementation="eager",
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Gemma2Model(config).eval()


def test_a_base_that_asks_more_of_attention_than_we_give_is_padded_and_says_why() -> None:
    """Also with the small weights of its first day, which hide that scores were not capped."""
    packing.register()
    way = packing.how_to_run(softcapped())
    assert not way.packed
    assert "asks for `softcap`" in way.reason


def test_a_base_whose_attention_is_its_own_is_padded_whatever_it_answers() -> None:
    """GPT-Neo's packed states are right: transformers masks the square of all tokens."""
    from transformers import GPTNeoConfig, GPTNeoModel

    packing.register()
    config = GPTNeoConfig(
        vocab_size=100, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=64,
        attention_types=[[["global", "local"], 1]], window_size=4, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    way = packing.how_to_run(GPTNeoModel(config).eval())
    assert not way.packed
    assert "asked 0 times, where 2 were due" in way.reason


def test_packed_states_that_differ_are_not_trusted() -> None:
    wanted = torch.ones(3, 4)
    assert packing.not_ours(wanted + 1e-6, wanted, 1e-4, 2, 2) == ""
    assert "differ by 5.0e-01" in packing.not_ours(wanted / 2, wanted, 1e-4, 2, 2)
    assert "differ by nan" in packing.not_ours(wanted * float("nan"), wanted, 1e-4, 2, 2)


def test_a_base_that_breaks_in_whatever_way_when_packed_is_padded(tiny: Tiny) -> None:
    trunk: Any = load(str(tiny("bert"))).trunk
    own = trunk.forward

    def forward(*args: Any, **keywords: Any) -> Any:
        if "layout" in keywords:
            raise KeyError("layout")
        return own(*args, **keywords)

    trunk.forward = forward
    way = packing.how_to_run(trunk)
    assert (way.packed, way.reason) == (False, "KeyError: 'layout'")


def test_a_base_that_does_not_even_run_padded_is_refused_with_its_reason(tiny: Tiny) -> None:
    trunk: Any = load(str(tiny("bert"))).trunk

    def forward(*args: Any, **keywords: Any) -> Any:
        raise TypeError("'NoneType' object is not callable")

    trunk.forward = forward
    with pytest.raises(NotSupported, match=r"BertModel from .* ended on four .*: TypeError: 'None"):
        packing.how_to_run(trunk)


def test_a_padded_base_still_runs_as_transformers_would() -> None:
    packing.register()
    model = softcapped()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
        ids = torch.randint(10, 200, (17,), generator=torch.Generator().manual_seed(0))
        wanted = torch.cat([model(input_ids=row[None]).last_hidden_state[0] for row in ids.split([5, 12])])
        way = packing.how_to_run(model)
        assert gap(packing.run(model, way, ids, [5, 12]), wanted) < 1e-5


def test_the_self_check_leaves_random_states_and_mode_alone(tiny: Tiny) -> None:
    trunk = native(tiny("bert")).train()
    packing.register()
    before = torch.get_rng_state()
    packing.how_to_run(trunk)
    assert trunk.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_attention_dropout_keeps_the_mean_output(family: str, tiny: Tiny) -> None:
    """attend() by itself: the mean over many draws is the output without dropout."""
    lengths = [4, 4, 7, 20]
    kind = {"bert": (False, None), "modernbert": (False, 9), "llama": (True, None)}[family]
    q, k, v = (torch.randn(1, 2, sum(lengths), 8) for _ in range(3))
    layout = packing.layout_of(lengths)
    module = nn.Module()

    def out(p: float) -> Tensor:
        found, _ = packing.attend(
            module, q, k, v, None, dropout=p, layout=layout, is_causal=kind[0], sliding_window=kind[1]
        )
        return found

    wanted = out(0.0)
    draws = torch.stack([out(0.1) for _ in range(600)])
    error = (draws.mean(0) - wanted).abs()
    noise = draws.std(0) / 600**0.5
    assert float((error / (noise + 1e-6)).max()) < 5.5  # about 5,000 numbers: six in a billion by chance each
    assert float(draws.std(0).mean()) > 0.01


def test_attention_dropout_of_nothing_is_no_dropout(tiny: Tiny) -> None:
    base = load(str(tiny("bert", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)))
    ids = words(base, sum(LENGTHS))
    with torch.no_grad():
        trained = packing.run(base.trunk.train(), base.way, ids, LENGTHS)
        assert torch.equal(trained, ours(base, ids, LENGTHS))


@pytest.mark.parametrize("lengths", [[3, 11, 10, 1, 10], [16, 16, 17, 32, 33, 31]])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_softmax_written_out(causal: bool, window: int | None, lengths: list[int]) -> None:
    q, k, v = (torch.randn(1, 4, sum(lengths), 8) for _ in range(3))
    k, v = k[:, :2], v[:, :2]  # keys shared between heads
    found, _ = packing.attend(
        nn.Module(), q, k, v, None, layout=packing.layout_of(lengths), is_causal=causal, sliding_window=window
    )
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(sum(lengths))
    visible = owner[:, None] == owner[None, :]
    distance = place[:, None] - place[None, :]
    if causal:
        visible = visible & (distance >= 0)
    if window:
        visible = visible & (distance.abs() < window)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~visible, float("-inf"))
    assert gap(found, (scores.softmax(-1) @ v).transpose(1, 2)) < 1e-5


@pytest.mark.parametrize("causal", [False, True])
def test_attention_gives_a_row_the_same_bits_alone_and_in_company(causal: bool) -> None:
    lengths = [14, 17, 15, 9, 20, 33, 40]
    q, k, v = (torch.randn(1, 12, sum(lengths), 32) for _ in range(3))

    def out(*own: Tensor, lengths: list[int]) -> Tensor:
        found, _ = packing.attend(nn.Module(), *own, None, layout=layout_of(lengths), is_causal=causal)
        return found.squeeze(0)

    alone = [
        out(*own, lengths=[n])
        for n, *own in zip(lengths, *(x.split(lengths, 2) for x in (q, k, v)), strict=True)
    ]
    assert torch.equal(torch.cat(alone), out(q, k, v, lengths=lengths))


def test_aligned_groups_have_whole_lanes_and_hold_every_token_once() -> None:
    lengths = [15, 14, *[30] * 20, *[64] * 9, 16, 16, 3, 300]
    found = layout_of(lengths)
    x = torch.randn(sum(lengths), 2, 8)
    back = []
    for group in found.aligned:
        assert group.longest == 16 * -(-max(group.lengths) // 16)
        assert group.n * group.longest <= 256 or group.n == 1 or group.lengths == (64,) * 9
        placed = spread(x[group.first : group.last], group)
        assert placed.shape == (group.n, 2, group.longest, 8)
        flat = placed.transpose(1, 2).reshape(-1, 16)
        back.append(flat if group.back is None else flat[group.back])
    assert torch.equal(torch.cat(back), x.view(-1, 16))


def test_groups_hold_neighbours_of_like_length_and_every_token_once() -> None:
    lengths = [30, 29, 12, 11, 11, 2, 1, 1, 25]
    layout = packing.layout_of(lengths)
    assert [n for g in layout.groups for n in range(g.first, g.last)] == list(range(sum(lengths)))
    assert sum(g.n for g in layout.groups) == len(lengths)
    places = sum(g.n * g.longest for g in layout.groups)
    assert places < 1.3 * sum(lengths)
    assert layout.positions.tolist() == [i for n in lengths for i in range(n)]
