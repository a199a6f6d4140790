"""Virtual tokens and prefixes: against peft itself, and against attention by hand in float64."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import FAMILIES, each, gap, padded, stir, told, words
from penjing.errors import NotSupported, SpecError
from penjing.jobs.prepare import max_length
from penjing.methods.p_tuning import p_tuning
from penjing.methods.prefix import prefix
from penjing.methods.prompt import prompt
from penjing.models import packing, peft_files
from penjing.models.load import Base, load, quiet
from penjing.models.precision import WorkingCopies, recompute
from penjing.models.prefix import Prefix, _WithPrefix
from penjing.records import Method
from penjing.spec import read

Tiny = Callable[..., Path]
PACKED = [f for f in FAMILIES if f not in ("mpnet", "t5")]
PEFT_HAS = ["bert", "roberta", "electra", "gpt2", "llama", "qwen3"]  # where its prefixes run
LENGTHS = [1, 5, 3, 20, 12]


def put(folder: Path, method: Method, *, moved: bool = True) -> Base:
    base = load(str(folder))
    torch.manual_seed(1)
    method.apply(base.trunk)
    if moved:
        stir(base.trunk)
    base.trunk.eval()
    return base


def states(base: Base, ids: Tensor, lengths: list[int] = LENGTHS) -> Tensor:
    return packing.run(base.trunk, base.way, ids, lengths)


def grads(base: Base) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in base.trunk.named_parameters() if p.grad is not None}
    base.trunk.zero_grad()
    return found


# ---- peft itself

DEEP = prefix(tokens=3, init="random")
CASES = [
    *(pytest.param("prompt", prompt(tokens=3), *f.values, marks=f.marks) for f in each(FAMILIES)),
    *(
        pytest.param("prefix", prefix(tokens=3, init="random"), *f.values, marks=f.marks)
        for f in each(PEFT_HAS)
    ),
    *(("p_tuning 1", p_tuning(version=1, tokens=3), family) for family in ("bert", "llama")),
    ("p_tuning 2", p_tuning(tokens=3), "bert"),
    ("prefix by a network", prefix(tokens=3, hidden=5), "llama"),
]


@pytest.mark.parametrize(("name", "method", "family"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_peft_opens_the_files_and_gives_the_same_states(
    name: str, method: Method, family: str, tiny: Tiny, tmp_path: Path
) -> None:
    from peft import PeftModel

    base = put(tiny(family), method)
    ids = words(base, sum(LENGTHS))
    peft_files.save(base.trunk, tmp_path / "adapter")
    native = load(str(tiny(family))).trunk
    native.set_attn_implementation("eager")
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = PeftModel.from_pretrained(native, tmp_path / "adapter").eval()
    mask = torch.tensor([[1] * n + [0] * (max(LENGTHS) - n) for n in LENGTHS])
    table = torch.zeros_like(mask)
    table[mask.bool()] = ids
    with torch.no_grad():
        wanted = theirs(input_ids=table, attention_mask=mask).last_hidden_state[:, -max(LENGTHS) :]
        assert gap(states(base, ids), wanted[mask.bool()]) < 1e-5
        back = load(str(tiny(family)))
        peft_files.load(back.trunk, tmp_path / "adapter")
        back.trunk.eval()
        assert torch.equal(states(back, ids), states(base, ids))


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_the_encoder_of_p_tuning_computes_what_pefts_does(encoder: Any, tiny: Tiny) -> None:
    from peft import PromptEncoder, PromptEncoderConfig

    added: Any = put(tiny("bert"), p_tuning(version=1, tokens=4, encoder=encoder, hidden=6)).trunk.added
    config = PromptEncoderConfig(
        num_virtual_tokens=4, token_dim=32, num_transformer_submodules=1, encoder_hidden_size=6,
        encoder_reparameterization_type=encoder.upper(),
    )  # fmt: skip
    theirs = PromptEncoder(config)
    assert len(list(theirs.parameters())) == len(list(added.parameters()))
    with torch.no_grad():
        for mine, other in zip(added.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine)
        assert torch.allclose(added.vectors(), theirs(torch.arange(4)[None])[0], atol=1e-6)


def test_the_network_of_a_prefix_computes_what_pefts_does(tiny: Tiny) -> None:
    from peft import PrefixEncoder, PrefixTuningConfig

    added: Any = put(tiny("bert"), prefix(tokens=4, hidden=6)).trunk.added
    config = PrefixTuningConfig(
        num_virtual_tokens=4, token_dim=32, num_layers=2, num_transformer_submodules=1,
        encoder_hidden_size=6, prefix_projection=True,
    )  # fmt: skip
    theirs = PrefixEncoder(config)
    with torch.no_grad():
        for mine, other in zip(added.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine)
        assert torch.allclose(added.vectors(), theirs(torch.arange(4)[None])[0], atol=1e-6)


@pytest.mark.parametrize("method", [prompt(tokens=3), prefix(tokens=3)])
def test_files_for_a_base_of_another_width_are_refused(method: Method, tiny: Tiny, tmp_path: Path) -> None:
    peft_files.save(put(tiny("bert"), method).trunk, tmp_path / "adapter")
    wider = load(str(tiny("bert", hidden_size=48))).trunk
    with pytest.raises(ValueError, match=r"vectors of \d+ numbers were wanted, they are \(3, \d+\)"):
        peft_files.load(wider, tmp_path / "adapter")
    assert not hasattr(wider, "added")


def test_files_of_another_kind_are_left_to_peft(tiny: Tiny, tmp_path: Path) -> None:
    trunk = load(str(tiny("bert"))).trunk
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert peft_files.load(trunk, tmp_path) is None
    assert not hasattr(trunk, "added")


# ---- attention by hand


@pytest.mark.parametrize("family", each(PACKED))
def test_packed_prompts_and_their_gradients_equal_padded_ones(family: str, tiny: Tiny) -> None:
    base = put(tiny(family), prompt(tokens=3))
    ids, pull = words(base, sum(LENGTHS)), torch.randn(sum(LENGTHS), base.width)
    out = states(base, ids)
    (out * pull).sum().backward()
    found = grads(base)
    wanted = padded(base, ids, LENGTHS)
    (wanted * pull).sum().backward()
    assert gap(out, wanted) < 1e-5
    assert list(found) == ["added.weight"]
    assert gap(found["added.weight"], grads(base)["added.weight"]) < 1e-5


def by_hand(trunk: Any, added: Any, ids: Tensor, lengths: list[int], offset: int) -> Tensor:
    """Each sequence alone, in the trunk's own precision; attention is a softmax over prefix and tokens."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    n = len(added.weight)
    pairs = added.vectors().view(n, -1, 2, added.heads, added.vectors().shape[1] // (2 * 2 * added.heads))
    turn = itertools.cycle(range(2))

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **said: Any) -> Any:
        first = pairs[:, next(turn)].permute(1, 2, 0, 3)[:, None]  # (2, 1, K, p, d)
        repeat = q.shape[1] // k.shape[1]
        k, v = (torch.cat([a, b], 2).repeat_interleave(repeat, 1) for a, b in zip(first, (k, v), strict=True))
        gone = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])[None, :]
        seen = torch.ones_like(gone, dtype=torch.bool)
        if said.get("is_causal", getattr(module, "is_causal", False)):
            seen = gone >= 0
        if said.get("sliding_window"):
            seen = seen & (gone.abs() < said["sliding_window"])
        seen = torch.cat([torch.ones(q.shape[2], n, dtype=torch.bool), seen], 1)
        scores = q @ k.transpose(2, 3) * said.get("scaling", q.shape[3] ** -0.5)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(3)
        return (weights @ v).transpose(1, 2), None

    AttentionInterface.register("by_hand", attention)
    AttentionMaskInterface.register("by_hand", lambda *args, **kwargs: None)
    trunk.set_attn_implementation("by_hand")
    alone = [
        trunk(input_ids=row[None], position_ids=torch.arange(len(row))[None] + n + offset)
        for row in ids.split(lengths)
    ]
    return torch.cat([out.last_hidden_state[0] for out in alone])


