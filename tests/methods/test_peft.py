"""The generic door to peft: its types on tiny bases in fp32 and bf16, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common import gap, stir, told
from contract import states, story, stream
from penjing import plugin
from penjing import spec as specs
from penjing.errors import NotSupported, PenjingError, SpecError
from penjing.methods.peft import OWN, UNFIT, peft
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.lowrank import quicken
from penjing.models.model import Model

Tiny = Callable[..., Path]
# Every type of peft 0.21 that the door opens, with what a base of width 32 needs.
TYPES: dict[str, dict[str, Any]] = {
    "ADAMSS": {},
    "BEFT": {},
    "BOFT": {},
    "C3A": {"block_size": 8},
    "DEFT": {},
    "DELORA": {},
    "FOURIERFT": {"n_frequency": 64},
    "FROD": {},
    "GLORA": {},
    "GRALORA": {"r": 8},
    "HIRA": {"r": 4},
    "HRA": {"r": 4},
    "LILY": {"r": 4},
    "LN_TUNING": {},
    "LOHA": {"r": 4},
    "LOKR": {"r": 4},
    "MISS": {"r": 8},
    "OFT": {"oft_block_size": 8},
    "PEANUT": {"r": 4},
    "PSOFT": {"r": 8},
    "PVERA": {"r": 8},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4},
    "SUPERTUNING": {},
    "TINYLORA": {},
    "UNILORA": {},
    "VBLORA": {"vector_length": 16, "num_vectors": 16},
    "VERA": {"r": 8},
    "WAVEFT": {"n_frequency": 64},
}
QUICK = ("LOHA", "OFT", "VERA")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # peft's FROD, at its first forward


def kinds() -> list[Any]:
    return [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in TYPES]


def test_every_type_of_the_installed_peft_is_opened_or_refused_with_a_reason() -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    assert {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} == {*TYPES, *OWN, *UNFIT}


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_a_type_keeps_the_contract(kind: str, tiny: Tiny) -> None:
    seen = story("peft", tiny("bert"), peft(peft_type=kind, **TYPES[kind]))
    assert 0 < seen.trained < seen.trunk
    assert seen.unreached == []
    assert seen.frozen_stayed
    assert seen.trained_moved
    assert seen.reload_gap == 0
    assert seen.adapter_gap is not None
    assert seen.adapter_gap < 1e-5


@pytest.mark.parametrize("kind", kinds())
def test_a_type_runs_in_bf16_near_its_fp32_self_and_trains(kind: str, tiny: Tiny) -> None:
    batch = next(stream())[0]

    def output(precision: str) -> tuple[Tensor, Model]:
        torch.manual_seed(0)
        base = load(str(tiny("bert")))
        trunk = peft(peft_type=kind, **TYPES[kind]).apply(base.trunk)
        stir(trunk, by=0.01)
        model = Model(trunk, ClassHead(base.width, 3, pooling="mean", dropout=0.0), base.way).prepare(
            precision
        )
        return model.eval()(batch), model

    wanted, _ = output("fp32")
    found, model = output("bf16")
    assert gap(found, wanted) < 0.1
    found.square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("kind", kinds())
def test_quick_lora_leaves_other_types_alone(kind: str, tiny: Tiny) -> None:
    base = load(str(tiny("bert")))
    trunk = peft(peft_type=kind, **TYPES[kind]).apply(base.trunk)
    stir(trunk, by=0.01)
    before = states(base, trunk)
    assert quicken(trunk) == 0
    assert torch.equal(states(base, trunk), before)


def test_a_file_named_as_the_library_does_not_hide_it() -> None:
    import peft as library

    assert library.__name__ == "peft"
    assert hasattr(library, "LoraConfig")
    assert plugin.function("methods", "peft") is peft


def test_targets_of_ones_own_are_taken(tiny: Tiny) -> None:
    trunk: Any = peft(peft_type="LOHA", r=2, target_modules=["query"]).apply(load(str(tiny("bert"))).trunk)
    assert {
        n.rsplit(".", 1)[1] for n, m in trunk.named_modules() if "default" in getattr(m, "hada_w1_a", ())
    } == {"query"}


def test_settings_of_pefts_own_come_through_a_spec() -> None:
    found = specs.read(base="minilm", train="x.csv", method={"peft": {"peft_type": "VERA", "r": 64}})
    assert found.written()["method"] == {"peft": {"peft_type": "VERA", "r": 64}}


@pytest.mark.parametrize(
    ("kind", "settings", "parts"),
    [
        ("VERRA", {}, ("VERRA", "`peft.peft_type`", "Did you mean `VERA`?", "LOHA")),
        ("lora", {}, ("LORA", "a method of its own", "`method: lora`")),
        ("PREFIX_TUNING", {}, ("PREFIX_TUNING", "a method of its own", "`method: prefix`")),
        ("XLORA", {}, ("XLORA", "adapters that exist", "Take another")),
        ("VERA", {"rr": 4}, ("`peft.rr`", "VeraConfig", "Did you mean `r`?", "vera_dropout")),
        ("VERA", {"task_type": "SEQ_CLS"}, ("`peft.task_type`", "VeraConfig", "vera_dropout")),
        ("VERA", {"r": "many"}, ("`peft.r`", "int", "'many'", "documentation")),
    ],
)
def test_what_cannot_be_is_refused(kind: str, settings: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(PenjingError) as error:
        peft(peft_type=kind, **settings)
    told(error, *parts)


def test_settings_that_do_not_go_together_are_refused_in_pefts_words(tiny: Tiny) -> None:
    method = peft(peft_type="OFT", r=4, oft_block_size=8)
    with pytest.raises(SpecError) as error:
        method.apply(load(str(tiny("bert"))).trunk)
    told(error, "`method.peft`", "OFTConfig", "'r': 4", "documentation")


def test_a_base_that_a_type_cannot_adapt_is_refused_in_pefts_words(tiny: Tiny) -> None:
    with pytest.raises(NotSupported) as error:
        peft(peft_type="BOFT").apply(load(str(tiny("gpt2"))).trunk)
    told(error, "BOFT", "GPT2Model", "Conv1D", "`penjing list methods`")
