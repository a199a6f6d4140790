"""What a preset costs, against formulas worked out by hand, and what `penjing show presets` prints of it."""

import pytest
from typer.testing import CliRunner

from penjing.cli import app
from penjing.jobs.card import card_of
from penjing.models.shapes import SHAPES


@pytest.mark.slow
def test_operations_are_six_a_weight_and_twelve_a_pair_of_tokens() -> None:
    card = card_of("bert-base", longest=128)
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768
    assert card.flops[""] == pytest.approx(6 * 12 * layer + 12 * 12 * 768 * 128)
    assert card.head_flops == 6 * 30_522 * 768
    assert (card.parameters, card.a_word) == (109_482_240, 768)


def test_a_decoder_that_also_looks_at_a_source_pays_for_it() -> None:
    card = card_of("t5-tiny", longest=64)
    attention, hidden = 4 * 256 * 256, 2 * 256 * 1024
    pairs = 12 * 4 * 256 * 64
    assert card.flops["encoder"] == pytest.approx(6 * 4 * (attention + hidden) + pairs)
    assert card.flops["decoder"] == pytest.approx(6 * 4 * (2 * attention + hidden) + 2 * pairs)


@pytest.mark.slow
def test_training_whole_holds_weights_gradients_and_two_moments() -> None:
    mib = card_of("bert-base").mib
    assert mib["full"]["fp32"] > 109_482_240 * 16 / 2**20
    assert mib["full"]["fp32"] > mib["lora"]["fp32"] > 109_482_240 * 4 / 2**20
    assert mib["full"]["bf16"] < mib["full"]["fp32"]


@pytest.mark.parametrize("name", ["bert-tiny", "llama-nano", "t5-tiny", "transformer-tiny", "vit-tiny"])
def test_show_prints_the_card(name: str) -> None:
    said = CliRunner().invoke(app, ["show", "presets", name])
    assert said.exit_code == 0, said.output
    assert f"{SHAPES[name].parameters:,}" in said.output
    assert SHAPES[name].source in said.output
    assert "operations a token" in said.output


@pytest.mark.slow
def test_list_names_them_and_a_wrong_name_is_asked_about() -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["list", "presets"]).output
    assert all(name in said for name in SHAPES)
    assert "Did you mean `bert-tiny`" in runner.invoke(app, ["show", "presets", "bert-tinny"]).output
