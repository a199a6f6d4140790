"""Weights of the trunk that config.json does not describe are never left out silently."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from penjing.errors import NotSupported
from penjing.models.load import load

Tiny = Callable[..., Path]
LAYERS = {
    "bert": "num_hidden_layers",
    "distilbert": "n_layers",
    "electra": "num_hidden_layers",
    "gpt2": "n_layer",
    "llama": "num_hidden_layers",
    "modernbert": "num_hidden_layers",
    "t5": "num_layers",
    "bart": "encoder_layers",
}


def changed(folder: Path, to: Path, **config: Any) -> Path:
    """A copy with other entries in its config.json."""
    shutil.copytree(folder, to)
    place = to / "config.json"
    said = json.loads(place.read_text("utf-8")) | config
    if "layer_types" in said:
        said["layer_types"] = said["layer_types"][: said.get("num_hidden_layers")]
    place.write_text(json.dumps(said), "utf-8")
    return to


@pytest.mark.parametrize("family", LAYERS)
def test_fewer_layers_than_the_weights_have_are_refused(family: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = changed(tiny(family), tmp_path / "cut", **{LAYERS[family]: 1})
    with pytest.raises(NotSupported, match=r"have no place for [\d,]+ of their tensors: .*1\."):
        load(str(folder))


def test_biases_that_the_config_denies_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    whole = tiny("llama", attention_bias=True)
    load(str(whole))
    with pytest.raises(NotSupported, match=r"layers\.0\.self_attn\.k_proj\.bias"):
        load(str(changed(whole, tmp_path / "bare", attention_bias=False)))


def test_heads_and_what_older_releases_stored_are_left_out(tiny: Tiny, tmp_path: Path) -> None:
    more = {
        "bert": ("classifier.weight", "bert.embeddings.position_ids", "cls.extra.weight"),
        "gpt2": ("score.weight", "transformer.h.0.attn.masked_bias"),
        "llama": ("score.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    }
    for family, names in more.items():
        folder = tmp_path / family
        shutil.copytree(tiny(family), folder)
        weights = load_file(folder / "model.safetensors")
        weights |= {name: torch.zeros(2) for name in names}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        base, plain = (load(str(one)) for one in (folder, tiny(family)))
        theirs = dict(plain.trunk.named_parameters())
        assert all(torch.equal(p, theirs[name]) for name, p in base.trunk.named_parameters())
