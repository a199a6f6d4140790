"""Spaces: what may be written, where its ends are, and every end checked before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest

from penjing.chains.asked import read
from penjing.chains.space import Axis, axes, corners, filled
from penjing.errors import NotSupported, SpecError

NESTED = {
    "lr": {"log": [1e-5, 1e-3]},
    "method": {
        "choose": [{"lora": {"rank": {"choose": [4, 16]}}}, {"top": {"layers": {"int": [1, 4]}}}, "bitfit"]
    },
    "steps": 10,
}


def complaint(**values: Any) -> str:
    with pytest.raises(SpecError) as caught:
        read(values)
    return str(caught.value)


def test_a_space_is_filled_axis_by_axis_and_only_the_chosen_option_is_asked_about() -> None:
    asked: list[Axis] = []

    def ask(axis: Axis) -> Any:
        asked.append(axis)
        return axis.ends[-1] if axis.key == "method.lora.rank" else axis.ends[0]

    assert filled(NESTED, ask) == {"lr": 1e-5, "method": {"lora": {"rank": 16}}, "steps": 10}
    assert [(axis.key, axis.kind) for axis in asked] == [
        ("lr", "log"),
        ("method", "choose"),
        ("method.lora.rank", "choose"),
    ]


def test_corners_are_each_end_of_each_axis_once() -> None:
    found = [settings for settings, _ in corners(NESTED)]
    assert found[0] == {"lr": 1e-5, "method": "lora", "method.lora.rank": 4}
    assert len(found) == 6
    assert {"lr": 1e-3, "method": "lora", "method.lora.rank": 4} in found
    assert {"lr": 1e-5, "method": "top", "method.top.layers": 4} in found
    assert {"lr": 1e-5, "method": "bitfit"} in found


def test_two_options_of_one_name_have_axes_of_their_own() -> None:
    twice = {"m": {"choose": [{"lora": {"rank": {"int": [1, 2]}}}, {"lora": {"rank": {"int": [8, 9]}}}]}}
    keys = {key for settings, _ in corners(twice) for key in settings}
    assert keys == {"m", "m[lora#1].lora.rank", "m[lora#2].lora.rank"}
    filled_at = filled(twice, lambda axis: {"m": "lora#2"}.get(axis.key, axis.ends[-1]))
    assert filled_at == {"m": {"lora": {"rank": 9}}}


def test_options_of_one_name_are_told_apart_by_what_is_written_in_them() -> None:
    scales = {"log": [0.5, 2.0]}
    values = {"m": {"choose": [{"top": {"layers": 0}}, {"lora": {}}, {"top": {"layers": 1, "x": scales}}]}}
    asked: list[Axis] = []
    whole = filled(values, lambda axis: asked.append(axis) or axis.ends[-1])  # type: ignore[func-returns-value]
    assert asked[0].options == ("top(layers=0)", "lora", "top(layers=1)")
    assert asked[1].key == "m[top(layers=1)].top.x"
    assert whole == {"m": {"top": {"layers": 1, "x": 2.0}}}


def test_options_may_be_numbers_and_lists() -> None:
    values = {"a": {"choose": [4, 16]}, "b": {"choose": [[0.9, 0.99], [0.9, 0.95]]}}
    settings = {"a": 16, "b": "[0.9, 0.95]"}
    assert filled(values, lambda axis: settings[axis.key]) == {"a": 16, "b": [0.9, 0.95]}
    assert [axis.key for axis in axes(values, settings)] == ["a", "b"]


def test_drawn_numbers_have_four_digits_and_stay_within_their_range() -> None:
    axis = Axis("lr", "log", 1.23456e-5, 2e-5)
    assert axis.value(1.987654e-5) == 1.988e-5
    assert axis.value(0.0) == 1.235e-5
    assert Axis("lr", "log", 1e-6, 1.23456e-5).value(1.0) == 1.23456e-5, "rounding up would leave the range"
    assert Axis("n", "int", 1, 4).value(2.6) == 3
    assert isinstance(Axis("n", "log_int", 1, 4).ends[0], int)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"log": [0, 1]}, "a logarithm needs numbers above 0"),
        ({"linear": [1, 0]}, "the lowest must come first"),
        ({"linear": [1]}, "takes two numbers"),
        ({"log": "1e-5"}, "takes two numbers"),
        ({"int": [1, 2.5]}, "both must be whole numbers"),
        ({"choose": []}, "takes a list of options"),
    ],
)
def test_a_space_that_is_written_wrongly_is_told_with_its_key(space: Any, said: str) -> None:
    text = complaint(train={"lr": space})
    assert "`train.lr" in text
    assert said in text


def test_rank_0_in_a_space_is_found_before_anything_is_loaded() -> None:
    text = complaint(base="/nowhere", method={"lora": {"rank": {"int": [0, 8]}}})
    assert "In the space, at method.lora.rank = 0" in text
    assert "`lora.rank` must be at least 1" in text


def test_the_far_end_of_a_range_is_checked_too() -> None:
    text = complaint(train={"lr": {"log": [1e-5, 1e-3]}, "dropout": {"linear": [0, 1.5]}})
    assert "train.dropout = 1.5" in text
    assert "less than 1" in text


def test_a_misspelt_setting_deep_in_a_space_is_told() -> None:
    text = complaint(method={"choose": ["bitfit", {"lora": {"rnk": {"choose": [4, 8]}}}]})
    assert "Did you mean `rank`?" in text


def test_a_space_with_one_point_says_use_tune() -> None:
    assert "use `penjing tune`" in complaint(train={"lr": 1e-3}, method={"choose": ["lora"]})


def test_a_spec_without_a_space_gets_the_usual_one() -> None:
    asked = read({"data": {"train": "a.csv"}})
    assert asked.usual
    tried = {one.method.name for one in asked.ends}
    assert tried == {"lora", "adapter", "top"}
    assert {one.train.lr_scale for one in asked.ends} == {0.3, 3.0}
    assert (
        read(asked.written()).values["method"] == asked.values["method"]
    )  # a resumed search looks at the same


@pytest.mark.parametrize(
    ("given", "open_"),
    [
        ({"method": "lora"}, {"train.lr_scale", "method.lora.rank"}),
        ({"method": {"lora": {"rank": 8}}}, {"train.lr_scale"}),
        ({"method": "bitfit"}, {"train.lr_scale"}),
        ({"method": "top", "train": {"lr": 1e-3}}, {"method.top.layers"}),
        ({"base": "bert-tiny"}, {"train.lr_scale"}),
    ],
)
def test_what_a_spec_says_stays_as_it_is_said(given: dict[str, Any], open_: set[str]) -> None:
    asked = read({"data": {"train": "a.csv"}, **given})
    assert {key for settings, _ in corners(asked.values) for key in settings} == open_


def test_what_all_trials_share_cannot_vary() -> None:
    text = complaint(data={"train": "a.csv", "text": {"choose": ["body", "title"]}})
    assert "`data.text` is a space; all trials of a search share it" in text


def test_keys_of_the_section_search_are_checked() -> None:
    assert "Did you mean `trials`?" in complaint(train={"lr": {"log": [1e-5, 1e-3]}}, search={"trial": 3})
    assert "`search.folds`" in complaint(train={"lr": {"log": [1e-5, 1e-3]}}, search={"folds": 1})


@pytest.mark.slow
def test_a_search_is_written_out_so_that_it_can_be_read_again() -> None:
    asked = read(
        {
            "data": {"train": "a.csv"},
            "search": {"trials": 4},
            "method": {"lora": {"rank": {"choose": [4, 8]}}},
        },
        sets=("search.minutes=3", "train.lr={log: [1e-5, 1e-3]}"),
    )
    again = read(asked.written())
    assert (again.search, again.values["method"]) == (asked.search, asked.values["method"])
    assert (again.search.trials, again.search.minutes) == (4, 3)
    assert again.first.data.train is not None
    assert str(again.first.data.train).startswith("/")
    assert again.spec({"train.lr": 1e-4, "method.lora.rank": 8}).train.lr == 1e-4


def test_a_search_over_several_tasks_can_be_read_again(tmp_path: Path) -> None:
    tasks = {"intent": {"task": "classify", "train": "a.csv"}, "slots": {"task": "tag", "train": "b.conll"}}
    written = read({"tasks": tasks, "train": {"lr": {"log": [1e-5, 1e-3]}}}).written()
    assert read(written).written() == written
    tasks["intent"]["weight"] = {"choose": [1, 2]}  # type: ignore[assignment]
    assert "is a space; all trials of a search share it" in complaint(tasks=tasks)


def test_settings_of_another_space_are_told() -> None:
    asked = read({"train": {"lr": {"log": [1e-5, 1e-3]}}, "method": {"choose": ["lora", "bitfit"]}})
    assert asked.spec({"train.lr": 1e-4, "method": "lora"}).method.name == "lora"
    for settings in ({"train.lr": 1e-4}, {"train.lr": 1e-4, "method": "full"}):
        with pytest.raises(NotSupported, match=r"now asks for `method` otherwise. Put the space back"):
            asked.spec(settings)


def test_a_search_names_its_folders_so_that_it_goes_on_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("old", "teacher", "b1"):
        (tmp_path / name).mkdir()
    asked = read(
        {
            "base": {"choose": ["b1", "minilm"]},
            "parent": "old",
            "method": "lora",
            "techniques": [{"distill": {"teacher": "teacher", "alpha": {"linear": [0.1, 0.9]}}}],
        }
    )
    written = asked.written()
    assert written["base"] == {"choose": [str(tmp_path / "b1"), "minilm"]}
    assert written["parent"] == str(tmp_path / "old")
    assert written["techniques"][0]["distill"]["teacher"] == str(tmp_path / "teacher")
    assert asked.first.parent == str(tmp_path / "old")
