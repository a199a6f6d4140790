"""Ensembles and soups of real bundles: one folder that answers as its members do together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import tickets
from penjing import Run, load, tune
from penjing.chains.combine import Judge, Member, member, save_ensemble, stacked
from penjing.chains.soup import cook, greedy, kettles
from penjing.data.read import read
from penjing.errors import NotSupported
from penjing.jobs.prepare import task_of
from penjing.records import Rows

pytestmark = pytest.mark.slow  # three runs of tiny BERT


@pytest.fixture(scope="module")
def runs(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three LoRA runs that begin alike and learn at rates of their own. Only read them."""
    folder = tmp_path_factory.mktemp("combine")
    rows = "".join(f'"{text}",{label}\n' for text, label in tickets(60))
    (folder / "t.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    fixed: dict[str, Any] = {"steps": 6, "evals": 1, "device": "cpu", "precision": "fp32", "out": folder}
    base, train = tiny("bert"), folder / "t.csv"
    return [
        tune(base=base, train=train, method={"lora": {"rank": 2}}, lr=lr, name=f"r{i}", **fixed)
        for i, lr in enumerate((0.01, 0.03, 0.05))
    ]


@pytest.fixture(scope="module")
def rows(runs: list[Run]) -> Rows:
    return read(str(runs[0].folder.parent / "t.csv"), text="text", label="label")


@pytest.fixture(scope="module")
def members(runs: list[Run], rows: Rows) -> list[Member]:
    return [member(run.folder.name, load(run.folder), rows) for run in runs]


@pytest.fixture
def judge(runs: list[Run], rows: Rows, members: list[Member]) -> Judge:
    task, names = task_of(runs[0].spec), list(members[0].card["labels"])
    return Judge(task, task.encode(rows, names), names, 0, members[0])


@pytest.mark.parametrize("way", ["mean", "vote", "stack"])
def test_an_ensemble_is_one_bundle_that_answers_as_its_members_together(
    way: str, judge: Judge, members: list[Member], rows: Rows, tmp_path: Path
) -> None:
    chosen = next(c for c in judge.together("all", members) if c.way == way)
    save_ensemble(tmp_path / "best", chosen, "accuracy")
    bundle = load(tmp_path / "best")
    found = bundle.probabilities(rows.texts)
    each = np.stack([load(one.folder).probabilities(rows.texts) for one in members])
    if way == "mean":
        np.testing.assert_allclose(found, each.mean(0), atol=1e-6)
    elif way == "vote":
        votes = np.stack([np.eye(3)[p.argmax(-1)] for p in each]).mean(0)
        np.testing.assert_allclose(found, votes, atol=2e-3)
    else:
        assert chosen.mix is not None
        inputs = np.concatenate([np.log(p) for p in each], axis=1).clip(-20)
        wanted = torch.from_numpy(inputs).float() @ chosen.mix.weight.T + chosen.mix.bias
        np.testing.assert_allclose(found, wanted.softmax(-1).numpy(), atol=1e-4)
    answers = bundle.predict(rows.texts[:3])
    assert [a["label"] for a in answers] == [bundle.labels[i] for i in found[:3].argmax(1)]
    assert bundle.card["parts"] == ["r0", "r1", "r2"]
    assert f"{way} of 3 models" in repr(bundle)


def test_an_ensemble_of_numbers_gives_their_mean(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "text,size\n" + "".join(f'"{text}",{len(text)}\n' for text, _ in tickets(40)), encoding="utf-8"
    )
    fixed: dict[str, Any] = {"steps": 4, "evals": 1, "device": "cpu", "precision": "fp32", "out": tmp_path}
    made = [
        tune(
            base=tiny("bert"),
            train=path,
            valid=path,  # numbers are on one scale: that of the same train rows
            label="size",
            task="regress",
            method="bitfit",
            seed=i,
            name=f"r{i}",
            **fixed,
        )
        for i in range(2)
    ]
    rows = task_of(made[0].spec).rows(str(path), label="size")  # type: ignore[misc]
    members = [member(run.folder.name, load(run.folder), rows) for run in made]
    judge = Judge(load(made[0].folder).task, members[0].targets, ["size"], 0, members[0])
    (chosen,) = judge.together("all", members)
    assert chosen.way == "mean"
    save_ensemble(tmp_path / "best", chosen, "r2")
    texts = rows.texts[:5]
    found = [load(place).predict(texts) for place in (tmp_path / "best", *(run.folder for run in made))]
    for ours, one, other in zip(*found, strict=True):
        assert ours["size"] == pytest.approx((one["size"] + other["size"]) / 2, abs=1e-4)


def test_a_damaged_member_is_refused(judge: Judge, members: list[Member], tmp_path: Path) -> None:
    save_ensemble(tmp_path / "best", judge.together("all", members)[0], "accuracy")
    path = tmp_path / "best" / "members" / "1" / "head.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(NotSupported, match=r"members/1/head\.safetensors is not as it was saved"):
        load(tmp_path / "best")


def test_a_stack_is_judged_on_rows_it_has_not_seen() -> None:
    chance = np.random.default_rng(0)
    inputs, targets = chance.normal(size=(60, 40)).astype(np.float32), chance.integers(0, 3, 60)
    layer, logits = stacked(inputs, targets, 3, seed=0)
    seen = layer(torch.from_numpy(inputs)).argmax(1).numpy()
    assert (seen == targets).mean() > 0.8, "on its own rows noise looks learned"
    assert (logits.argmax(1).numpy() == targets).mean() < 0.55, "on others it does not"


def test_only_a_gain_beyond_two_standard_errors_counts(judge: Judge, members: list[Member]) -> None:
    same = judge.together("same", [members[0], members[0]])
    assert [c.better for c in same if c.way != "stack"] == [False, False]
    truth = torch.nn.functional.one_hot(torch.from_numpy(judge.targets), 3) * 9.0
    right = Member("right", members[0].folder, members[0].card, truth)
    wrong = Member("wrong", members[0].folder, members[0].card, -truth)
    sharp = Judge(judge.task, judge.targets, judge.names, 0, wrong)
    assert sharp.alone(right).better
    assert sharp.alone(right).gain == 1
    assert not sharp.alone(wrong).better
    loss = Judge(replace(judge.task, lower=True), judge.targets, judge.names, 0, wrong)  # less is better
    assert not loss.alone(right).better
    assert loss.worth(loss.alone(right)) < loss.worth(loss.alone(wrong))
    silent = Judge(replace(judge.task, difference=None), judge.targets, judge.names, 0, wrong)
    assert not silent.alone(right).better


def test_a_soup_holds_the_mean_of_every_weight_and_opens_as_one_bundle(
    members: list[Member], rows: Rows, tmp_path: Path
) -> None:
    cook(tmp_path / "soup", members[:2])
    for name in ("head.safetensors", "adapter/adapter_model.safetensors"):
        soup, a, b = (
            load_file(folder / name) for folder in (tmp_path / "soup", *[m.folder for m in members[:2]])
        )
        assert soup.keys() == a.keys()
        for key in soup:
            np.testing.assert_allclose(soup[key].numpy(), (a[key].numpy() + b[key].numpy()) / 2, atol=1e-7)
    bundle = load(tmp_path / "soup")
    assert bundle.card["soup"] == ["r0", "r1"]
    assert bundle.probabilities(rows.texts[:4]).shape == (4, 3)


def test_only_models_of_one_start_and_method_go_into_one_soup(members: list[Member]) -> None:
    assert [[m.name for m in group] for group in kettles(members, {"r0": 0, "r1": 0, "r2": 1})] == [
        ["r0", "r1"]
    ]
    other = Member(
        "r3", members[0].folder, {**members[0].card, "method": {"lora": {"rank": 4}}}, members[0].logits_SC
    )
    groups = kettles([*members, other], {f"r{i}": 0 for i in range(4)})
    assert [[m.name for m in group] for group in groups] == [["r0", "r1", "r2"]]


def test_a_greedy_soup_keeps_what_does_not_hurt(members: list[Member]) -> None:
    value = {"r0": 3, "r1": -1, "r2": 2}
    kept = greedy(members, lambda some: sum(value[m.name] for m in some))
    assert [m.name for m in kept] == ["r0", "r2"]
