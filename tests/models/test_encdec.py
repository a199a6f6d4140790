"""Encoder-decoders run whole: transformers' own states and gradients, packed or padded, in any company."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import gap, told, words
from penjing.data.batches import halves
from penjing.errors import NotSupported
from penjing.models import encdec
from penjing.models.across import pairs_of
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.models.packing import Way
from penjing.records import Batch, Side

FAMILIES = ["t5", "bart", "marian"]
PACKED = ["bart", "marian"]
SOURCES, ANSWERS = [5, 1, 9, 30, 2, 9], [3, 7, 1, 12, 4, 8]

Tiny = Callable[..., Path]
parametrized = pytest.mark.parametrize("family_", FAMILIES)  # fast, each of them: `family` would be slow


def whole(tiny: Tiny, family: str) -> Base:
    base = load(str(tiny(family)), whole=True)
    base.trunk.eval()
    return base


def batch_of(base: Base, sources: list[int] = SOURCES, answers: list[int] = ANSWERS) -> Batch:
    said = Side(words(base, sum(answers), seed=1), torch.tensor(answers))
    ids = words(base, sum(sources))
    return Batch(
        ids, torch.tensor(sources), None, float(sum(answers)), tuple(range(len(sources))), answer=said
    )


def ours(base: Base, batch: Batch) -> Tensor:
    assert batch.answer is not None
    return encdec.states(base.trunk, base.way, batch.ids, batch.lengths.tolist(), batch.answer)


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()


def one_by_one(model: Any, batch: Batch) -> Tensor:
    """Logits of transformers' own model, which shifts the answers itself, a row at a time: (U, V)."""
    assert batch.answer is not None
    rows = zip(
        batch.ids.split(batch.lengths.tolist()),
        batch.answer.ids.split(batch.answer.lengths.tolist()),
        strict=True,
    )
    return torch.cat([model(input_ids=ids[None], labels=said[None]).logits[0] for ids, said in rows])


@parametrized
def test_bart_like_families_run_packed_and_t5_says_why_not(tiny: Tiny, family_: str) -> None:
    base = whole(tiny, family_)
    assert base.kind == "encoder-decoder"
    assert base.way.packed == (family_ in PACKED), base.way.reason
    assert base.way.packed or "differ" in base.way.reason


@pytest.mark.slow
@parametrized
def test_states_and_gradients_are_transformers_own(tiny: Tiny, family_: str) -> None:
    from penjing.models.word_head import word_head

    base, model = whole(tiny, family_), theirs(tiny(family_))
    head, note = word_head(base, "answer", weights=True)
    assert not note
    batch = batch_of(base)
    found, wanted = head.eval()(ours(base, batch)), one_by_one(model, batch)
    assert gap(found, wanted) < 1e-5
    pull = torch.randn(wanted.shape)
    (found * pull).sum().backward()
    (wanted * pull).sum().backward()
    inner = getattr(model, model.base_model_prefix, model)
    own = {name: p.grad for name, p in base.trunk.named_parameters() if p.grad is not None}
    largest = max(float(p.grad.abs().max()) for p in inner.parameters() if p.grad is not None)
    for name, parameter in inner.named_parameters():
        if parameter.grad is not None and not name.startswith("lm_head"):
            assert float((own[name] - parameter.grad).abs().max()) / largest < 1e-5, name


@parametrized
def test_a_row_is_the_same_in_any_company(tiny: Tiny, family_: str) -> None:
    base = whole(tiny, family_)
    model = Model(base.trunk, nn.Identity(), base.way).prepare("fp32").eval()
    batch = batch_of(base)
    parts = halves(batch)
    assert parts is not None
    with torch.no_grad():
        together = model.states(batch)
        apart = torch.cat([model.states(part) for part in parts])
    assert gap(apart, together) < 1e-5


