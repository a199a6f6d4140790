"""What is hidden, that nothing of it leaks, and losses as transformers has them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common import gap
from penjing import evaluate, load, pretrain, tune
from penjing.data.batches import halves, packed
from penjing.data.images import read_images
from penjing.data.parts import part_of
from penjing.engine.scoring import each
from penjing.errors import NotSupported, SpecError
from penjing.jobs.pretrain import asked
from penjing.models.load import Base
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.models.painting import places_of
from penjing.objectives.masked_image import masked_image, orders, units
from penjing.records import Batch, Part
from penjing.screen import print_grown
from penjing.task import Task
from pictures import SHAPE, painted, pixels, tiny_vit

pil = pytest.importorskip("PIL.Image")
HOW = ["simmim", "mae"]


def made(
    folder: Path, how: Any, *, layer_norm_eps: float = 1e-12, **settings: Any
) -> tuple[Task, Base, Model, Part]:
    """The objective on a tiny ViT of 16 patches, and 12 images."""
    base = load_base(str(tiny_vit(folder / "vit", layer_norm_eps=layer_norm_eps)))
    plain = masked_image(how=how, decoder_width=32, **settings)
    assert plain.bind is not None
    task = plain.bind(base, [])
    part = part_of(task, base, read_images(painted(folder / "shots", 12), labelled=False), [], 17)
    torch.manual_seed(0)
    model = Model(base.trunk, task.head(base.width, [], base.pooling, base.pooler), base.way)
    return task, base, model.prepare("fp32").eval(), part


def shown(task: Task, part: Part, seed: int = 3) -> Batch:
    assert task.vary is not None
    return packed(task.vary(part, np.arange(len(part)), seed), np.arange(len(part)))


def sight_of(base: Base) -> Any:
    return base.way.sight


@pytest.mark.parametrize("how", HOW)
def test_a_step_is_a_function_of_its_seed(tmp_path: Path, how: str) -> None:
    task, _, _, part = made(tmp_path, how)
    one, same, other = (shown(task, part, seed) for seed in (3, 3, 4))
    for name in ("images", "marks"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("how", HOW)
def test_halves_of_a_batch_make_up_its_loss(tmp_path: Path, how: str) -> None:
    task, _, model, part = made(tmp_path, how)
    batch = shown(task, part)
    parts = halves(batch)
    assert parts is not None
    with torch.no_grad():
        wanted = sum(float(task.loss(model, p).mean) * p.n_targets for p in parts) / batch.n_targets
        assert float(task.loss(model, batch).mean) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("how", HOW)
def test_gradients_reach_the_base_and_all_that_paints(tmp_path: Path, how: str) -> None:
    task, _, model, part = made(tmp_path, how)
    task.loss(model.train(), shown(task, part)).mean.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("share", [0.75, 0.6, 0.9])
def test_mae_sees_exactly_the_share_that_is_left(tmp_path: Path, share: float) -> None:
    task, base, model, part = made(tmp_path, "mae", share=share)
    seen: list[int] = []
    base.trunk.layers[0].register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[1]))  # type: ignore
    task.loss(model, shown(task, part))
    assert seen == [1 + round((1 - share) * 16)]


def test_orders_are_permutations_and_restoring_inverts_them(tmp_path: Path) -> None:
    sight = load_base(str(tiny_vit(tmp_path))).way.sight
    assert sight is not None
    found = torch.from_numpy(orders(7, sight, np.random.default_rng(0)))
    restore = found.argsort(1)
    assert torch.equal(found.gather(1, restore), torch.arange(16).expand(7, -1))
    assert len({tuple(row) for row in found.tolist()}) == 7


@pytest.mark.parametrize(("size", "patch", "unit"), [(16, 4, 1), (56, 4, 2), (224, 16, 2), (64, 16, 1)])
def test_simmim_hides_units_of_a_seventh_of_an_image(size: int, patch: int, unit: int) -> None:
    shape = {"image_size": size, "patch_size": patch, "hidden_size": 6, "num_hidden_layers": 1}
    sight = load_base("vit-tiny", shape=shape, device="meta").way.sight
    assert sight is not None
    side = size // patch
    hidden = units(3, sight, 0.6, np.random.default_rng(0)).reshape(3, side, side)
    blocks = hidden.reshape(3, side // unit, unit, side // unit, unit)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert (blocks[:, :, 0, :, 0].sum((1, 2)) == int(np.ceil(0.6 * (side // unit) ** 2))).all()


@pytest.mark.parametrize("how", HOW)
def test_the_loss_asks_for_hidden_pixels_alone_and_the_base_sees_none_of_them(
    tmp_path: Path, how: str
) -> None:
    """With a head that says nothing, only what is asked for counts; states must not know what is hidden."""
    task, base, model, part = made(tmp_path, how)
    head: Any = model.head
    with torch.no_grad():
        head.out.weight.zero_()
    batch = shown(task, part)
    assert batch.marks is not None
    assert batch.images is not None
    hidden = batch.marks.bool() if how == "simmim" else batch.marks.argsort(1) >= 4
    states: list[Tensor] = []
    base.trunk.register_forward_hook(lambda m, args, out: states.append(out.last_hidden_state))
    losses = []
    for where in (None, ~hidden, hidden):
        images = batch.images.clone()
        if where is not None:  # other noise, so that patches standardised are not as before
            other = torch.randint(0, 255, images.shape, dtype=torch.uint8)
            spread = where.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
            images = torch.where(spread, other, images)
        with torch.no_grad():
            losses.append(float(task.loss(model, Batch(**{**vars(batch), "images": images})).mean))
    assert losses[1] == losses[0] != losses[2]
    assert torch.equal(states[2], states[0])
    assert not torch.equal(states[1], states[0])


def test_simmim_s_loss_is_that_of_transformers(tmp_path: Path) -> None:
    import transformers

    task, base, model, part = made(tmp_path, "simmim")
    config = transformers.ViTConfig(**{**base.trunk.config.to_dict(), "encoder_stride": 4})  # type: ignore
    theirs = transformers.ViTForMaskedImageModeling(config).eval()
    theirs.vit.load_state_dict(base.trunk.state_dict(), strict=False)
    head: Any = model.head
    order = np.arange(48).reshape(4, 4, 3).transpose(2, 0, 1).ravel()  # theirs: channels outside
    with torch.no_grad():
        theirs.vit.embeddings.mask_token.copy_(head.token)
        theirs.decoder[0].weight.copy_(head.out.weight[order][..., None, None])
        theirs.decoder[0].bias.copy_(head.out.bias[order])
        batch = shown(task, part)
        assert batch.marks is not None
        wanted = theirs(
            pixel_values=sight_of(base).normal(batch.images), bool_masked_pos=batch.marks.bool()
        ).loss
        assert float(task.loss(model, batch).mean) == pytest.approx(float(wanted), rel=1e-5)


def test_mae_s_loss_is_that_of_transformers(tmp_path: Path) -> None:
    """Base, decoder and loss, with the same patches visible."""
    import transformers

    task, base, model, part = made(tmp_path, "mae", layer_norm_eps=1e-6)
    shape = {key: value for key, value in SHAPE.items() if "dropout" not in key}
    config = transformers.ViTMAEConfig(
        **shape, decoder_hidden_size=32, decoder_intermediate_size=128, decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2, norm_pix_loss=True, layer_norm_eps=1e-6, mask_ratio=0.75,
    )  # fmt: skip
    theirs, own = transformers.ViTMAEForPreTraining(config).eval(), model.head.state_dict()
    theirs.vit.load_state_dict(base.trunk.state_dict())
    names = {
        "decoder_embed": "narrow", "decoder_norm": "norm", "decoder_pred": "out", "attention.o_proj":
        "self_attn.out_proj", "mlp.fc1": "linear1", "mlp.fc2": "linear2", "layernorm_before": "norm1",
        "layernorm_after": "norm2", "decoder_layers": "layers", "mask_token": "token",
    }  # fmt: skip
    own_places: Any = model.head.places
    with torch.no_grad():
        for key, value in theirs.decoder.named_parameters():
            if key == "decoder_pos_embed":
                value[0, 1:] = own_places
                continue
            ours = key
            for name, other in names.items():
                ours = ours.replace(name, other)
            third = next((i for i, one in enumerate("qkv") if f".{one}_proj." in key), None)
            if third is None:
                value.copy_(own[ours].view_as(value))
            else:
                head, _, kind = ours.partition(f"attention.{'qkv'[third]}_proj.")
                value.copy_(own[f"{head}self_attn.in_proj_{kind}"].chunk(3)[third])
        batch = shown(task, part)
        assert batch.marks is not None
        noise = batch.marks.argsort(1) / 16
        wanted = theirs(pixel_values=sight_of(base).normal(batch.images), noise=noise).loss
        assert float(task.loss(model, batch).mean) == pytest.approx(float(wanted), rel=1e-5)


def test_places_are_sines_and_cosines_of_columns_then_of_rows() -> None:
    found = places_of((2, 3), 8)
    assert found.shape == (6, 8)
    row, column = 1, 2
    wanted = [f(place * rate) for place in (column, row) for f in (np.sin, np.cos) for rate in (1, 1 / 100)]
    assert found[row * 3 + column] == pytest.approx(wanted, abs=1e-6)


def test_mae_s_states_are_those_of_layers_run_on_visible_patches_by_hand(tmp_path: Path) -> None:
    task, base, model, part = made(tmp_path, "mae")
    trunk: Any = base.trunk
    batch = shown(task, part)
    assert batch.marks is not None
    caught: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda m, args: caught.append(args[0]))
    with torch.no_grad():
        task.loss(model, batch)
        x = trunk.embeddings(sight_of(base).normal(batch.images))
        visible = [x[i, [0, *(1 + batch.marks[i, :4])]] for i in range(len(x))]
        wanted = torch.stack(visible)
        for layer in trunk.layers:
            wanted = layer(wanted, None)
        assert gap(caught[0], trunk.layernorm(wanted)) < 1e-5


@pytest.mark.parametrize("how", HOW)
def test_a_constant_image_has_a_finite_loss(tmp_path: Path, how: str) -> None:
    task, _, model, part = made(tmp_path, how)
    batch = shown(task, part)
    assert batch.images is not None
    same = Batch(**{**vars(batch), "images": torch.full_like(batch.images, 7)})
    loss = task.loss(model, same).mean
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("how", HOW)
def test_validation_hides_the_same_each_time_whatever_the_micro_batches(tmp_path: Path, how: str) -> None:
    task, _, model, part = made(tmp_path, how)
    assert task.infer is not None
    found = [task.infer(model, partial(each, model, tokens=tokens), part) for tokens in (20, 20, 10_000)]
    assert np.array_equal(found[0], found[1])
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert task.score(found[0], part.targets, [], {}, 0).values["loss"] == pytest.approx(found[0].mean())


@pytest.mark.parametrize("how", ["simmim", pytest.param("mae", marks=pytest.mark.slow)])
def test_a_run_leaves_a_base_that_see_takes(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = painted(tmp_path / "shots", 60)
    settings: dict[str, Any] = {
        "out": str(tmp_path / "runs"),
        "device": "cpu",
        "precision": "fp32",
        "train": str(shots),
    }
    shape = {
        "image_size": 16,
        "patch_size": 4,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
    }
    run = pretrain(
        base="vit-tiny", shape=shape, steps=30, batch=16, evals=2, lr=3e-3, **settings,
        task={"masked_image": {"how": how, "decoder_width": 32}},
    )  # fmt: skip
    assert run.result["after"]["values"]["loss"] < 0.9 * run.result["before"]["values"]["loss"]
    assert "TF-IDF" not in (run.folder / "report.html").read_text()
    assert evaluate(run, str(shots))["values"]["loss"] > 0
    print_grown(run.folder, run.result)
    said = capsys.readouterr().out
    assert "held-out images" in said
    assert "--task see --train images" in said
    with pytest.raises(NotSupported, match="gives none"):
        load(run.folder).predict([pixels(1)[0][0]])
    tuned = tune(base=str(run.folder), task="see", steps=2, batch=16, evals=1, **settings)
    assert tuned.result["state"] == "done"
    kept = load(tuned.folder).base.way.sight
    assert kept == load(run.folder).base.way.sight


def test_a_base_that_sees_is_pretrained_on_masked_images_where_nothing_is_said(tmp_path: Path) -> None:
    spec = asked(base=str(tiny_vit(tmp_path)), train="shots")
    assert spec.task.name == "masked_image"
    assert spec.train.betas == (0.9, 0.95) or spec.train.betas == [0.9, 0.95]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 1.0}, "`masked_image.share` must be above 0 and below 1"),
        ({"decoder_width": 20}, "`masked_image.decoder_width` must be a multiple of 16"),
        ({"how": "mae", "share": 0.99}, "0 would stay visible"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    base = load_base(str(tiny_vit(tmp_path)))

    def made_of(settings: dict[str, Any]) -> Task:
        task = masked_image(**settings)
        assert task.bind is not None
        return task.bind(base, [])  # type: ignore[no-any-return]

    with pytest.raises(SpecError, match=said):
        made_of(settings)


@pytest.mark.slow
def test_classes_would_be_ignored_and_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="learns from images alone"):
        pretrain(base=str(tiny_vit(tmp_path)), train=str(painted(tmp_path / "shots", 6)), label="kind")
