"""A family's own word head gives transformers' own logits, is tied to the trunk, and is saved with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from common import each, gap, words
from penjing.errors import NotSupported
from penjing.models.load import load
from penjing.models.packing import run
from penjing.models.word_head import word_head

MASKED = ["bert", "roberta", "electra", "distilbert", "albert", "modernbert", "mpnet"]
CAUSAL = ["gpt2", "llama", "qwen3"]
KIND = dict.fromkeys(MASKED, "mask") | dict.fromkeys(CAUSAL, "causal")
AUTO = {"mask": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM"}
Tiny = Callable[..., Path]


def theirs(folder: Path, kind: str) -> Any:
    import transformers

    return getattr(transformers, AUTO[kind]).from_pretrained(folder).eval()


@pytest.mark.parametrize("family", each([*KIND]))
def test_logits_and_loss_are_transformers_own(tiny: Tiny, family: str) -> None:
    base = load(str(tiny(family)))
    base.trunk.eval()
    head, note = word_head(base, KIND[family], weights=True)
    if family == "electra":  # the tiny checkpoint is a discriminator
        assert "random weights" in note
        return
    assert not note
    ids = words(base, 9)
    with torch.no_grad():
        wanted = theirs(tiny(family), KIND[family])(input_ids=ids[None]).logits[0]
        states = run(base.trunk, base.way, ids, [9])
        assert gap(head.eval()(states), wanted) < 1e-5
        labels = words(base, 9, seed=1)
        labels[2:5] = -100
        found = head.loss(states, labels)
        assert found.item() == pytest.approx(
            F.cross_entropy(wanted, labels, reduction="sum").item(), rel=1e-4
        )


@pytest.mark.parametrize("family", each([*KIND]))
def test_a_saved_checkpoint_is_transformers_own(tiny: Tiny, family: str, tmp_path: Path) -> None:
    base = load(str(tiny(family)))
    head, _ = word_head(base, KIND[family], weights=True)
    with torch.no_grad():
        for parameter in [*base.trunk.parameters(), *head.parameters()]:
            parameter.add_(0.01)
    head.save(base.trunk, tmp_path / "out", base.tokenizer)
    ids = words(base, 7)
    base.trunk.eval()
    with torch.no_grad():
        wanted = head.eval()(run(base.trunk, base.way, ids, [7]))
        found = theirs(tmp_path / "out", KIND[family])(input_ids=ids[None]).logits[0]
    assert gap(found, wanted) < 1e-5
    assert load(str(tmp_path / "out")).width == base.width


def test_the_table_is_the_trunks_own(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    head, _ = word_head(base, "mask", weights=True)
    assert head.out.weight is base.trunk.get_input_embeddings().weight  # type: ignore[operator]


@pytest.mark.slow
def test_a_family_without_such_a_head_is_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match="`causal` language modelling needs a family"):
        word_head(load(str(tiny("mpnet"))), "causal", weights=True)


def test_shapes_only_leave_the_trunk_s_table_as_it_is(tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    table = base.trunk.get_input_embeddings().weight  # type: ignore[operator]
    before = table.detach().clone()
    head, _ = word_head(base, "mask", weights=False)
    assert torch.equal(table, before)
    assert head.out.weight is table


@pytest.mark.parametrize("family_", ["t5", "bart", "marian"])
def test_an_encoder_decoder_is_saved_as_one_checkpoint(tiny: Tiny, family_: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from penjing.models import encdec
    from penjing.records import Side

    base = load(str(tiny(family_)), whole=True)
    head, note = word_head(base, "answer", weights=True)
    assert not note
    with torch.no_grad():
        for parameter in {id(p): p for p in [*base.trunk.parameters(), *head.parameters()]}.values():
            parameter.add_(0.01)
        for buffer in head.buffers(recurse=False):  # BART's bias of the words
            buffer.add_(torch.randn(buffer.shape))
    head.save(base.trunk, tmp_path / "out", base.tokenizer)
    ids, said = words(base, 7), words(base, 5, seed=2)
    base.trunk.eval()
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        states = encdec.states(base.trunk, base.way, ids, [7], Side(said, torch.tensor([5])))
        wanted = model(input_ids=ids[None], labels=said[None])
        assert gap(head.eval()(states), wanted.logits[0]) < 1e-5
        assert head.loss(states, said).item() == pytest.approx(5 * wanted.loss.item(), rel=1e-4)
    assert load(str(tmp_path / "out"), whole=True).kind == "encoder-decoder"