@pytest.mark.parametrize("family", each(PACKED))
@pytest.mark.parametrize("dropout", [0.0, 1e-9], ids=["fused", "dropped"])  # 1e-9 drops nothing
def test_prefix_and_its_gradients_equal_attention_by_hand_in_float64(
    dropout: float, family: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = put(tiny(family), prefix(tokens=3, init="random"))
    ids, pull = words(base, sum(LENGTHS)), torch.randn(sum(LENGTHS), base.width)
    plain = _WithPrefix.__call__

    def call(self: Any, *args: Any) -> Tensor:
        return plain(self, *args[:6], dropout, *args[7:])

    monkeypatch.setattr(_WithPrefix, "__call__", call)
    out = states(base, ids)
    (out * pull).sum().backward()
    found = grads(base)
    base.trunk.double()
    wanted = by_hand(base.trunk, base.trunk.added, ids, LENGTHS, base.way.offset)
    (wanted * pull).sum().backward()
    assert gap(out, wanted) < 1e-5
    assert list(found) == ["added.weight"]
    assert gap(found["added.weight"], grads(base)["added.weight"]) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_prefix_that_begins_as_text_is_that_text_to_a_decoder(family: str, tiny: Tiny) -> None:
    base = put(tiny(family), prefix(tokens=4, init="text", text="my parcel is late"), moved=False)
    said = base.tokenizer("my parcel is late", add_special_tokens=False)["input_ids"]
    before, ids = torch.tensor((said * 4)[:4]), words(base, 9)
    plain = load(str(tiny(family)))
    with torch.no_grad():
        whole = packing.run(plain.trunk.eval(), plain.way, torch.cat([before, ids]), [13])
        assert gap(states(base, ids, [9]), whole[4:]) < 1e-5


def test_a_prompt_that_begins_as_text_is_that_text(tiny: Tiny) -> None:
    base = put(tiny("bert"), prompt(tokens=4, init="text", text="my parcel is late"), moved=False)
    said = base.tokenizer("my parcel is late", add_special_tokens=False)["input_ids"]
    before, ids = torch.tensor((said * 4)[:4]), words(base, 9)
    plain = load(str(tiny("bert")))
    with torch.no_grad():
        whole = packing.run(plain.trunk.eval(), plain.way, torch.cat([before, ids]), [13])
        assert gap(states(base, ids, [9]), whole[4:]) < 1e-5


def test_a_prompt_begins_as_words_of_the_vocabulary_or_at_random_of_their_size(tiny: Tiny) -> None:
    base = put(tiny("bert"), prompt(tokens=7), moved=False)
    table: Tensor = base.trunk.get_input_embeddings().weight
    weight: Any = base.trunk.added.weight
    assert all(bool((table == row).all(1).any()) for row in weight)
    weight = put(tiny("bert"), prompt(tokens=100, init="random"), moved=False).trunk.added.weight
    assert 0.9 < float(weight.detach().std() / table.detach().std()) < 1.1


def test_segments_of_real_tokens_stay_theirs(tiny: Tiny) -> None:
    base = put(tiny("bert"), prompt(tokens=3))
    ids, segments = words(base, 12), torch.tensor([0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1])
    with torch.no_grad():
        found = packing.run(base.trunk, base.way, ids, [5, 7], segments)
        one = packing.run(base.trunk, base.way, ids[5:], [7], segments[5:])
        base.trunk.set_attn_implementation("eager")
        wanted = packing.run(base.trunk, packing.Way(False), ids, [5, 7], segments)
        assert gap(found, wanted) < 1e-5
        assert gap(found[5:], one) < 1e-5
        assert gap(states(put(tiny("bert"), prompt(tokens=3)), ids, [5, 7]), found) > 0.01


# ---- counts


def on_paper(config: str, **shape: Any) -> nn.Module:
    import transformers

    with torch.device("meta"):
        return transformers.AutoModel.from_config(getattr(transformers, config)(**shape))  # type: ignore[no-any-return]


LLAMA_3B = {
    "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
    "intermediate_size": 8192, "vocab_size": 1000,
}  # fmt: skip
COUNTS = [
    (prompt(tokens=200), "LlamaConfig", LLAMA_3B, 614_400),
    (prefix(tokens=50), "LlamaConfig", LLAMA_3B, 2_867_200),
    (prefix(tokens=200), "LlamaConfig", LLAMA_3B, 11_468_800),
    (p_tuning(tokens=50), "LlamaConfig", LLAMA_3B, 2_867_200),
    (prefix(tokens=20), "BertConfig", {"vocab_size": 1000}, 368_640),
]


@pytest.mark.parametrize(("method", "config", "shape", "wanted"), COUNTS)
def test_counts_are_those_that_are_published(
    method: Method, config: str, shape: dict[str, Any], wanted: int
) -> None:
    trunk = method.apply(on_paper(config, **shape))
    assert sum(p.numel() for p in trunk.parameters() if p.requires_grad) == wanted


# ---- precision, memory, length


@pytest.mark.parametrize("method", [prompt(tokens=3), prefix(tokens=3), p_tuning(version=1, tokens=3)])
@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_activations_give_the_same_gradients(
    precision: str, family: str, method: Method, tiny: Tiny
) -> None:
    found = []
    for again in (False, True):
        base = put(tiny(family), method)
        base.trunk.train()
        copies = WorkingCopies(base.trunk, torch.bfloat16 if precision == "bf16" else torch.float32)
        assert recompute(base.trunk) or not again
        torch.manual_seed(5)
        with copies.active():
            out = states(base, words(base, sum(LENGTHS)))
        assert out.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
        (out.float() ** 2).sum().backward()
        found.append(grads(base))
    assert (
        found[0].keys() == found[1].keys() == {n for n, p in base.trunk.named_parameters() if p.requires_grad}
    )
    assert all(torch.equal(found[0][n], found[1][n]) and found[0][n].dtype == torch.float32 for n in found[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompt", "prefix", "p_tuning"])
def test_rows_are_cut_to_what_virtual_tokens_leave(method: str, tiny: Tiny) -> None:
    base = load(str(tiny("bert")))

    def longest(**data: int) -> int:
        return max_length(read({"base": "x", "method": {method: {"tokens": 30}}, "data": data}), base)

    assert longest() == 128 - 30
    assert longest(max_length=98) == 98
    with pytest.raises(SpecError) as error:
        longest(max_length=99)
    told(
        error,
        "`data.max_length` is 99",
        "at most 128 tokens",
        f"`method: {method}` takes 30",
        "98 or less",
    )


def test_virtual_tokens_that_leave_no_room_are_refused(tiny: Tiny) -> None:
    base = load(str(tiny("bert")), device="meta")
    with pytest.raises(SpecError) as error:
        max_length(read({"base": "x", "method": {"prompt": {"tokens": 127}}}), base)
    told(error, "need room", "at most 128 tokens", "takes 127", "`method.tokens` to 32 or less")


# ---- what cannot be


@pytest.mark.parametrize("family", ["mpnet", "t5"])
def test_a_prefix_on_a_base_whose_attention_is_out_of_reach_is_refused(family: str, tiny: Tiny) -> None:
    trunk = load(str(tiny(family))).trunk
    with pytest.raises(NotSupported) as error:
        prefix().apply(trunk)
    told(error, "runs packed", type(trunk).__name__, "runs padded (", "Take `method: prompt`")


WRONG: list[tuple[Callable[..., Method], dict[str, Any], tuple[str, ...]]] = [
    (prompt, {"tokens": 0}, ("`prompt.tokens`", "at least 1", "it is 0", "10 to 100")),
    (prompt, {"text": "hello"}, ("`prompt.text` is 'hello'", "`prompt.init` is `vocabulary`", "or neither")),
    (prompt, {"init": "text"}, ("`prompt.text` is None", "`prompt.init` is `text`")),
    (prefix, {"tokens": -1}, ("`prefix.tokens`", "at least 1", "it is -1")),
    (prefix, {"init": "text"}, ("`prefix.text` is None", "`prefix.init` is `text`")),
    (
        prefix,
        {"hidden": 8, "init": "vocabulary"},
        ("`prefix.hidden` is 8", "`init: vocabulary`", "Leave out"),
    ),
    (prefix, {"hidden": 0}, ("`prefix.hidden` is 0", "at least 1")),
    (p_tuning, {"tokens": 0}, ("`p_tuning.tokens`", "at least 1")),
    (
        p_tuning,
        {"encoder": "mlp"},
        ("`p_tuning.encoder` is 'mlp'", "version 2 has no encoder", "Leave it out"),
    ),
    (p_tuning, {"version": 1, "encoder": "mlp", "layers": 1}, ("`p_tuning.layers` is 1", "only the LSTM")),
    (p_tuning, {"version": 1, "hidden": 0}, ("`p_tuning.hidden`", "at least 1", "it is 0")),
]


@pytest.mark.parametrize(("method", "settings", "parts"), WRONG)
def test_settings_that_cannot_be_are_refused(
    method: Callable[..., Method], settings: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(SpecError) as error:
        method(**settings)
    told(error, *parts)


def test_a_text_without_tokens_is_refused(tiny: Tiny) -> None:
    trunk = load(str(tiny("bert"))).trunk
    with pytest.raises(SpecError) as error:
        prompt(init="text", text="  ").apply(trunk)
    told(error, "`text` is '  '", "makes no token", "Give words")


def test_a_prefix_holds_a_key_and_a_value_for_each_layer() -> None:
    made = Prefix(torch.arange(24.0).view(2, 12), n_layers=3, heads=1)
    pairs = made.vectors().view(2, 3, 2, 1, -1)
    assert pairs[1, 2, 0].tolist() == [[20.0, 21.0]]
