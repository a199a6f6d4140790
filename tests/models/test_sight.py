"""Bases that see: their states are transformers' own, their processor is kept, and methods work on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from common import gap, told
from contract import SETTINGS
from penjing import plugin
from penjing.errors import NotSupported, SpecError
from penjing.models import packing
from penjing.models.heads import ClassHead
from penjing.models.load import load
from penjing.models.model import Model
from penjing.records import Batch
from pictures import SHAPE, pixels, tiny_vit

pytest.importorskip("PIL")
IMAGES = torch.from_numpy(pixels(6, size=16)[0].transpose(0, 3, 1, 2).copy())
N_TOKENS = 17


def batch() -> Batch:
    n = len(IMAGES)
    ids, lengths = torch.zeros(n * N_TOKENS, dtype=torch.long), torch.full((n,), N_TOKENS)
    return Batch(ids, lengths, torch.arange(n) % 3, float(n), tuple(range(n)), images=IMAGES)


def test_states_are_those_of_transformers(tmp_path: Path) -> None:
    base = load(str(tiny_vit(tmp_path, classifier=True)))
    assert (base.limit, base.pooling, base.tokenizer, base.width) == (N_TOKENS, "cls", None, 32)
    model = Model(base.trunk, torch.nn.Identity(), base.way).prepare("fp32").eval()
    theirs = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        wanted = theirs.vit(pixel_values=(IMAGES / 255 - 0.5) / 0.5).last_hidden_state
        assert gap(model.states(batch()), wanted.reshape(-1, 32)) < 1e-5


def test_the_processor_decides_how_pixels_are_prepared(tmp_path: Path) -> None:
    said = {
        "size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16},
        "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "rescale_factor": 1 / 255,
    }  # fmt: skip
    (tiny_vit(tmp_path) / "preprocessor_config.json").write_text(json.dumps(said))
    sight = load(str(tmp_path)).way.sight
    assert sight is not None
    assert (sight.fit.edge, sight.fit.resample, sight.fit.size) == (20, 3, (16, 16))
    values = sight.normal(torch.full((1, 3, 16, 16), 51, dtype=torch.uint8))
    by_hand = [(0.2 - m) / s for m, s in ((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))]
    assert values[0, :, 0, 0].tolist() == pytest.approx(by_hand, abs=1e-6)
    assert dict(sight.processor) == said


@pytest.mark.parametrize("family", ["DeiT", pytest.param("Beit", marks=pytest.mark.slow)])
def test_other_families_that_see_patches_work(family: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{family}Config")(**SHAPE)
    getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path)
    base = load(str(tmp_path))
    assert base.limit == (18 if family == "DeiT" else 17)
    states = packing.run(base.trunk, base.way, IMAGES, [base.limit] * 6)
    assert states.shape == (6 * base.limit, 32)


def test_a_base_without_patches_of_one_size_is_refused(tmp_path: Path) -> None:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], image_size=32)
    transformers.ConvNextModel(config).save_pretrained(tmp_path)
    with pytest.raises(NotSupported) as error:
        load(str(tmp_path))
    told(error, "states of patches", "ConvNextModel does not", "vit-tiny")


@pytest.mark.slow
def test_a_preset_grows_in_any_shape_and_in_shapes_only() -> None:
    shape = {"image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 1}
    one, same = (load("vit-tiny", shape=shape, device=device) for device in ("cpu", "meta"))
    assert one.way == same.way
    assert one.grown
    again = load("vit-tiny", shape=shape)
    assert one.sha256 == again.sha256 != load("vit-tiny", shape=shape, seed=1).sha256
    with pytest.raises(SpecError, match="makes no model"):
        load("vit-tiny", shape={"image_size": 0})
    with pytest.raises(NotSupported, match="states of patches"):
        load("vit-tiny", shape={"patch_size": 300})


WORKS = ["adalora", "adapter", "bitfit", "full", "ia3", "lora", "peft", "top"]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WORKS)
def test_a_method_begins_at_the_base_and_trains_its_own(name: str, precision: str, tmp_path: Path) -> None:
    base = load(str(tiny_vit(tmp_path)))
    plain = Model(base.trunk, torch.nn.Identity(), base.way).prepare(precision).eval()
    with torch.no_grad():
        before = plain.states(batch()).float()
    method: Any = plugin.build("methods", plugin.Choice(name, SETTINGS.get(name, {})))
    trunk = method.apply(load(str(tmp_path)).trunk)
    model = Model(trunk, ClassHead(32, 3, pooling="cls", dropout=0.0), base.way).prepare(precision)
    with torch.no_grad():
        after = model.eval().states(batch()).float()
        assert not method.keeps_start or gap(after, before) < (1e-6 if precision == "fp32" else 0.05)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    torch.nn.functional.cross_entropy(model.train()(batch()), batch().labels).backward()  # type: ignore[arg-type]
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


def test_states_of_an_image_do_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    base = load(str(tiny_vit(tmp_path)))
    with torch.no_grad():
        whole = packing.run(base.trunk, base.way, IMAGES, [N_TOKENS] * 6).view(6, N_TOKENS, -1)
        for i, image in enumerate(IMAGES):
            assert gap(packing.run(base.trunk, base.way, image[None], [N_TOKENS]), whole[i]) < 1e-5
    assert np.isfinite(whole.numpy()).all()
