"""Distillation through whole runs: what is learned, from whom, and what is refused."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penjing
from conftest import tickets
from penjing import load
from penjing.bundle import Bundle
from penjing.errors import NotSupported, SpecError
from penjing.jobs.news import silent
from penjing.jobs.training import Training, advance, begin, opened
from penjing.run import Run, new
from penjing.spec import read

Tiny = Callable[..., Path]
STILL = {"steps": 2, "evals": 1, "batch": 16, "dropout": 0.0, "lr": 1e-3}
NO_DROP = {"classify": {"head_dropout": 0.0}}


def put(path: Path, head: list[str], rows: Iterable[Any]) -> str:
    lines = (json.dumps(dict(zip(head, row, strict=True))) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def each_kind() -> list[Any]:
    return [
        pytest.param(kind, marks=() if kind in ("classes", "tags") else pytest.mark.slow) for kind in TASKS
    ]


@pytest.fixture(scope="module")
def home(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A spec of seconds, and in its folder a teacher of it (runs/teacher)."""
    folder = tmp_path_factory.mktemp("distill")
    rows = put(folder / "rows.jsonl", ["text", "label"], tickets(48))
    spec = {
        "base": str(tiny("bert")), "data": {"train": rows}, "out": str(folder / "runs"), "task": NO_DROP,
        "train": {**STILL, "steps": 4}, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    tune(spec, name="teacher")
    return {**spec, "train": STILL}


def tune(spec: dict[str, Any], **changes: Any) -> Run:
    """A run trained to its end, without what is compared and reported of it."""
    asked = read({**spec, **changes})
    run = new(asked)
    advance(begin(run, opened(asked, silent), introduced=False))
    return run


def taught(home: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    return [{"distill": {"teacher": str(Path(home["out"]) / "teacher"), **settings}}]


def first_parts(run: Run) -> dict[str, float]:
    found: dict[str, float] = run.lines("log.jsonl")[0]["parts"]
    return found


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def start_of(spec: dict[str, Any]) -> Bundle:
    """The student as it begins: a step at no rate."""
    return load(
        tune({**spec, "techniques": [], "train": {**STILL, "steps": 1, "lr": 1e-12}}, name="start").folder
    )


def train_texts(spec: dict[str, Any]) -> list[str]:
    return opened(read(spec), silent).data.train.texts


@pytest.mark.slow
def test_the_loss_is_the_formula_on_what_bundles_say(home: dict[str, Any], tmp_path: Path) -> None:
    spec = {**home, "out": str(tmp_path), "train": {**STILL, "steps": 1, "batch": 48}}
    texts, names = train_texts(spec), dict(tickets(48))
    student, teacher = start_of(spec), load(Path(home["out"]) / "teacher")
    q, p = (one.probabilities(texts) for one in (student, teacher))
    gold = [student.labels.index(names[text]) for text in texts]
    labels = -np.log(q[np.arange(len(gold)), gold]).mean()
    p3, q3 = softmax(np.log(p) / 3), softmax(np.log(q) / 3)
    outputs = 9 * (p3 * np.log(p3 / q3)).sum(1).mean()
    log = tune(spec, techniques=taught(home, alpha=0.3, temperature=3.0)).lines("log.jsonl")[0]
    assert log["parts"]["labels"] == pytest.approx(labels, rel=1e-4)
    assert log["parts"]["outputs"] == pytest.approx(outputs, rel=1e-3)
    assert log["loss"] == pytest.approx(0.7 * labels + 0.3 * outputs, rel=1e-4)


TASKS: dict[str, tuple[Any, list[str], Callable[[int], list[Any]]]] = {
    "classes": (NO_DROP, ["text", "label"], lambda i: [tickets(48)[i][0], "abc"[i % 3]]),
    "marks": (
        {"classify": {"head_dropout": 0.0, "multi_label": True}}, ["text", "label"],
        lambda i: [tickets(48)[i][0], [["a"], ["a", "b"], ["c"]][i % 3]],
    ),
    "numbers": ({"regress": {}}, ["text", "label"], lambda i: [tickets(48)[i][0], str(2.5 * (i % 5))]),
    "tags": (
        {"tag": {"head_dropout": 0.0}}, ["tokens", "tags"],
        lambda i: [["ann", "met", f"bob{i}"], ["B-who", "O", "B-who"]],
    ),
    "pairs": (
        {"pair": {"head_dropout": 0.0}}, ["first", "second", "label"],
        lambda i: [tickets(48)[i][0], tickets(48)[i - 1][0], "yn"[i % 2]],
    ),
    "scores": (
        {"pair": {"scores": True, "how": "two_tower", "ranking": False}}, ["first", "second", "label"],
        lambda i: [tickets(48)[i][0], tickets(48)[i - 1][0], str(i % 6)],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", each_kind())
def test_a_student_that_is_its_teacher_is_at_no_distance(
    kind: str, home: dict[str, Any], tmp_path: Path
) -> None:
    task, head, row = TASKS[kind]
    rows = put(tmp_path / "rows.jsonl", head, [row(i) for i in range(48)])
    spec = {
        **home,
        "task": task,
        "data": {"train": rows},
        "out": str(tmp_path),
        "train": {**STILL, "steps": 1},
    }
    teacher = tune(spec, name="teacher")
    same = {"base": str(teacher.folder), "train": {**STILL, "steps": 1}, "name": "same"}
    for settings in ({}, {"hidden": 1.0, "relations": 1.0}):  # asked once; run beside the step
        again = tune({**spec, **same, "techniques": [{"distill": {"inherit": True, **settings}}]})
        parts = first_parts(again)
        assert all(abs(parts[name]) < 1e-5 for name in {"outputs", *settings}), parts
        same["name"] = "again"


@pytest.mark.slow
def test_several_teachers_teach_their_mean(home: dict[str, Any], tmp_path: Path) -> None:
    spec = {**home, "out": str(tmp_path)}
    two = [str(tune(spec, name=f"t{seed}", seed=seed, train={**STILL, "lr": 0.03}).folder) for seed in (1, 2)]
    alone = [{"distill": {"teacher": two, "alpha": 1.0, "temperature": 1.0}}]
    spec = {**spec, "train": {**STILL, "steps": 1, "batch": 48}, "techniques": alone}
    student, texts = start_of(spec), train_texts(spec)
    mean = softmax(np.mean([np.log(load(one).probabilities(texts)) for one in two], 0))
    wanted = (mean * np.log(mean / student.probabilities(texts))).sum(1).mean()
    assert first_parts(tune(spec))["outputs"] == pytest.approx(wanted, rel=1e-3)


def begun(spec: dict[str, Any]) -> Training:
    asked = read(spec)
    return begin(new(asked), opened(asked, silent), introduced=False)


@pytest.mark.slow
def test_a_narrower_student_gets_maps_that_its_bundle_does_not_hold(
    home: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    spec = {**home, "base": "bert-tiny", "shape": shape, "tokenizer": str(tiny("bert")), "out": str(tmp_path)}
    it = begun({**spec, "techniques": taught(home, hidden=1.0, relations=1.0)})
    assert [p.shape for n, p in it.made.model.named_parameters() if n.startswith("maps.")] == [
        (load(Path(home["out"]) / "teacher").base.width, 16)
    ]
    run = tune({**spec, "techniques": taught(home, hidden=1.0, relations=1.0, distance="squares")})
    assert {"labels", "outputs", "hidden", "relations"} <= first_parts(run).keys()
    assert load(run.folder).base.width == 16


@pytest.mark.slow
def test_rows_without_labels_are_learned_from_the_teacher_alone(home: dict[str, Any], tmp_path: Path) -> None:
    extra = put(tmp_path / "more.jsonl", ["text"], [[text] for text, _ in tickets(30, seed=5)])
    spec = {**home, "out": str(tmp_path), "data": {**home["data"], "valid": home["data"]["train"]}}
    plain = tune({**spec, "techniques": taught(home)}, name="plain")
    more = tune({**spec, "techniques": taught(home, unlabelled=extra, ratio=0.5)}, name="more")
    both = tune(
        {**spec, "techniques": taught(home, unlabelled=extra, ratio=0.5, augment="mask")}, name="both"
    )
    rows = [run.lines("log.jsonl")[0]["n_rows"] for run in (plain, more, both)]
    assert rows == [16, 16 + 8, 2 * (16 + 8)]
    logs = [run.lines("log.jsonl")[0] for run in (plain, more)]
    assert logs[1]["n_targets"] == 24
    assert logs[1]["parts"]["labels"] == pytest.approx(logs[0]["parts"]["labels"] * 16 / 24)


@pytest.mark.slow
def test_micro_batches_change_nothing(home: dict[str, Any], tmp_path: Path) -> None:
    extra = put(tmp_path / "more.jsonl", ["text"], [[text] for text, _ in tickets(30, seed=5)])
    asked = taught(home, hidden=1.0, relations=1.0, unlabelled=extra)
    found = []
    for tokens in (8192, 30):
        run = tune(
            {**home, "techniques": asked, "out": str(tmp_path), "train": {**STILL, "micro_tokens": tokens}}
        )
        found.append([step["loss"] for step in run.lines("log.jsonl")])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.slow
def test_a_teacher_of_other_words_answers_whole_rows_for_itself(
    home: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    spec = {**home, "base": str(tiny("gpt2")), "out": str(tmp_path), "train": {**STILL, "steps": 1}}
    assert first_parts(tune({**spec, "techniques": taught(home)}))["outputs"] > 0
    with pytest.raises(NotSupported, match=r"A teacher with the student's tokenizer was wanted.*other words"):
        tune({**spec, "techniques": taught(home, hidden=1.0)})


@pytest.mark.slow
def test_a_bare_base_teaches_by_its_layers_alone(home: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    spec = {**home, "layers": 1, "out": str(tmp_path), "train": {**STILL, "steps": 1}}
    own = {"teacher": str(tiny("bert")), "hidden": 1.0}
    assert "hidden" in first_parts(tune({**spec, "techniques": [{"distill": {**own, "alpha": 0}}]}))
    with pytest.raises(NotSupported, match=r" is a base without a task\. Name a run"):
        tune({**spec, "techniques": [{"distill": own}]})
    with pytest.raises(NotSupported, match=r"wanted as `distill.teacher: nowhere`\. The base `nowhere`"):
        tune({**spec, "techniques": [{"distill": {"teacher": "nowhere"}}]})


@pytest.mark.slow
def test_a_base_teaches_its_layers_while_pretraining_goes_on(
    home: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(text for text, _ in tickets(200)), encoding="utf-8")
    taught = {"teacher": str(tiny("bert")), "alpha": 0, "hidden": 1.0, "relations": 1.0}
    run = penjing.tune(
        base=str(tiny("bert")), layers=1, task="masked", train=str(corpus), out=tmp_path, device="cpu",
        precision="fp32", steps=2, evals=1, batch=8, max_length=32, techniques=[{"distill": taught}],
    )  # fmt: skip
    assert {"hidden", "relations", "labels"} <= first_parts(run).keys()
    assert load(run.folder).base.n_layers == 1


@pytest.mark.slow
def test_a_changed_teacher_stops_a_resume(home: dict[str, Any], tmp_path: Path) -> None:
    teacher = tune(home, out=str(tmp_path), name="own")
    spec = {**home, "out": str(tmp_path), "techniques": [{"distill": {"teacher": str(teacher.folder)}}]}
    it = begun(spec)
    advance(it, until=1)
    tune(home, out=str(tmp_path), name="other", seed=1)
    shutil.rmtree(teacher.folder / "best")
    shutil.copytree(tmp_path / "other/best", teacher.folder / "best")
    with pytest.raises(NotSupported, match=r"begun with other teachers .*Put the old ones back"):
        begin(it.run, opened(it.job.spec, silent), introduced=False)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"alpha": 1.5}, r"`distill.alpha` must lie between 0 and 1; it is 1.5"),
        ({"temperature": 0.0}, r"`distill.temperature` must be above 0"),
        ({"heads": 3}, r"`distill.heads` is given, and `distill.relations` is 0"),
        ({"layers": "last"}, r"`distill.layers` is given, and `distill.hidden` is 0"),
        ({"hidden": 1.0, "teacher": ["a", "b"]}, r"look into one teacher; 2 are named"),
        ({"hidden": 1.0, "layers": [1, 2, 3]}, r"names a layer of the teacher \(1 to 2.*student's 2"),
        ({"relations": 1.0, "heads": 5}, r"`distill.heads` cuts widths .* it is 5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, Any], told: str, home: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=told):
        tune({**home, "techniques": taught(home, **settings), "out": str(tmp_path)})


@pytest.mark.slow
def test_teachers_that_cannot_teach_are_refused(home: dict[str, Any], tmp_path: Path) -> None:
    rows = [(text, f"{label}!") for text, label in tickets(48)]
    spec = {
        **home,
        "out": str(tmp_path),
        "data": {"train": put(tmp_path / "other.jsonl", ["text", "label"], rows)},
    }
    with pytest.raises(NotSupported, match=r"A teacher of the student's 3 labels was wanted.*`account"):
        tune({**spec, "techniques": taught(home)})
    with pytest.raises(NotSupported, match="A teacher that gives marks"):
        tune({**home, "out": str(tmp_path), "task": TASKS["marks"][0], "techniques": taught(home)})
    with pytest.raises(SpecError, match=r"is to move layer 1 of the student; the method leaves the lowest"):
        tune({**home, "out": str(tmp_path), "method": "top", "techniques": taught(home, hidden=1.0)})
