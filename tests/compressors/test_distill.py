"""Distillation as a step of a chain: which run it asks for, and the whole chain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressed import held_of
from penjing import compress, load
from penjing.compressors.distill import distill
from penjing.errors import SpecError
from penjing.run import Run

Tiny = Callable[..., Path]


def asked(tiny: Tiny, **settings: Any) -> Any:
    changes = distill(**settings).changes
    assert changes is not None
    return changes(held_of(tiny("bert", num_hidden_layers=4)), "runs/original/best")


def test_half_the_layers_stay_and_learn_from_what_the_chain_began_with(tiny: Tiny) -> None:
    found = asked(tiny, epochs=3, unlabelled="more.csv")
    assert found["layers"] == [1, 4]
    assert found["method"] == "full"
    assert found["train"] == {"epochs": 3}
    taught = found["techniques"][0]["distill"]
    assert (taught["teacher"], taught["inherit"], taught["unlabelled"]) == (
        "runs/original/best",
        True,
        "more.csv",
    )


def test_with_all_layers_a_model_heals(tiny: Tiny) -> None:
    healing = asked(tiny, layers="all", lr=1e-5)
    assert "layers" not in healing
    assert healing["train"] == {"epochs": 3.0, "lr": 1e-5}
    assert asked(tiny)["train"] == {"epochs": 10.0}
    assert asked(tiny, layers=[1, 2, 3])["layers"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 0}, r"`distill.epochs` counts passes over the train rows, above 0; it is 0"),
        ({"alpha": 0}, r"`alpha`, `hidden` and `relations` are all 0\. Leave `alpha` out"),
        ({"layers": 9}, r"`distill.layers` is a number of layers from 1 to 4"),
    ],
)
def test_what_teaches_nothing_is_refused(settings: dict[str, Any], told: str, tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=told):
        asked(tiny, **settings)


@pytest.mark.slow
def test_a_chain_drops_layers_teaches_and_holds_the_student_in_int8(
    tuned: Callable[..., Any], tmp_path: Path
) -> None:
    steps = [{"distill": {"epochs": 1, "hidden": 1.0}}, "int8"]
    found = compress(tuned("lora").folder, steps, out=tmp_path, allow=True, memory=False)
    taught, held = (load(step.folder) for step in found.steps)
    assert taught.base.n_layers == held.base.n_layers == 1
    log = Run(found.steps[0].folder.parent).lines("log.jsonl")
    assert {"labels", "outputs", "hidden"} <= log[0]["parts"].keys()
    again = compress(tuned("lora").folder, steps, out=tmp_path, allow=True, memory=False)
    assert [one.weighed.score for one in again.steps] == [one.weighed.score for one in found.steps]
