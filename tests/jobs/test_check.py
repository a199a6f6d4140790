"""`check` finds what would go wrong without loading a weight, and all of it in one go."""

import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing import check
from penjing.errors import NotSupported, SpecError
from penjing.jobs import check as checking
from penjing.jobs.check import Finding, show_batch


def errors(found: list[Finding]) -> dict[str, str]:
    return {f.about: f.text for f in found if f.state == "error"}


def notes(found: list[Finding]) -> str:
    return "\n".join(f.text for f in found if f.state == "note")


def test_a_good_spec_has_no_error_and_tells_its_cost(small: dict[str, Any]) -> None:
    found = check(small)
    assert errors(found) == {}
    assert {"spec", "machine", "base", "rows", "out", "cost"} <= {f.about for f in found}
    cost = next(f.text for f in found if f.about == "cost")
    assert "parameters train; about" in cost
    assert "MiB of memory" in cost


@pytest.mark.parametrize("method", ["full", "lora", "top", "bitfit"])
def test_every_method_is_tried_on_shapes_alone(
    small: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    def loads(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("check loaded weights")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", loads)
    assert errors(check(small, method=method)) == {}


@pytest.mark.slow
def test_counts_on_shapes_are_those_of_the_run(small: dict[str, Any], tuned: Callable[..., Any]) -> None:
    cost = next(f.text for f in check(small, method="lora") if f.about == "cost")
    about = tuned("lora").read("lineage.json")["base"]
    assert cost.startswith(f"{about['trainable']:,} of {about['parameters']:,} parameters train")


def test_every_error_is_found_in_one_go(small: dict[str, Any]) -> None:
    found = errors(check(small, base="/nowhere", text="body", device="cuda:77"))
    assert set(found) == {"base", "rows", "machine"}


@pytest.mark.parametrize(
    ("given", "about", "parts"),
    [
        ({"max_length": 4000}, "base", ["`data.max_length` is 4000", "at most 128 tokens", "Set it to 128"]),
        ({"method": {"top": {"layers": 9}}}, "method", ["`top.layers` must be 0 to 2", "it is 9"]),
        ({"method": {"lora": {"targets": ["qeury"]}}}, "method", ["['qeury'] match no", "query"]),
        ({"task": {"classify": {"class_weights": {"biling": 2}}}}, "rows", ["`biling`", "`billing`"]),
        (
            {"task": {"classify": {"labels": ["billing", "account"]}}},
            "rows",
            ["`delivery`", "`classify.labels`"],
        ),
        ({"train": "nowhere.csv"}, "rows", ["nowhere.csv", "there is none"]),
        ({"text": "txet"}, "rows", ["txet", "text"]),
    ],
)
def test_what_would_stop_the_job_is_found(
    small: dict[str, Any], given: dict[str, Any], about: str, parts: list[str]
) -> None:
    if "train" in given:
        small["data"] = {}
    found = errors(check(small, **given))
    assert [p for p in parts if p not in found.get(about, "")] == [], found


def test_without_train_rows_it_says_what_to_give(small: dict[str, Any]) -> None:
    small["data"] = {}
    assert "`data.train` must name the rows" in errors(check(small))["rows"]


def test_a_spec_that_cannot_be_read_raises() -> None:
    with pytest.raises(SpecError):
        check({"epoch": 3})


def test_a_pickled_checkpoint_is_found_without_being_opened(
    small: dict[str, Any], tiny: Callable[..., Path], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny("bert"), tmp_path / "base"))
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    found = errors(check(small, base=str(base)))["base"]
    assert all(part in found for part in ("safetensors were wanted", "pytorch_model.bin", "convert it")), (
        found
    )
    assert not (tmp_path / "exploded").exists()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_a_truncated_checkpoint_is_found(
    small: dict[str, Any], tiny: Callable[..., Path], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny("bert"), tmp_path / "base"))
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[:-100])
    assert (
        "model.safetensors could not be read as safetensors" in errors(check(small, base=str(base)))["base"]
    )


def test_a_missing_shard_is_found(small: dict[str, Any], tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny("bert"), tmp_path / "base"))
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors is missing" in errors(check(small, base=str(base)))["base"]


