"""What was asked for: three ways in, one set of rules."""

from pathlib import Path
from typing import Any

import pytest

from penjing import spec
from penjing.errors import SpecError


def said(**given: Any) -> str:
    with pytest.raises(SpecError) as error:
        spec.read(**given)
    return str(error.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_file_sets_and_keywords_say_the_same(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "method: {lora: {rank: 8}}\ntrain: {lr: 1e-4, steps: 7}\n")
    by_file = spec.read(file)
    by_sets = spec.read(sets=["method.lora.rank=8", "train.lr=1e-4", "train.steps=7"])
    by_keywords = spec.read(method={"lora": {"rank": 8}}, lr=1e-4, steps=7)
    assert by_file == by_sets == by_keywords


def test_written_spec_reads_as_itself_and_names_every_default() -> None:
    first = spec.read(method="lora", train="a.csv", lr=3e-4)
    assert spec.read(first.written()) == first == spec.read(first)
    assert first.written()["method"]["lora"]["rank"] == 16
    assert first.written()["train"]["schedule"] == "linear"


def test_reading_changes_neither_the_mapping_nor_the_spec_it_reads() -> None:
    given: dict[str, Any] = {"method": {"lora": {"rank": 4}}, "train": {"lr": 1.0}}
    first = spec.read(given)
    spec.read(first, sets=["method.lora.rank=9", "train.lr=2"])
    spec.read(given, sets=["method.lora.rank=9", "train.lr=2"])
    assert given == {"method": {"lora": {"rank": 4}}, "train": {"lr": 1.0}}
    assert first.method.settings["rank"] == 4


@pytest.mark.parametrize("word", ["1e-4", "1E-4", "0.0001", 1e-4])
def test_a_number_that_yaml_1_1_takes_for_a_string_is_a_number(word: Any) -> None:
    assert spec.read({"train": {"lr": word}}).train.lr == 1e-4
    assert spec.read({"method": {"lora": {"alpha": word}}}).method.settings["alpha"] == 1e-4
    assert spec.read(sets=[f"train.lr={word}"]).train.lr == 1e-4


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    assert spec.read(sets=["train.steps=1e3"]).train.steps == 1000


def test_a_name_that_looks_like_a_number_stays_as_written() -> None:
    assert spec.read(sets=["name=007"]).name == "007"
    assert spec.read({"name": 2024}).name == "2024"


def test_a_setting_may_be_laid_over_a_plain_name() -> None:
    assert spec.read(method="lora", sets=["method.rank=4"]).method.settings["rank"] == 4
    assert spec.read({"method": "full"}, sets=["method.lora.rank=4"]).method.name == "lora"
    assert spec.read({"method": {"lora": None}}, sets=["method.lora.rank=4"]).method.settings["rank"] == 4
    settings = spec.read(sets=["task.class_weights.billing=2"]).task.settings
    assert settings["class_weights"] == {"billing": 2.0}


def test_a_section_given_as_keyword_is_laid_over_key_by_key() -> None:
    read = spec.read({"train": {"lr": 1e-3, "batch": 4}}, train={"batch": 8})
    assert (read.train.lr, read.train.batch) == (1e-3, 8)


def test_none_turns_a_thing_off() -> None:
    assert spec.read(clip=None).train.clip is None
    assert (
        spec.read({"train": {"epochs": 3}}, sets=["train.epochs=null", "train.steps=5"]).train.epochs is None
    )


def test_anchored_paths_hold_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    anchored = spec.read(base="base", train=["a.csv", "hf:imdb"], test="/b.csv").anchored()
    assert anchored.base == str(tmp_path / "base")
    assert anchored.data.train == [str(tmp_path / "a.csv"), "hf:imdb"]
    assert anchored.data.test == "/b.csv"
    for name in ("a.en", "a.de"):
        (tmp_path / name).write_text("")
    both = spec.read(base="base", train="a.en+a.de").anchored().data.train
    assert both == f"{tmp_path / 'a.en'}+{tmp_path / 'a.de'}"
    assert spec.read(base="minilm").anchored().base == "minilm"


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"lrr": 1}, ["`lrr` is not a key", "Did you mean `train.lr`"]),
        ({"epoch": 3}, ["`epoch` is not a key", "`train.epochs`"]),
        ({"betas": [0.9, 1.5]}, ["`train.betas`", "less than 1", "1.5", "Change it in the spec"]),
        ({"seed": 2**32}, ["`seed`", "less than 4294967296", "Change it in the spec"]),
        ({"lr": 1e-3, "lr_scale": 2}, ["`train.lr_scale` (2)", "`train.lr` (0.001)", "Keep one"]),
        ({"source": {"lr": 1}}, ["`lr` is not a key", "`train.lr`"]),
        ({"source": {"train": {"max_length": 9}}}, ["`train.max_length`", "Did you mean `data.max_length`"]),
        ({"source": {"train": "a.csv"}}, ["`train` must hold keys", "'a.csv'", "under `data"]),
        ({"method": "loar"}, ["`loar` is not one of the methods", "Did you mean `lora`"]),
        ({"method": {"lora": {"rnk": 8}}}, ["`lora.rnk` is not a setting", "`rank`?", "penjing show"]),
        ({"method": {"lora": {"rank": "many"}}}, ["`lora.rank` must be int", "'many'", "penjing show"]),
        ({"method": {"lora": 8}}, ["`method.lora` must hold settings", "8"]),
        ({"method": ["lora"]}, ["`method` must be a name", "['lora']", "penjing list"]),
        ({"method": "no.such.thing"}, ["`no.such.thing`", "could not be imported", "Python path"]),
        ({"method": "os.path"}, ["must be a function", "module"]),
        ({"batch": 0}, ["`train.batch`", "greater than or equal to 1", "it is 0", "--set train.batch"]),
        ({"lr": float("inf")}, ["`train.lr`", "finite"]),
        ({"batch": 0, "lr": "x"}, ["`train.batch`", "`train.lr`"]),
        ({"language": "fr"}, ["`language`", "'fr'", "'en' or 'zh'"]),
        ({"techniques": "ema"}, ["`techniques` must be a list", "'ema'"]),
        ({"epochs": 1, "steps": 2}, ["`train.epochs` (1)", "`train.steps` (2)", "Keep one"]),
        ({"optimizer": "sgd", "eps": 1e-3}, ["`train.eps` is 0.001", "`sgd` does not use it", "Drop it"]),
        ({"valid": "v.csv", "valid_share": 0.3}, ["`data.valid_share` is 0.3", "Keep one"]),
        ({"patience": 2, "evals": 0}, ["`train.patience` (2)", "`train.evals` is 0"]),
        ({"name": "../up"}, ["`name`", "'../up'", "`out:`"]),
        ({"sets": ["train.lr"]}, ["key=value", "`train.lr`"]),
        ({"sets": ["train.lr={"]}, ["not YAML", "quotes"]),
        ({"sets": ["train.lr=1", "train.lr=2"]}, ["`train.lr` is given twice", "Keep one"]),
        ({"sets": ["train.lr=1"], "lr": 2}, ["`train.lr` is given twice", "1", "2"]),
        ({"sets": ["method.lora.rank=1"], "method": "full"}, ["`method` is given as `full`", "`lora`"]),
        ({"sets": ["seed.x=1"], "source": {"seed": 1}}, ["`seed.x` cannot be set", "1"]),
        ({"sets": ["train=a.csv"]}, ["Files belong under `data"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_to_do(given: dict[str, Any], parts: list[str]) -> None:
    text = said(**given)
    assert [part for part in parts if part not in text] == [], text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train: [", ["not readable as YAML", "Mend that line"]),
        ("- a\n", ["its top is a list"]),
        ("train:\n  lr: 1\n  lr: 2\n", ["line 3", "`lr` is given a second time", "Keep one"]),
        ("name: \xff", ["not readable as YAML"]),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode("latin-1"))
    found = said(source=path)
    assert [part for part in [str(path), *parts] if part not in found] == [], found


def test_a_missing_file_offers_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "tickets.yaml", "seed: 1\n")
    text = said(source=tmp_path / "ticket.yaml")
    assert "there is none. Did you mean `tickets.yaml`?" in text


def test_a_run_folder_in_place_of_its_spec_offers_the_spec(tmp_path: Path) -> None:
    write(tmp_path / "spec.yaml", "seed: 1\n")
    assert f"did you mean `{tmp_path / 'spec.yaml'}`" in said(source=tmp_path)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert spec.read(write(tmp_path / "a.yaml", "# nothing\n")) == spec.read()


def test_teachers_and_their_rows_are_anchored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/t").mkdir(parents=True)
    given = spec.read(techniques=[{"distill": {"teacher": ["runs/t", "minilm"], "unlabelled": "more.csv"}}])
    found = given.anchored().techniques[0].settings
    assert found["teacher"] == [str(tmp_path / "runs/t"), "minilm"]
    assert found["unlabelled"] == str(tmp_path / "more.csv")
    prefer = spec.read(task={"prefer": {"reference": "runs/t"}}).anchored().task.settings
    assert prefer["reference"] == str(tmp_path / "runs/t")


@pytest.mark.parametrize("sign", ["|", "#", ",", "-", " ", ";"])
def test_a_sign_on_the_command_line_is_itself(sign: str) -> None:
    assert spec.read(sets=[f"data.delimiter={sign}"]).data.delimiter == sign


def test_a_task_and_a_method_with_settings_are_read_from_one_line() -> None:
    found = spec.read(
        task="{classify: {label_smoothing: 0.1}}", method="{lora: {rank: 4}}", sets=["method.alpha=8"]
    )
    assert found.task.settings["label_smoothing"] == 0.1
    assert (found.method.settings["rank"], found.method.settings["alpha"]) == (4, 8)
    with pytest.raises(SpecError, match=r"--task \{classify: \[1.*is not YAML"):
        spec.read(task="{classify: [1")
