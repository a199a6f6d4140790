"""From a spec to what trains: a method's own techniques, which know the steps and come first; new heads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing import spec as specs
from penjing import tune
from penjing.device import choose
from penjing.engine.optim import groups
from penjing.jobs.prepare import ready, rows_of, task_of
from penjing.models.load import load

IDEAS = """
from penjing.records import Method, Technique

SEEN = []


def planned() -> Method:
    def techniques(trunk, steps):
        SEEN.append(steps)
        return [Technique("plan", after_update=lambda model, step: SEEN.append(f"plan {step}"))]

    def apply(trunk):
        return trunk

    return Method("planned", apply, lr=1e-3, saves="full", techniques=techniques)


def told() -> Technique:
    return Technique("told", after_update=lambda model, step: SEEN.append(f"told {step}"))
"""


def rows_by(folder: Path, task: Any, train: str, valid: str) -> Any:
    """The rows of a run whose files hold these lines."""
    for name, text in (("train.csv", train), ("valid.csv", valid)):
        (folder / name).write_text(text, encoding="utf-8")
    asked = {"train": str(folder / "train.csv"), "valid": str(folder / "valid.csv")}
    spec = specs.read(base="minilm", task=task, **asked)
    return rows_of(spec, task_of(spec))


def test_labels_of_one_cell_are_taken_apart_alike_in_all_files(tmp_path: Path) -> None:
    """A small file does not tell by itself what stands between its labels."""
    cells = ["a;b", "b;c", "a", "c;a", "b", "c"]
    train = "text,label\n" + "".join(f"row {i},{cells[i % 6]}\n" for i in range(30))
    data = rows_by(tmp_path, {"classify": {"multi_label": True}}, train, "text,label\none,a;c\n")
    assert data.names == ["a", "b", "c"]
    assert data.valid.labels == [("a", "c")]


def test_choices_are_counted_as_in_the_train_rows_where_a_file_does_not_tell(tmp_path: Path) -> None:
    head = "question,choice1,choice2,choice3,label\n"
    train = head + "".join(f"what {i},x,y,z,{i % 3}\n" for i in range(9))
    data = rows_by(tmp_path, "choose", train, f"{head}which,x,y,z,1\n")
    assert data.valid.items[0][2] == 1
    assert any("numbers from 0, as in the train rows" in note for note in data.notes)
    own = rows_by(tmp_path, "choose", train, f"{head}which,x,y,z,3\nwho,x,y,z,1\n")
    assert [item[2] for item in own.valid.items] == [2, 0]  # it tells: from 1


@pytest.mark.slow
def test_a_methods_techniques_know_the_steps_and_come_before_the_specs(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planning.py").write_text(IDEAS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    small["train"] = {**small["train"], "steps": 2, "evals": 1}
    tune(small, method="planning.planned", techniques=["planning.told"])
    import planning

    assert planning.SEEN == [2, "plan 1", "told 1", "plan 2", "told 2"]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, 5e-3),
        ({"lr": 3e-4}, 5e-3),
        ({"lr": 7e-3}, 7e-3),
        ({"lr": 1e-9}, 5e-8),
        ({"head_lr": 5e-4}, 5e-4),
        ({"optimizer": "lion"}, 5e-4),
        ({"optimizer": "sgd", "lr": 0.1}, 0.1),
        ({"method": "lora"}, 5e-3),
        ({"method": {"top": {"layers": 0}}, "lr": 1e-3}, 1e-3),
        ({"parent": "runs/earlier"}, 4e-4),  # 1e-4 at a width of 384
    ],
    ids=str,
)
def test_what_is_new_in_a_head_learns_faster_than_what_was_pretrained(
    more: dict[str, Any], wanted: float, tiny: Callable[..., Path]
) -> None:
    """`parent` is read later than this; a head that comes from one is not new."""
    spec = specs.read(base=str(tiny("bert")), task={"classify": {"pooling": "cls"}}, train="rows.csv", **more)
    base = load(spec.base)
    made = ready(spec, task_of(spec), ["a", "b"], base, choose("cpu", "fp32"), None)
    rates = {id(p): group["lr"] for group in groups(made.model, spec.train, made.lr) for p in group["params"]}
    named = {name: rates[id(p)] for name, p in made.model.named_parameters() if p.requires_grad}
    new = [rate for name, rate in named.items() if name.startswith("head.out.")]
    assert new == pytest.approx([wanted] * 2)
    assert {rate for name, rate in named.items() if not name.startswith("head.")} <= {made.lr}
    dense = {rate for name, rate in named.items() if name.startswith("head.dense.")}
    assert dense == {more.get("head_lr", made.lr)}  # it came with the base