def test_an_output_that_cannot_be_written_is_found(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file; runs need a folder" in errors(check(small, out=str(tmp_path / "file" / "runs")))["out"]


def test_a_folder_without_the_right_is_found(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert "cannot be written to" in errors(check(small))["out"]


def test_too_little_room_on_the_disk_is_found(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("U", (), {"free": 1000})())
    text = errors(check(small))["out"]
    assert "0 MiB free; the run takes about" in text
    assert "`method: lora`" in text


def test_too_little_memory_is_found(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "free_mib", lambda device: 0.1)
    assert "It does not fit. Try `method: lora`" in errors(check(small))["cost"]


@pytest.mark.slow
def test_an_unwritable_cache_is_told(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "file" / "c"))
    assert "Set PENJING_CACHE" in notes(check(small))


def test_rows_in_two_sets_and_rows_at_odds_are_told(
    small: dict[str, Any], tiny_csv: Path, tmp_path: Path
) -> None:
    lines = tiny_csv.read_text().splitlines()
    (tmp_path / "valid.csv").write_text("\n".join(lines[:8]) + "\n")
    small["data"]["valid"] = str(tmp_path / "valid.csv")
    tiny_csv.write_text("\n".join([*lines, lines[1].replace("billing", "account")]) + "\n")
    told = notes(check(small))
    assert "100.0% of valid is also in train: 7 rows word for word" in told
    assert "train: 1 text stands 2 times with unequal labels" in told


def test_few_rows_of_a_label_are_told_where_labels_are_classes(small: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"ticket {i} of {i * i},{'rare' if i % 20 == 0 else 'common'}" for i in range(1, 61)]
    (tmp_path / "few.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    small["data"]["train"] = str(tmp_path / "few.csv")
    assert "`class_weights: balanced`" in notes(check(small))
    numbers = "\n".join(["text,label", *(f"ticket {i} of {i * i},{i / 7}" for i in range(1, 41))])
    (tmp_path / "few.csv").write_text(numbers + "\n")
    assert "one row only" not in notes(check({**small, "task": "regress"}))


@pytest.mark.slow
def test_a_batch_is_shown_as_training_will_read_it(small: dict[str, Any]) -> None:
    from penjing import spec as specs
    from penjing.device import choose
    from penjing.jobs.prepare import load_base, part_of, rows_of, stream, task_of

    spec = specs.read(small)
    shown = show_batch(small, rows=3)
    task = task_of(spec)
    data = rows_of(spec, task)
    base = load_base(spec, choose("cpu", "fp32"))
    first = next(stream(spec, task, part_of(spec, task, data.train, data.names, base)))[0]
    ids = first.ids[: int(first.lengths[0])].tolist()
    assert shown[0].tokens == base.tokenizer.convert_ids_to_tokens(ids)
    assert shown[0].tokens[0] == "[CLS]"
    assert shown[0].learned == data.names[int(first.labels[0])]
    assert shown[0].where == data.train.where(first.rows[0])
    assert len(shown) == 3


def test_what_a_pretraining_takes_is_told(small: dict[str, Any], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(f"my parcel {i} is late and the invoice is wrong" for i in range(60)))
    keys = {key: small[key] for key in ("base", "device") if key in small}
    found = check({**keys, "task": "masked", "data": {"train": str(corpus)}, "train": {"steps": 4}})
    costs = [one for one in found if one.about == "cost"]
    assert [one.state for one in costs] == ["ok"], [one.text for one in found]
    assert "parameters train; about" in costs[0].text


def test_a_corpus_has_no_rows_to_show(small: dict[str, Any]) -> None:
    with pytest.raises(NotSupported, match=r"`task: masked` learns from a corpus.*Leave `--show-batch` out"):
        show_batch(small, task="masked")


def test_a_name_that_is_taken_is_found(small: dict[str, Any], tmp_path: Path) -> None:
    taken = tmp_path / "runs" / "mine"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("mine")
    found = errors(check(small, out=str(tmp_path / "runs"), name="mine"))
    assert "is there already. Give another name" in found["name"]


def test_a_warm_up_that_takes_every_step_is_told(small: dict[str, Any]) -> None:
    assert "`train.warmup` is 50 steps and the run makes 6" in notes(check(small, warmup=50))
    assert "warmup" not in notes(check(small, warmup=5))


def test_findings_have_three_states(small: dict[str, Any]) -> None:
    assert set(Counter(f.state for f in check(small))) <= {"ok", "note", "error"}
    assert torch.get_default_device().type == "cpu"


def test_a_base_of_another_language_is_told(small: dict[str, Any], tmp_path: Path) -> None:
    thai = "".join(f"{chr(0xE01 + i) * 9} {chr(0xE02 + i) * 7},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "thai.csv").write_text(f"text,label\n{thai}", encoding="utf-8")
    assert "tokens are unknown to" in notes(check({**small, "data": {"train": str(tmp_path / "thai.csv")}}))
    assert "tokens are unknown to" not in notes(check(small))
