"""Every bad input ends in one text with four parts: what was wanted, what was found, where, what to do.

Others stand beside what they belong to: tests/test_bundle.py, tests/test_spec.py, tests/jobs/.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from penjing import tune
from penjing.errors import DataError, NotSupported, PenjingError
from penjing.files import CannotWrite
from penjing.models.load import find, load


def told(kind: type[PenjingError], job: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(kind) as error:
        job()
    text = str(error.value)
    assert [part for part in parts if part not in text] == [], text
    assert "\n" not in text.strip()


@pytest.fixture
def rows(small: dict[str, Any], tmp_path: Path) -> Callable[[bytes | str], Callable[[], Any]]:
    """`rows(content)` -> a job that tunes on a file of this content."""

    def of(content: bytes | str) -> Callable[[], Any]:
        path = tmp_path / "rows.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return lambda: tune({**small, "data": {"train": str(path)}})

    return of


Rows = Callable[[bytes | str], Callable[[], Any]]


def test_a_missing_file(small: dict[str, Any], tiny_csv: Path) -> None:
    small["data"] = {"train": str(tiny_csv.with_name("ticket.csv"))}
    told(
        DataError,
        lambda: tune(small),
        "was wanted at",
        "there is none",
        "Did you mean `tickets.csv`?",
        "Give a",
    )


def test_a_missing_column(small: dict[str, Any]) -> None:
    told(DataError, lambda: tune(small, label="lable"), "tickets.csv", "lable", "Did you mean `label`?")


def test_an_empty_file(rows: Rows) -> None:
    told(DataError, rows(""), "rows.csv", "was to hold rows", "it is empty (0 bytes)", "Give a file")


def test_a_file_of_a_head_alone(rows: Rows) -> None:
    told(DataError, rows("text,label\n"), "rows.csv", "no row")


def test_one_class_only(rows: Rows) -> None:
    content = "text,label\n" + "".join(f"text {i},same\n" for i in range(20))
    told(
        DataError,
        rows(content),
        "At least two classes were wanted",
        "only `same`",
        "`data.label`",
        "add rows",
    )


def test_an_empty_label(rows: Rows) -> None:
    told(
        DataError,
        rows("text,label\na,x\nb,\nc,y\n"),
        "line 3",
        "the label is empty",
        "1 of 3 rows",
        "drop_empty",
    )


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_label_unseen_in_training(small: dict[str, Any], tmp_path: Path, part: str) -> None:
    path = tmp_path / "new.csv"
    path.write_text("text,label\nlate,delivery\ncharged,biling\n")
    small["data"][part] = str(path)
    parts = (
        "new.csv, line 3",
        "`biling`",
        "is not among the 3 labels of training",
        "`billing`?",
        "Mend them",
        "named in the task's `labels`",
    )
    told(DataError, lambda: tune(small), *parts)


def test_another_kind_of_file(rows: Rows) -> None:
    told(DataError, rows(b"text,label\n\x00\x01,a\n"), "rows.csv", "holds zero bytes", "Give CSV")


def test_bytes_that_are_no_text(rows: Rows) -> None:
    content = (
        b"text,label\n"
        + b"".join(b"good %d,a\nalso %d,b\n" % (i, i) for i in range(20))
        + b"\xff\xfe\x81,a\n"
    )
    told(DataError, rows(content), "rows.csv", "encoding")


@pytest.mark.slow
def test_a_row_of_100_000_characters_works_and_is_told(small: dict[str, Any], tiny_csv: Path) -> None:
    with tiny_csv.open("a") as stream:
        stream.write(f'"{"late " * 20_000}",delivery\n')
    news: list[str] = []
    tune(small, steps=1, tell=lambda one: news.append(one.text))
    assert any("row is longer than 128 tokens; its end is cut" in text for text in news)


@pytest.fixture
def base(tiny: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("bert"), tmp_path / "base"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_base() -> None:
    told(NotSupported, lambda: find("/no/such"), "A base was wanted in the folder /no/such", "none", "minilm")


def test_an_unknown_name_without_a_hub() -> None:
    told(NotSupported, lambda: find("minilmm"), "`minilmm` is neither a preset nor a local folder",
         "the hub cannot be reached", "Did you mean `minilm`?", "give its path")  # fmt: skip


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    told(
        NotSupported, lambda: load(str(tmp_path)), "A base was wanted in", "no config.json", "Give the folder"
    )


def test_a_broken_config(base: Path) -> None:
    (base / "config.json").write_text('{"model_type": "bert",')
    told(NotSupported, lambda: load(str(base)), "config.json is not readable as JSON", "fetch it again")


def test_an_unknown_family(base: Path) -> None:
    edit(base / "config.json", model_type="brand_new")
    told(
        NotSupported,
        lambda: load(str(base)),
        "config.json of the base in",
        "brand_new",
        "update transformers",
    )


def test_a_truncated_checkpoint(base: Path) -> None:
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[: len(content) // 2])
    told(NotSupported, lambda: load(str(base)), "model.safetensors could not be read", "cut off", "fetch")


def test_missing_tensors(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    lost = next(name for name in tensors if "layer.1.attention.self.query.weight" in name)
    del tensors[lost]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    told(NotSupported, lambda: load(str(base)), "lacks weights", "layer.1.attention.self.query", "1 missing")


def test_tensors_of_another_shape(base: Path) -> None:
    edit(base / "config.json", intermediate_size=48)
    told(NotSupported, lambda: load(str(base)), "layer.0.intermediate", "6 of another shape", "fetch it")


def test_a_tokenizer_of_another_checkpoint(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors = {k: v[:100].clone() if v.ndim and v.shape[0] > 200 else v for k, v in tensors.items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    edit(base / "config.json", vocab_size=100)
    told(NotSupported, lambda: load(str(base)), "gives ids up to", "has 100 rows", "not of one checkpoint")


@pytest.mark.parametrize("family", ["bert", "gpt2", "roberta"])
def test_weights_without_a_tokenizer(family: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    """transformers makes one of config.json, which knows special tokens alone."""
    base = Path(shutil.copytree(tiny(family), tmp_path / "base"))
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").unlink()
    told(NotSupported, lambda: load(str(base)), f"A tokenizer was wanted in {base}", "are not there",
         "AutoTokenizer.from_pretrained(NAME)")  # fmt: skip


def test_a_pickled_checkpoint_is_never_opened(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(str(tmp_path / "exploded"))))
    told(NotSupported, lambda: load(str(base)), "Weights in safetensors were wanted", "pytorch_model.bin",
         "can run code", "convert it")  # fmt: skip
    assert not (tmp_path / "exploded").exists()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_code_in_a_checkpoint_is_never_run(base: Path, tmp_path: Path) -> None:
    edit(base / "config.json", model_type="own_bert", auto_map={"AutoModel": "modeling_own.Own"})
    (base / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    told(
        NotSupported, lambda: load(str(base)), "wants its own Python code to be run", "AutoModel", "never run"
    )
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_family_that_transformers_has_is_passed_over(base: Path, tmp_path: Path) -> None:
    edit(base / "config.json", auto_map={"AutoModel": "modeling_own.Own"})
    (base / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert load(str(base)).width == 32
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    told(
        CannotWrite,
        lambda: tune(small, out=str(tmp_path / "locked")),
        "was to be written",
        "Permission denied",
    )


def test_a_file_in_place_of_the_output_folder(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told(CannotWrite, lambda: tune(small, out=str(tmp_path / "file"), name="a"), "file/a was to be written",
         "Not a directory", "another folder with `out:`")  # fmt: skip
