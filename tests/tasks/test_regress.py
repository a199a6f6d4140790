"""Numbers: scaled for learning, given back in their own unit, saved with their scale; bad rows told."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import as_csv, put, told
from penjing import evaluate, load, tune
from penjing.data.batches import halves, packed
from penjing.errors import DataError, SpecError
from penjing.models.load import load as load_base
from penjing.models.model import Model
from penjing.task import Task
from penjing.tasks.pair import pair
from penjing.tasks.regress import regress

Tiny = Callable[..., Path]
ROWS = [(f"order {i} was {'good ' * (i % 5)}", str(i % 5 * 10), f"{(i % 5) / 2 - 1}") for i in range(50)]


@pytest.fixture
def stars_csv(tmp_path: Path) -> Path:
    return put(tmp_path, "stars.csv", as_csv(ROWS, head="text,stars,mood"))


def test_numbers_come_back_in_their_own_unit(stars_csv: Path) -> None:
    task = regress()
    rows = task.rows(str(stars_csv), label="stars+mood")
    names = task.label_names(rows)
    targets = task.encode(rows, names)
    assert (names, targets.shape) == (["stars", "mood"], (50, 2))
    assert task.measure is not None
    measured = task.measure(rows, names)
    assert measured.settled == {
        "mean": pytest.approx([20, 0]),
        "spread": pytest.approx([200**0.5, 0.5**0.5]),
    }
    back = measured.probabilities(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert back == pytest.approx(np.array([[20, 0], [20 + 200**0.5, -(0.5**0.5)]]))


@pytest.mark.parametrize(
    ("name", "own"), [("squares", F.mse_loss), ("absolute", F.l1_loss), ("huber", F.huber_loss)]
)
def test_the_loss_is_that_of_scaled_numbers_and_halves_sum_to_it(
    name: Any, own: Any, stars_csv: Path, tiny: Tiny
) -> None:
    task = regress(mean=[20.0, 0.0], spread=[10.0, 0.5], loss=name)
    base = load_base(str(tiny("bert")))
    rows = task.rows(str(stars_csv), label="stars+mood")
    names = task.label_names(rows)
    from penjing.data.parts import part_of

    part = part_of(task, base, rows, names, 32)
    model = Model(base.trunk, task.head(base.width, names, "mean", None), base.way).eval()
    batch = packed(part, np.arange(9))
    wanted = torch.from_numpy(part.targets[list(batch.rows)]) - torch.tensor([20.0, 0.0])
    both = halves(batch)
    assert both is not None
    with torch.no_grad():
        found = task.loss(model, batch)
        assert found.outputs is not None
        own_loss = own(found.outputs, wanted / torch.tensor([10.0, 0.5]))
        summed = sum(task.loss(model, half).mean * half.n_targets for half in both) / batch.n_targets
    assert float(found.mean) == pytest.approx(float(own_loss), rel=1e-5)
    assert float(summed) == pytest.approx(float(found.mean), rel=1e-5)


def test_answers_bear_the_names_of_their_columns() -> None:
    task = regress()
    answers = task.answers(np.array([[1.5, 2.0]]), ["price", "stars"], {})
    assert answers == [{"price": 1.5, "stars": 2.0}]
    assert task.say(answers[0]) == "1.5\t2"


def test_the_furthest_off_are_told_with_their_texts(stars_csv: Path) -> None:
    task = regress()
    rows = task.rows(str(stars_csv), label="stars").take([0, 4])
    wrong = task.mistakes(np.array([[0.0], [0.0]]), rows, np.array([[0.0], [40.0]]), ["stars"], {})  # type: ignore[misc]
    assert (wrong[1]["given"], wrong[1]["predicted"], wrong[1]["where"]) == (
        "40",
        "0",
        f"{stars_csv}, line 6",
    )
    assert wrong[1]["error"] > wrong[0]["error"]


@pytest.mark.parametrize("bad", ["good", "inf", "1.000,5"])
def test_labels_that_are_no_numbers_are_told(tmp_path: Path, bad: str) -> None:
    csv = put(tmp_path, "r.csv", as_csv([("a text", "1"), ("b text", bad)], head="text,score"))
    task = regress()
    with pytest.raises(DataError) as error:
        task.encode(task.rows(str(csv)), ["score"])
    told(error, "r.csv, line 3", "a finite number was wanted", f"`{bad}`", "label:")


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [({}, [-1, 2, 7]), ({"low": 0.0, "high": 5.0}, [0, 2, 5]), ({"high": 5.0}, [-1, 2, 5])],
)
@pytest.mark.parametrize("of", [regress, partial(pair, scores=True)])
def test_answers_are_held_to_the_range_and_scores_are_not(
    of: Callable[..., Task], limits: dict[str, float], wanted: list[float]
) -> None:
    task, found, targets = of(**limits), np.array([[-1.0], [2.0], [7.0]]), np.array([[0.0], [2.0], [5.0]])
    assert [row["score"] for row in task.answers(found, ["score"], {})] == wanted
    scores = task.score(found, targets, ["score"], {}).values
    assert scores["mae"] == pytest.approx(1.0)
    assert task.within == (limits.get("low"), limits.get("high"))


def test_an_empty_number_is_told(tmp_path: Path) -> None:
    csv = put(tmp_path, "r.csv", as_csv([("a text", "1"), ("b text", "NaN")], head="text,score"))
    with pytest.raises(DataError, match=r"line 3: the label in `score` is empty.*drop_empty"):
        regress().rows(str(csv))


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["3,5", "-2", "1,25"], [3.5, -2, 1.25]),
        (["1,234", "0,5", "2"], [1.234, 0.5, 2]),  # one that parts no thousands says what all are
        (["0,123", "0,456", "1"], [0.123, 0.456, 1]),
    ],
)
@pytest.mark.parametrize("head", ["text;score", "text;wie_gut"])
def test_decimal_commas_of_a_whole_column_are_read_and_told(
    cells: list[str], wanted: list[float], head: str, tmp_path: Path
) -> None:
    lines = [f"Artikel {i}, wie bestellt;{cell}" for i, cell in enumerate(cells)]
    csv = put(tmp_path, "r.csv", "\n".join([head, *lines]))
    rows = regress().rows(str(csv))
    assert regress().encode(rows, ["score"])[:, 0].tolist() == pytest.approx(wanted)
    assert any("decimal comma" in note for note in rows.notes)
    both = put(tmp_path, "p.csv", "\n".join(["sentence1;sentence2;score", *(f"a;{one}" for one in lines)]))
    scored = pair(scores=True).rows(str(both))
    assert pair(scores=True).encode(scored, ["score"])[:, 0].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("cells", [["1,234", "2,500"], ["3,5", "2.5"], ["1.234,5", "2"], ["1_000", "2"]])
def test_numbers_that_may_be_two_are_none(cells: list[str], tmp_path: Path) -> None:
    csv = put(tmp_path, "r.csv", "\n".join(["text;score", *(f"Artikel;{cell}" for cell in cells)]))
    with pytest.raises(DataError) as error:
        regress().encode(regress().rows(str(csv)), ["score"])
    told(error, "line 2", f"`{cells[0]}`", "Decimals are written with a point" if "," in cells[0] else "Mend")


def test_numbers_that_do_not_differ_are_told(tmp_path: Path) -> None:
    csv = put(tmp_path, "r.csv", as_csv([("a text", "3"), ("b text", "3")], head="text,score"))
    task = regress()
    assert task.measure is not None
    with pytest.raises(DataError, match=r"all 2 train rows have `score` 3.*data.label"):
        task.measure(task.rows(str(csv)), ["score"])


def test_a_split_that_lacks_a_number_is_told(stars_csv: Path) -> None:
    task = regress()
    rows = task.rows(str(stars_csv), label="stars")
    with pytest.raises(
        DataError, match=r"line 2: a number `mood` was wanted; the row has stars.*stars, mood"
    ):
        task.encode(rows, ["stars", "mood"])
    assert task.encode(rows, ["rating"])[4, 0] == 40  # one number may be called otherwise


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low": 1.0, "high": 1.0}, "`regress.low` must be below"),
        ({"mean": [1.0]}, "go together"),
        ({"mean": [1.0], "spread": [0.0]}, "every spread above 0"),
        ({"head_dropout": 1.0}, "`regress.head_dropout`"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        regress(**settings)


@pytest.mark.slow
def test_a_run_of_numbers_is_saved_with_its_scale_and_answers_texts(
    small: dict[str, Any], stars_csv: Path
) -> None:
    small["data"] = {"train": str(stars_csv), "test": str(stars_csv), "label": "stars+mood"}
    run = tune(**small, task="regress")
    bundle = load(run.folder)
    assert bundle.card["task"]["regress"]["mean"] == pytest.approx([20, 0], abs=3)
    assert isinstance(bundle.model.head, nn.Module)
    found = evaluate(bundle, str(stars_csv), label="stars+mood")
    assert found["values"] == pytest.approx(run.result["after"]["values"])
    assert list(bundle.predict(["order 3 was good"])[0]) == ["stars", "mood"]
    assert run.result["baseline"]["values"]["r2"] > 0.8
    assert {row["name"] for row in run.result["after"]["tables"]["per_number"]} == {"stars", "mood"}
