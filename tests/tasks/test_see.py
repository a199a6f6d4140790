"""Image classification from a folder to answers: what it promises as every task does, and what is its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import told
from penjing import check, evaluate, load, tune
from penjing import spec as specs
from penjing.baselines.images import features, fit_images
from penjing.data.batches import halves, packed
from penjing.data.images import held_out, read_images
from penjing.data.parts import part_of
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs.plan import plan
from penjing.jobs.predict import answers_to
from penjing.jobs.selfcheck import selfcheck
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.tasks.see import see
from pictures import CLASSES, painted, pixels, tiny_vit

pil = pytest.importorskip("PIL.Image")


@pytest.fixture
def asks(tmp_path: Path) -> dict[str, Any]:
    """A spec of seconds."""
    return {
        "base": str(tiny_vit(tmp_path / "vit")), "task": "see",
        "data": {"train": str(painted(tmp_path / "shots", 60))},
        "train": {"steps": 12, "batch": 16, "evals": 3, "lr": 3e-3}, "device": "cpu", "precision": "fp32",
        "out": str(tmp_path / "runs"),
    }  # fmt: skip


@pytest.mark.slow
def test_it_learns_and_a_loaded_run_answers_images_of_every_kind(
    asks: dict[str, Any], tmp_path: Path
) -> None:
    run = tune({**asks, "data": {**asks["data"], "test": str(painted(tmp_path / "unseen", 12, seed=7))}})
    assert run.result["after"]["values"]["accuracy"] > 0.9
    assert run.result["baseline"]["values"]["accuracy"] > 0.9
    assert "32 patches" not in (page := (run.folder / "report.html").read_text())
    assert "thumbnail" in page
    assert "TF-IDF" not in page
    bundle = load(run.folder)
    image, label = (one[0] for one in pixels(1, seed=9))
    path = tmp_path / "new.png"
    pil.fromarray(image).save(path)
    answers = bundle.predict([str(path), path, path.read_bytes(), pil.fromarray(image), image])
    assert {one["label"] for one in answers} == {label}
    assert [one["scores"] for one in answers[1:]] == [answers[0]["scores"]] * 4 or np.allclose(
        [list(one["scores"].values()) for one in answers], list(answers[0]["scores"].values()), atol=1e-5
    )
    assert bundle.predict([image])[0]["scores"] == pytest.approx(answers[0]["scores"], abs=1e-5)
    lines = [one.line for one in answers_to([str(path)], None, lambda: bundle)]  # type: ignore[arg-type]
    assert lines[0].startswith(f"{label}\t")
    assert lines[0].endswith("new.png")
    found = evaluate(run, str(tmp_path / "unseen"))
    assert found["values"] == pytest.approx(run.result["after"]["values"], abs=1e-6)


@pytest.mark.parametrize("method", ["lora", pytest.param("top", marks=pytest.mark.slow)])
def test_a_bundle_over_a_base_answers_as_before_it_was_saved(asks: dict[str, Any], method: str) -> None:
    run = tune({**asks, "method": method, "train": {**asks["train"], "steps": 2, "evals": 1}})
    card = json.loads((run.folder / "best/card.json").read_text())
    assert "processor/preprocessor_config.json" in card["files"]
    assert not any(name.startswith(("trunk/", "tokenizer/")) for name in card["files"])
    found = evaluate(run, asks["data"]["train"])
    assert found["rows"] == 60
    scored = run.lines("scores.jsonl")[-1]["values"]
    assert run.result["after"]["values"]["nll"] == pytest.approx(scored["nll"], rel=1e-5)


@pytest.mark.slow
def test_transformers_reads_what_a_full_run_leaves(asks: dict[str, Any]) -> None:
    from transformers import AutoModel

    run = tune({**asks, "train": {**asks["train"], "steps": 1, "evals": 1}})
    theirs, info = AutoModel.from_pretrained(run.folder / "best/trunk", output_loading_info=True)
    assert {key.split(".")[0] for key in info["missing_keys"]} <= {"pooler"}
    ours = load(run.folder).model
    for (_, one), (_, other) in zip(
        ours.trunk.named_parameters(),
        ((k, p) for k, p in theirs.named_parameters() if "pooler" not in k),
        strict=True,
    ):
        assert torch.equal(one, other)
    again = tune({**asks, "base": str(run.folder), "train": {**asks["train"], "steps": 1, "evals": 1}})
    assert again.result["state"] == "done"


@pytest.mark.slow
def test_a_resumed_run_equals_one_that_was_not_stopped(asks: dict[str, Any]) -> None:
    from penjing import run as runs
    from penjing.jobs.news import silent
    from penjing.jobs.training import advance, begin, opened

    states = []
    for name, stops in (("whole", [None]), ("pieces", [5, None])):
        run = runs.new(specs.read({**asks, "name": name}))
        for stop in stops:
            it = begin(run, opened(run.spec, silent))
            advance(it, until=stop)
        states.append(it.made.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_training_images_are_a_function_of_the_step_and_scored_ones_are_whole(asks: dict[str, Any]) -> None:
    task, base = see(), load_base(asks["base"])
    rows = read_images(asks["data"]["train"])
    part = part_of(task, base, rows, list(CLASSES), 17)
    assert task.vary is not None
    assert part.images is not None
    index = np.arange(8)
    one, same, other = (task.vary(part, index, seed).images for seed in (3, 3, 4))
    assert one is not None
    assert np.array_equal(one, same)  # type: ignore[arg-type]
    assert not np.array_equal(one, other)  # type: ignore[arg-type]
    assert one.shape == (8, 3, 16, 16)
    assert see(crop=None, flip=False).vary is None
    whole = see(crop=None)
    assert whole.vary is not None
    shown = whole.vary(part, index, 3).images
    assert shown is not None
    for image, plain in zip(shown, part.images[index], strict=True):
        assert np.array_equal(image, plain) or np.array_equal(image[..., ::-1], plain)


def test_halves_of_a_batch_make_up_its_loss(asks: dict[str, Any]) -> None:
    task, base = see(class_weights="balanced", label_smoothing=0.1), load_base(asks["base"])
    rows = read_images(asks["data"]["train"]).take(np.arange(25))
    part = part_of(task, base, rows, list(CLASSES), 17, weigh=True)
    model = Model(base.trunk, task.head(32, list(CLASSES), "cls", None), base.way).prepare("fp32").eval()
    batch = packed(part, np.arange(25))
    pieces = halves(batch)
    assert pieces is not None
    with torch.no_grad():
        whole = float(task.loss(model, batch).mean) * batch.n_targets
        assert sum(float(task.loss(model, p).mean) * p.n_targets for p in pieces) == pytest.approx(
            whole, rel=1e-5
        )


@pytest.mark.slow
def test_equal_files_stay_on_one_side_and_leaks_are_told(asks: dict[str, Any], tmp_path: Path) -> None:
    shots = Path(asks["data"]["train"])
    for path in sorted(shots.rglob("*.png")):
        path.with_name(f"copy-{path.name}").write_bytes(path.read_bytes())
    rows = read_images(shots)
    train, valid, notes = held_out(rows, None, list(CLASSES), 0.2, 0)
    assert not set(train.texts) & set(valid.texts)
    assert "held out" in notes[0]
    test = painted(tmp_path / "test", 6)
    run = tune(
        {**asks, "data": {**asks["data"], "test": str(test)}, "train": {"steps": 1, "evals": 1, "batch": 8}}
    )
    leak = next(
        one for one in run.read("data.json")["leaks"] if one["to"] == "test" and one["from"] == "train"
    )
    assert leak["exact"] > 0
    assert run.read("data.json")["sets"]["train"]["height"] == {"min": 20, "p50": 20, "max": 20}


def test_the_baseline_counts_colours_and_pixels_as_by_hand(tmp_path: Path) -> None:
    rows = read_images(painted(tmp_path / "shots", 30, size=16))
    found = features(rows)
    image = np.asarray(pil.open(tmp_path / "shots" / rows.where(0))).astype(int)
    small = image.reshape(8, 2, 8, 2, 3).mean((1, 3)).transpose(2, 0, 1) / 255
    assert found[0, :192] == pytest.approx(small.ravel(), abs=1e-6)
    red, green, blue = image[3, 4] // 64
    shares = [
        ((image // 64) == [r, g, b]).all(-1).mean() for r in range(4) for g in range(4) for b in range(4)
    ]
    assert found[0, 192:] == pytest.approx(shares, abs=1e-6)
    assert shares[red * 16 + green * 4 + blue] > 0
    targets = np.array([CLASSES.index(label) for (label,) in rows.labels])
    p = fit_images(rows, targets, 4, 0)(rows)
    assert p[:, 3].max() == 0
    assert (p.argmax(1) == targets).mean() > 0.9


@pytest.mark.slow
def test_selfcheck_holds_on_images(asks: dict[str, Any]) -> None:
    found = selfcheck(asks)
    assert [one.promise for one in found if not one.held] == []


@pytest.mark.slow
def test_check_and_plan_know_images(asks: dict[str, Any]) -> None:
    found = check({**asks, "base": "vit-tiny", "shape": {"image_size": 16, "patch_size": 4}})
    assert not [one for one in found if one.state == "error"]
    assert any("images of 16 x 16 pixels in patches of 4 x 4" in one.text for one in found)
    assert plan(asks).tokens == pytest.approx(12 * 16 * 17)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"task": "classify"}, SpecError, "`task: classify` reads texts; the base .* reads images"),
        ({"base": "minilm"}, SpecError, "`task: see` reads images; the base `minilm` reads texts"),
        ({"method": "prompt"}, NotSupported, "`method: prompt` puts something beside a sequence of words"),
        ({"method": "side"}, NotSupported, "`method: side` puts something beside a sequence of words"),
        ({"task": {"see": {"head_dropout": 1.0}}}, SpecError, "`see.head_dropout` must be at least 0"),
        ({"task": {"see": {"crop": "cut"}}}, SpecError, "`see.crop` must be"),
    ],
)
def test_what_does_not_go_together_is_refused(
    asks: dict[str, Any], tiny_csv: Path, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    if changes.get("task") == "classify":
        changes = {**changes, "data": {"train": str(tiny_csv)}}
    with pytest.raises(kind, match=said):
        tune({**asks, **changes})


@pytest.mark.slow
def test_a_length_would_be_ignored_and_is_refused(asks: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="makes 17 states of every image"):
        tune({**asks, "data": {**asks["data"], "max_length": 8}})


@pytest.mark.slow
def test_answers_are_refused_to_what_is_no_image(asks: dict[str, Any], tmp_path: Path) -> None:
    run = tune({**asks, "train": {**asks["train"], "steps": 1, "evals": 1}})
    bundle = load(run.folder)
    with pytest.raises(DataError) as error:
        bundle.predict([str(tmp_path / "shots/red/no.png")])
    told(error, "item 1 of 1", "no such file", "Give paths")
    with pytest.raises(DataError, match="item 1 is int '3'"):
        bundle.predict([3])
    with pytest.raises(DataError, match="cannot be decoded"):
        bundle.predict([b"no image"])
