"""Few-shot and zero-shot runs from rows to bundle, on tiny random bases, against scikit-learn and by hand."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from penjing import spec, tune
from penjing.data.batches import in_pairs, pack
from penjing.data.read import read as read_rows
from penjing.data.shots import draw
from penjing.data.tokenize import tokenize
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs.news import silent
from penjing.jobs.selfcheck import selfcheck
from penjing.jobs.training import opened, parts_of
from penjing.jobs.trials import trial_of
from penjing.models.load import load
from penjing.models.packing import run as run_packed
from penjing.records import NO_ROWS, Part, Tokens
from penjing.run import Run
from penjing.tasks.few_shot import few_shot
from penjing.tasks.zero_shot import zero_shot

pytestmark = pytest.mark.slow  # every test is a run or two

Tiny = Callable[..., Path]
NEAREST = {"how": "nearest", "shots": 8}


def ran(small: dict[str, Any], task: Any, **changes: Any) -> Run:
    return tune({**small, "train": changes.pop("train", {}), "task": task}, **changes)


def embedded(folder: Path, texts: list[str]) -> np.ndarray:
    """Mean-pooled states of length one, each text alone and padded by nobody."""
    base = load(str(folder))
    base.trunk.eval()
    tokens = tokenize(base.tokenizer, texts, max_length=128, cache=False)
    found = []
    for i in range(len(texts)):
        ids = torch.from_numpy(tokens.ids[tokens.starts[i] : tokens.starts[i + 1]].astype(np.int64))
        with torch.no_grad():
            states = run_packed(base.trunk, base.way, ids, [len(ids)])
        found.append(F.normalize(states[0] if base.pooling == "cls" else states.mean(0), dim=0))
    return torch.stack(found).double().numpy()


def test_a_frozen_base_with_its_solved_head_is_a_linear_probe(small: dict[str, Any]) -> None:
    from sklearn.linear_model import LogisticRegression

    run = ran(small, {"few_shot": {**NEAREST, "tune": False, "describe": False}})
    rows = read_rows(small["data"]["train"])
    kept, held = draw(rows, shots=8, seed=0, valid=True)
    texts = [rows.texts[i] for i in kept]
    names = [rows.labels[i][0] for i in kept]
    probe = LogisticRegression(C=30, max_iter=1000).fit(embedded(Path(small["base"]), texts), names)
    asked = [rows.texts[i] for i in held]
    wanted = probe.predict_proba(embedded(Path(small["base"]), asked))
    assert run.bundle.labels == probe.classes_.tolist()
    np.testing.assert_allclose(run.bundle.probabilities(asked), wanted, atol=1e-4)
    assert run.lines("log.jsonl") == []


def test_two_labels_are_solved_for_as_scikit_learn_does(small: dict[str, Any], tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    rows = [
        line for line in Path(small["data"]["train"]).read_text().splitlines() if "account" not in line[-8:]
    ]
    (tmp_path / "two.csv").write_text("\n".join(rows) + "\n")
    small["data"] = {"train": str(tmp_path / "two.csv"), "valid": str(tmp_path / "two.csv")}
    run = ran(small, {"few_shot": {"how": "nearest", "tune": False, "describe": False}})
    read = read_rows(small["data"]["train"])
    states = embedded(Path(small["base"]), read.texts)
    probe = LogisticRegression(C=30, max_iter=1000).fit(states, [labels[0] for labels in read.labels])
    np.testing.assert_allclose(run.bundle.probabilities(read.texts), probe.predict_proba(states), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [
        {"few_shot": NEAREST},
        {"few_shot": {"how": "mask", "shots": 4, "templates": ["{text} It is {mask}."]}},
    ],
)
def test_a_run_is_repeated_by_its_seed_and_its_bundle_answers_as_the_model_did(
    task: Any, small: dict[str, Any]
) -> None:
    found = [ran(small, task, name=f"run-{i}", steps=3, evals=1, batch=12) for i in range(2)]
    texts = ["my parcel is late", "the invoice shows a wrong fee", "i cannot log in"]
    one, two = (run.bundle.probabilities(texts) for run in found)
    np.testing.assert_array_equal(one, two)
    assert found[0].result["after"] == found[1].result["after"]
    scored = next(line for line in found[0].lines("scores.jsonl") if line["split"] == "valid")
    assert scored["values"]["accuracy"] == found[0].result["after"]["values"]["accuracy"]
    np.testing.assert_allclose(one.sum(1), 1, atol=1e-6)
    assert found[0].bundle.card["task"]["few_shot"]["how"] == task["few_shot"]["how"]


def test_a_sentence_encoder_keeps_its_own_pooling_in_the_bundle(
    small: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(small["base"], folder)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    run = ran({**small, "base": str(folder)}, {"few_shot": {"shots": 8}}, steps=1, evals=1)
    scored = next(line for line in run.lines("scores.jsonl") if line["split"] == "valid")
    assert scored["values"] == run.result["after"]["values"]
    head: Any = run.bundle.model.head
    assert head.pooling == "mean"


def test_contrast_draws_the_rows_of_a_class_together(small: dict[str, Any]) -> None:
    run = ran(small, {"few_shot": NEAREST}, steps=20, evals=1, lr=1e-3, dropout=0.0)
    rows = read_rows(small["data"]["train"])
    kept, _ = draw(rows, shots=8, seed=0, valid=True)
    texts = [rows.texts[i] for i in kept]
    labels = np.array([rows.labels[i][0] for i in kept])

    def gap(states: np.ndarray) -> float:
        cosine, same = states @ states.T, labels[:, None] == labels[None]
        return float(cosine[same & ~np.eye(len(labels), dtype=bool)].mean() - cosine[~same].mean())

    model, bundle = run.bundle.model, run.bundle
    batch = pack(bundle.tokens(texts), np.arange(len(texts)))
    with torch.no_grad():
        head: Any = model.head
        after = head.embed(model.states(batch), batch.lengths).numpy()
    assert gap(after) > gap(embedded(Path(small["base"]), texts)) + 0.1


def test_a_step_of_the_contrast_holds_rows_in_pairs_and_an_epoch_every_row_once() -> None:
    targets = np.random.default_rng(0).integers(0, 7, 101)
    part = Part(NO_ROWS, Tokens(np.zeros(101), np.arange(102)), targets)
    steps = in_pairs(part, 20, 1, 0)
    assert sorted(np.concatenate(steps)) == list(range(101))
    assert [len(s) for s in steps] == [20] * 5 + [1]
    alone = sum((targets[s] == label).sum() == 1 for s in steps for label in np.unique(targets[s]))
    assert alone <= 7 + len(steps), "at most an odd one a class, and one cut in two a step"
    assert [s.tolist() for s in in_pairs(part, 20, 1, 0)] == [s.tolist() for s in steps]
    assert [s.tolist() for s in in_pairs(part, 20, 1, 1)] != [s.tolist() for s in steps]


def test_what_the_task_says_of_training_gives_way_to_the_spec() -> None:
    plain = spec.read(task="few_shot").train
    assert (plain.steps, plain.batch, plain.epochs) == (20, 256, None)
    assert spec.read(task="classify").train.batch == 32
    own = spec.read(task="few_shot", epochs=3, batch=8).train
    assert (own.steps, own.batch, own.epochs) == (None, 8, 3)
    again = spec.read(spec.read(task="few_shot", epochs=3).written())
    assert (again.train.steps, again.train.epochs) == (None, 3)


def test_zero_shot_by_descriptions_is_the_nearest_of_them(small: dict[str, Any]) -> None:
    words = {"billing": "invoice fee", "delivery": "parcel", "account": "password"}
    run = ran(small, {"zero_shot": {"how": "nearest", "words": words}})
    texts = ["my parcel is late", "a wrong fee"]
    labels = run.bundle.labels
    cosine = (
        embedded(Path(small["base"]), texts)
        @ embedded(Path(small["base"]), [words[label] for label in labels]).T
    )
    wanted = torch.from_numpy(20 * cosine).softmax(-1).numpy()
    np.testing.assert_allclose(run.bundle.probabilities(texts), wanted, atol=1e-4)


def test_zero_shot_needs_no_rows_when_the_labels_are_named(small: dict[str, Any]) -> None:
    del small["data"]
    run = ran(small, {"zero_shot": {"labels": ["fee", "parcel"]}})
    answer = run.bundle.predict(["my parcel is late"])[0]
    assert answer["label"] in ("fee", "parcel")
    assert sum(answer["scores"].values()) == pytest.approx(1)
    weights = [f for f in (run.folder / "best").rglob("*.safetensors") if f.stat().st_size > 200]
    kept = sorted(f.name for f in weights)  # `reference`: what the model saw, for a watch over drift
    assert kept == ["head.safetensors", "reference.safetensors"], "the base is referred to, not copied"


def test_zero_shot_without_rows_or_labels_is_refused(small: dict[str, Any]) -> None:
    del small["data"]
    with pytest.raises(SpecError, match=r"`zero_shot.labels` must name the labels where no rows do"):
        ran(small, "zero_shot")


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"few_shot": {"shots": 0}}, "`few_shot.shots` must be at least 1; it is 0"),
        ({"few_shot": {"temperature": 0.0}}, "`few_shot.temperature` must be above 0"),
        ({"few_shot": {"words": {"billing": "fee"}}}, "`account` has none. Add it"),
        ({"zero_shot": {"words": {"biling": "fee"}}}, "the label `biling`.*Did you mean `billing`"),
        ({"few_shot": {"how": "mask", "tune": False}}, "nothing would be learned"),
        ({"few_shot": {"how": "masks"}}, "`few_shot.how`.*'masks'|masks"),
    ],
)
def test_settings_that_cannot_be_are_refused(task: Any, text: str, small: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=text):
        ran(small, task)


def test_more_shots_than_rows_are_refused(small: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"`few_shot.shots` asks for 40 different texts a label"):
        ran(small, {"few_shot": {"shots": 40}})


def test_one_shot_of_many_labels_warns_of_nothing(small: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"{word} number {i},{i}" for i in range(24) for word in ("parcel", "money", "fee")]
    (tmp_path / "many.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    asked = {"few_shot": {"how": "nearest", "shots": 1, "describe": False, "tune": False}}
    changed = {**small, "data": {"train": str(tmp_path / "many.csv")}}
    assert len(ran(changed, asked).bundle.labels) == 24


def test_a_label_without_a_row_to_fit_on_is_told(small: dict[str, Any]) -> None:
    labels = ["account", "billing", "delivery", "travel"]
    with pytest.raises(
        DataError, match=r"each of the 4 labels.*`travel` has none.*`few_shot.describe: true`"
    ):
        ran(small, {"few_shot": {**NEAREST, "labels": labels, "tune": False, "describe": False}})


def test_a_head_that_is_solved_for_is_refused_among_trials_that_train_together(
    small: dict[str, Any],
) -> None:
    job = opened(spec.read({**small, "task": {"few_shot": NEAREST}, "train": {}}), silent)
    part = parts_of(job)[0]
    with pytest.raises(NotSupported, match="`a` has the task `few_shot`, whose head is solved for"):
        trial_of("a", job.spec, job.task, part, job.data.names, job.base, job.machine)


def test_selfcheck_refuses_a_task_that_makes_no_step(small: dict[str, Any]) -> None:
    with pytest.raises(NotSupported, match="`zero_shot` as set makes no step"):
        selfcheck({**small, "task": "zero_shot"})


def test_both_tasks_are_built_without_settings() -> None:
    assert (few_shot().learns, zero_shot().learns) == (True, False)
