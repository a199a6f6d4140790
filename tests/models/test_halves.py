"""Bases that are the encoder of an encoder-decoder."""

from pathlib import Path
from typing import Any

import pytest

from penjing import load, tune


@pytest.mark.parametrize("family", ["bart", pytest.param("marian", marks=pytest.mark.slow)])
def test_an_encoder_that_was_tuned_whole_is_opened_without_its_decoder(
    family: str, small: dict[str, Any], tiny: Any, tmp_path: Path
) -> None:
    run = tune({**small, "base": str(tiny(family))}, method="full", steps=1)
    assert load(run.folder).predict(["my card was charged"])[0]["label"]
    again = tune({**small, "base": str(run.folder)}, method="lora", steps=1)
    assert load(again.folder).base.kind == "encoder"
