"""Layers that go are gone from config and weights, and those that stay are the ones that matter."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from compressed import answers, held_of, rehearsal_of, reopened, shrink
from conftest import tickets
from penjing.compressors.calibrating import batches_of
from penjing.compressors.drop_layers import drop_layers, most
from penjing.errors import SpecError
from penjing.models import packing
from penjing.models.importance import influence

Tiny = Callable[..., Path]
TEXTS = [text for text, _ in tickets(9)]


@pytest.mark.parametrize("family", ["bert", "mpnet", "gpt2", "modernbert"])
def test_a_layers_influence_is_its_cosine_by_transformers_own_states(family: str, tiny: Tiny) -> None:
    held = held_of(tiny(family, num_hidden_layers=3))
    rehearsal = rehearsal_of(held, TEXTS)
    found = influence(held.model, batches_of(rehearsal))
    tokens, trunk = rehearsal.part.tokens, held.base.trunk
    packing.native(trunk)
    sums, n = [0.0] * 3, 0
    for i in range(len(tokens)):
        ids = torch.from_numpy(tokens.ids[tokens.starts[i] : tokens.starts[i + 1]].astype(int))[None]
        with torch.no_grad():
            states = trunk(input_ids=ids, output_hidden_states=True).hidden_states
        for k in range(2):  # the last of transformers' list has gone through the final norm
            sums[k] += float(F.cosine_similarity(states[k].double(), states[k + 1].double(), dim=-1).sum())
        n += ids.shape[1]
    assert found[:2] == pytest.approx([1 - total / n for total in sums[:2]], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2", "qwen3", "modernbert", "t5"])
def test_the_checkpoint_has_the_layers_kept_and_no_other(family: str, tiny: Tiny, tmp_path: Path) -> None:
    changes = {"n_layers" if family == "distilbert" else "num_hidden_layers": 4}
    held = held_of(tiny(family, **changes))
    whole = [p.detach().clone() for p in held.model.trunk.parameters()]
    made = shrink(drop_layers(keep=[1, 3]), held, rehearsal_of(held, TEXTS))
    assert made.held.base.n_layers == 2
    assert sum(p.numel() for p in made.held.model.trunk.parameters()) < sum(p.numel() for p in whole)
    found = answers(made.held, TEXTS)
    opened = reopened(made.held, tmp_path / "bundle")
    assert opened.base.trunk.config.num_hidden_layers == 2
    assert not (tmp_path / "bundle/trunk/stored.json").exists()
    wanted = torch.from_numpy(opened.probabilities(TEXTS))
    torch.testing.assert_close(wanted, found.softmax(-1).double(), rtol=1e-5, atol=1e-6)


def test_layers_that_do_nothing_go_first(tiny: Tiny) -> None:
    held = held_of(tiny("gpt2", n_layer=4))
    blocks = held.model.trunk.h
    with torch.no_grad():
        for i in (1, 2):  # a residual block whose outputs are zero leaves the states as they are
            for name, parameter in blocks[i].named_parameters():
                if "c_proj" in name:
                    parameter.zero_()
    before = answers(held, TEXTS)
    made = shrink(drop_layers(), held, rehearsal_of(held, TEXTS))
    assert made.facts["layers"] == [1, 4]
    torch.testing.assert_close(answers(made.held, TEXTS), before)


def test_which_layers_stay(tiny: Tiny) -> None:
    assert most([0.0, 0.3, 0.1, 0.2], 3) == [1, 2, 4]
    for by, kept in (("even", [1, 4]), ("top", [1, 2])):
        held = held_of(tiny("gpt2", n_layer=4))
        step = drop_layers(by=by)  # type: ignore[arg-type]
        assert step.wants == "nothing"
        assert shrink(step, held, rehearsal_of(held, TEXTS)).facts["layers"] == kept


def test_layers_that_are_not_there_are_refused(tiny: Tiny) -> None:
    held = held_of(tiny("bert"))
    with pytest.raises(SpecError, match=r"`drop_layers.keep` is a number of layers from 1 to 2"):
        shrink(drop_layers(keep=3), held, rehearsal_of(held, TEXTS))
    with pytest.raises(SpecError, match="Leave one out"):
        drop_layers(keep=[1], by="even")