@parametrized
def test_working_copies_are_of_two_bytes_and_close(tiny: Tiny, family_: str) -> None:
    base = whole(tiny, family_)
    batch = batch_of(base)
    with torch.no_grad():
        exact = ours(base, batch)
    model = Model(base.trunk, nn.Identity(), base.way).prepare("bf16").eval()
    found = model.states(batch)
    assert found.dtype == torch.bfloat16
    assert gap(found.float(), exact) < 0.06
    found.float().sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_later_word_of_the_answer_changes_nothing_before_it(tiny: Tiny) -> None:
    base = whole(tiny, "marian")
    batch = batch_of(base, [6, 4], [5, 9])
    assert batch.answer is not None
    with torch.no_grad():
        before = ours(base, batch)
        batch.answer.ids[10] = words(base, 1, seed=5)
        after = ours(base, batch)
    moved = (before - after).abs().amax(1)
    assert float(moved[:11].max()) < 1e-6 < float(moved[11:].max())  # place 11 is said from word 10


def test_an_answer_sees_its_own_source_only(tiny: Tiny) -> None:
    base = whole(tiny, "marian")
    batch = batch_of(base, [6, 4, 6], [5, 9, 3])
    with torch.no_grad():
        before = ours(base, batch)
        batch.ids[7] = words(base, 1, seed=5)
        after = ours(base, batch)
    moved = (before - after).abs().amax(1)
    assert float(moved[:5].max()) < 1e-6
    assert float(moved[5:14].min()) > 1e-6
    assert float(moved[14:].max()) < 1e-6


def test_dropout_of_attention_keeps_the_mean(tiny: Tiny) -> None:
    from penjing.models.across import attend_across

    q, k, v = (torch.randn(1, 2, n, 4) for n in (12, 15, 15))
    sides = {"answers": (5, 4, 3), "sources": (6, 6, 3), "scale": 0.5}
    exact = attend_across(q, k, v, **sides, dropout=0.0)
    drawn = torch.stack([attend_across(q, k, v, **sides, dropout=0.3) for _ in range(800)])
    assert float((drawn.mean(0) - exact).abs().max()) < 0.15
    assert not torch.equal(drawn[0], drawn[1])


def test_groups_are_of_like_length_on_both_sides() -> None:
    pairs = pairs_of((5, 5, 5, 20), (6, 30, 31, 30), "cpu")
    assert [(a.lengths, b.lengths) for a, b in pairs] == [((5,), (6,)), ((5, 5), (30, 31)), ((20,), (30,))]
    assert [(a.first, a.last, b.first, b.last) for a, b in pairs] == [
        (0, 5, 0, 6),
        (5, 15, 6, 67),
        (15, 35, 67, 97),
    ]


@parametrized
def test_without_whole_it_is_the_encoder_alone(tiny: Tiny, family_: str) -> None:
    base = load(str(tiny(family_)))
    assert base.kind == "encoder"
    assert not any("decoder" in name for name, _ in base.trunk.named_parameters())


def test_a_decoder_without_a_first_word_is_refused(tiny: Tiny) -> None:
    base = whole(tiny, "t5")
    base.trunk.config.decoder_start_token_id = None  # type: ignore[union-attr]
    with pytest.raises(NotSupported) as error:
        encdec.start_of(base.trunk)
    told(error, "A decoder begins with a token", "no `decoder_start_token_id`", "Add it")


def test_a_module_around_one_stack_is_refused(tiny: Tiny) -> None:
    base = whole(tiny, "t5")
    base.trunk.added = nn.Identity()
    with pytest.raises(NotSupported) as error:
        ours(base, batch_of(base))
    told(error, "A method for encoder-decoders was wanted", "one stack of layers", "`lora`")


def test_the_padded_way_gives_the_same(tiny: Tiny) -> None:
    base = whole(tiny, "bart")
    batch = batch_of(base)
    assert batch.answer is not None
    with torch.no_grad():
        found = ours(base, batch)
        base.trunk.set_attn_implementation("eager")  # type: ignore[operator]
        sides = batch.ids, batch.lengths.tolist(), batch.answer
        assert gap(found, encdec.states(base.trunk, Way(False), *sides)) < 1e-5
