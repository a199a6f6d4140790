"""Heads and units that go: those that matter least, and what is left makes up for them by least squares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressed import answers, held_of, rehearsal_of, reopened, shrink
from conftest import tickets
from penjing.compressor import Rehearsal
from penjing.compressors.narrowing import Asked, chosen, zero
from penjing.compressors.prune_ffn import prune_ffn
from penjing.compressors.prune_heads import prune_heads
from penjing.errors import NotSupported, SpecError
from penjing.models.slim import sites_of, weight_of
from penjing.objectives.masked import masked
from penjing.tasks.translate import translate

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(24)]
LABELS = [label for _, label in tickets(24)]
UNITS: dict[str, Any] = {"name": "prune_ffn", "attention": False, "by": "taylor", "repair": True, "rows": 9}


@pytest.mark.parametrize("step", [prune_heads, prune_ffn])
def test_units_that_add_nothing_go_and_no_answer_changes(step: Any, tiny: Tiny) -> None:
    for by in ("taylor", "activation"):
        held = held_of(tiny("bert"))
        trunk = held.model.trunk
        for site in sites_of(trunk, attention=step is prune_heads):
            zero(trunk, site, torch.arange(site.n // 2) * 2, None)
        before = answers(held, TEXTS)
        made = shrink(step(share=0.5, by=by), held, rehearsal_of(held, TEXTS, LABELS))
        assert made.facts["units"] == [n // 2 for n in made.facts["units_before"]]
        torch.testing.assert_close(answers(made.held, TEXTS), before, rtol=1e-5, atol=1e-5)


def test_repair_is_least_squares_over_the_inputs_kept(tiny: Tiny) -> None:
    torch.manual_seed(0)
    held = held_of(tiny("bert"))
    trunk = held.model.trunk
    site, kept = sites_of(trunk, attention=False)[0], torch.tensor([0, 5, 6, 30])
    x = torch.randn(200, site.n).double() @ torch.randn(site.n, site.n).double() + 1
    old = weight_of(trunk, site.last).double().clone()
    bias = trunk.get_submodule(site.last).bias.detach().double().clone()  # type: ignore[union-attr,operator]
    ones = torch.cat([x, x.new_ones(len(x), 1)], 1)
    wanted = torch.linalg.lstsq(ones[:, [*kept.tolist(), site.n]], x @ old.T + bias).solution.T
    zero(trunk, site, kept, ones.T @ ones)
    new = weight_of(trunk, site.last)
    torch.testing.assert_close(new[:, kept].double(), wanted[:, :-1], rtol=1e-3, atol=1e-4)
    found = trunk.get_submodule(site.last).bias.detach().double()  # type: ignore[union-attr,operator]
    torch.testing.assert_close(found, wanted[:, -1], rtol=1e-3, atol=1e-3)
    new[:, kept] = 0
    assert not new.any()


def test_repair_brings_answers_nearer(tiny: Tiny) -> None:
    gaps = []
    for repair in (False, True):
        held = held_of(tiny("gpt2"))
        before = answers(held, TEXTS)
        made = shrink(prune_ffn(share=0.5, repair=repair), held, rehearsal_of(held, TEXTS, LABELS))
        gaps.append(float((answers(made.held, TEXTS) - before).norm()))
    assert gaps[1] < 0.7 * gaps[0]


def test_even_keeps_as_many_in_each_layer_and_otherwise_the_best_of_all() -> None:
    scores = [torch.tensor([8.0, 1, 1, 1]), torch.tensor([2.0, 2, 2, 2.1])]
    asked = {**UNITS, "share": 0.5}
    assert [len(k) for k in chosen(scores, Asked(even=True, **asked))] == [2, 2]
    best = chosen(scores, Asked(even=False, **asked))  # as shares: .98, three of .12; four of about .5
    assert [k.tolist() for k in best] == [[0], [0, 1, 2, 3]]
    many = [torch.arange(64.0), torch.arange(64.0)]
    assert [len(k) for k in chosen(many, Asked(even=True, multiple=8, **{**UNITS, "share": 0.6}))] == [24, 24]


def test_unequal_heads_are_held_by_a_bundle_and_it_says_so(tiny: Tiny, tmp_path: Path) -> None:
    held = held_of(tiny("bert"))
    made = shrink(prune_heads(share=0.5, even=False), held, rehearsal_of(held, TEXTS, LABELS))
    assert sum(made.facts["units"]) == 4
    assert "not by transformers alone" in made.facts["note"]
    found = answers(made.held, TEXTS).softmax(-1).double()
    wanted = torch.from_numpy(reopened(made.held, tmp_path / "bundle").probabilities(TEXTS))
    torch.testing.assert_close(wanted, found, rtol=1e-5, atol=1e-6)


def test_units_of_a_language_model_are_judged_by_the_words_it_masks(tiny: Tiny) -> None:
    held = held_of(tiny("bert"), masked(), [])
    part = rehearsal_of(held_of(tiny("bert")), TEXTS).part
    made = shrink(prune_ffn(), held, Rehearsal(part.rows, part))
    assert made.facts["units"] == [32, 32]


@pytest.mark.parametrize("family", ["t5", "mpnet"])
def test_heads_with_relative_positions_of_their_own_are_refused(family: str, tiny: Tiny) -> None:
    held = held_of(tiny(family))
    with pytest.raises(NotSupported, match=r"Take `prune_ffn` or `drop_layers`"):
        shrink(prune_heads(share=0.5), held, rehearsal_of(held, TEXTS, LABELS))


@pytest.mark.parametrize("make", [prune_ffn, prune_heads])
def test_an_encoder_decoder_is_refused(make: Any, tiny: Tiny) -> None:
    held = held_of(tiny("t5"), translate(), [])
    with pytest.raises(NotSupported, match=r"one stack of layers; T5Model has two.*such as `int8`"):
        shrink(make(share=0.5), held, rehearsal_of(held_of(tiny("t5")), TEXTS))


def test_shares_that_leave_nothing_or_all_are_refused() -> None:
    for share in (0.0, 1.0, 1.5):
        with pytest.raises(SpecError, match=r"`prune_heads.share` is the share of units that go"):
            prune_heads(share=share)
