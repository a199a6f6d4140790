"""A bundle is what it was saved as, bit for bit, and opens in other libraries; damaged ones are refused."""

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penjing import bundle as bundles
from penjing import load, tune
from penjing.device import choose
from penjing.engine.scoring import outputs
from penjing.errors import DataError, NotSupported, SpecError
from penjing.files import sha256
from penjing.jobs.prepare import card_of, load_base, part_of, ready, rows_of, task_of
from penjing.models.heads import ClassHead
from penjing.models.load import load as open_base
from penjing.models.model import Model
from penjing.objectives.mixed import mixed

METHODS = ("full", "lora", "top", "bitfit", "adapter", "prompt", "prefix", "p_tuning", "side")
TEXTS = ["my card was charged twice", "the parcel is late", "i cannot log in"]
Tuned = Callable[..., Any]


class Table(list[str]):
    """As pandas has it: to go over a table is to go over the names of its columns."""

    columns = ("text", "label")


@pytest.fixture
def copy(tuned: Tuned, tmp_path: Path) -> Callable[[str], Path]:
    def of(method: str) -> Path:
        return Path(shutil.copytree(tuned(method).folder / "best", tmp_path / "copy"))

    return of


def reseal(folder: Path, **changes: Any) -> None:
    """Write the card anew with the files' present hashes, as somebody who means harm would."""
    card = json.loads((folder / "card.json").read_text())
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "card.json"]
    card["files"] = {p.relative_to(folder).as_posix(): sha256(p) for p in files}
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def refusal(folder: Path, *parts: str, **given: Any) -> None:
    with pytest.raises(NotSupported) as error:
        load(folder, **given)
    assert [p for p in parts if p not in str(error.value)] == [], str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_bundle_answers_as_the_model_that_was_saved_bit_for_bit(
    tuned: Tuned, tmp_path: Path, method: str, precision: str
) -> None:
    spec = tuned(method).spec
    task, machine = task_of(spec), choose("cpu", precision)
    data = rows_of(spec, task)
    base = load_base(spec, machine)
    part = part_of(spec, task, data.train, data.names, base)
    made = ready(spec, task, data.names, base, machine, np.unique(part.tokens.ids))
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    made.model.eval()
    before = outputs(made.model, part.tokens)
    card = {**card_of(spec, task, machine, data.names, made), "chosen": {}}
    bundles.save(tmp_path / "b", model=made.model, base=base, saves=made.method.saves, card=card)
    after = outputs(load(tmp_path / "b", machine=machine).model, part.tokens)
    assert torch.equal(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_best_bundle_scores_what_its_validation_scored(tuned: Tuned, method: str) -> None:
    run = tuned(method)
    assert run.result["after"]["values"]["accuracy"] == pytest.approx(run.result["best_score"])


@pytest.mark.slow
def test_an_adapter_opens_in_peft_with_equal_states(tuned: Tuned) -> None:
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    bundle = load(tuned("lora").folder, precision="fp32", device="cpu")
    base = AutoModel.from_pretrained(bundle.card["base"]["name"], dtype=torch.float32)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(base, bundle.folder / "adapter").eval()
        tokenizer = AutoTokenizer.from_pretrained(bundle.folder / "tokenizer")
        for text in TEXTS:
            theirs = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            ours = bundle.model.states(_batch(bundle, text))
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_full_trunk_opens_in_transformers_with_equal_states(tuned: Tuned) -> None:
    from transformers import AutoModel, AutoTokenizer

    bundle = load(tuned("full").folder, precision="fp32", device="cpu")
    model = AutoModel.from_pretrained(bundle.folder / "trunk", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(bundle.folder / "tokenizer")
    with torch.no_grad():
        for text in TEXTS:
            theirs = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            torch.testing.assert_close(
                bundle.model.states(_batch(bundle, text)), theirs, atol=1e-5, rtol=1e-5
            )


def _batch(bundle: Any, text: str) -> Any:
    from penjing.data.batches import pack

    return pack(bundle.tokens([text]), np.array([0]))


@pytest.mark.slow
def test_only_safetensors_json_and_text_lie_in_a_bundle(tuned: Tuned) -> None:
    kinds = {p.suffix for m in METHODS for p in (tuned(m).folder / "best").rglob("*") if p.is_file()}
    assert kinds <= {".safetensors", ".json", ".txt", ".jinja"}


@pytest.mark.slow
def test_a_bundle_says_what_it_is(tuned: Tuned) -> None:
    text = repr(tuned("lora").bundle)
    assert text.startswith("Bundle('")
    assert "classify, 3 labels" in text
    assert text.endswith("by lora)")


def test_answers_come_in_order_with_label_confidence_and_scores(tuned: Tuned) -> None:
    bundle = tuned().bundle
    answers = bundle.predict(text for text in TEXTS)  # any iterable
    assert len(answers) == 3
    assert all(set(a["scores"]) == set(bundle.labels) for a in answers)
    assert all(a["confidence"] == max(a["scores"].values()) for a in answers)
    assert answers[2]["scores"] == pytest.approx(bundle.predict(TEXTS[2:])[0]["scores"], abs=1e-5)
    assert bundle.predict([]) == []


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        ("one text", ["takes a list of texts", "str 'one text'", "predict([text])"]),
        (["a", None], ["item 2 of 2", "NoneType", "Make it a string"]),
        (7, ["takes a list of texts", "int '7'"]),
        ({"text": "one text"}, ["takes a list of texts", "dict"]),
        (Table(["text", "label"]), ["predict(table[name])"]),
    ],
)
def test_what_is_no_list_of_texts_is_refused(tuned: Tuned, texts: Any, parts: list[str]) -> None:
    with pytest.raises(DataError) as error:
        tuned().bundle.predict(texts)
    assert [p for p in parts if p not in str(error.value)] == []


def test_a_text_of_100_000_characters_is_cut_and_counted(tuned: Tuned) -> None:
    bundle = tuned().bundle
    assert bundle.tokens(["late " * 20_000, "late"]).cut == 1
    assert len(bundle.predict(["late " * 20_000])) == 1


@pytest.mark.slow
def test_a_bundle_of_a_base_named_by_a_relative_path_opens_from_any_folder(
    small: dict[str, Any], tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny("bert"), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    run = tune({**small, "base": "base", "method": "lora", "train": {"steps": 1}})
    monkeypatch.chdir("/")
    assert len(load(run.folder).predict(TEXTS)) == 3


@pytest.mark.slow
def test_a_base_that_moved_is_named_and_can_be_given(
    small: dict[str, Any], tiny: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny("bert"), tmp_path / "base")
    run = tune({**small, "base": str(tmp_path / "base"), "method": "lora", "train": {"steps": 1}})
    (tmp_path / "base").rename(tmp_path / "moved")
    refusal(run.folder, "needs the base it was made over", f"{tmp_path / 'base'}", "--base FOLDER")
    assert len(load(run.folder, base=str(tmp_path / "moved")).predict(TEXTS)) == 3


@pytest.mark.slow
def test_a_bundle_over_another_base_is_refused(tuned: Tuned, tiny: Callable[..., Path]) -> None:
    other = str(tiny("bert", intermediate_size=32))
    refusal(tuned("lora").folder, "was made over the base", "SHA-256", other, "--base", base=other)


def test_a_base_for_a_bundle_that_needs_none_is_refused(tuned: Tuned) -> None:
    with pytest.raises(SpecError, match="holds all its weights and needs no base"):
        load(tuned("full").folder, base="minilm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name"), [("full", "trunk/model.safetensors"), ("top", "changed.safetensors")]
)
def test_a_changed_file_is_refused(copy: Callable[[str], Path], method: str, name: str) -> None:
    folder = copy(method)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    refusal(folder, name, "is not as it was saved (another SHA-256)", "copy it again")


def test_a_missing_file_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    (folder / "head.safetensors").unlink()
    refusal(folder, "head.safetensors is missing", "copy it again")


def test_a_pickled_adapter_is_refused_whatever_the_card_says(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy("lora")
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    (folder / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps({"a": 1}))
    reseal(folder)
    refusal(folder, "adapter_model.safetensors was wanted", "pickle", "tune anew")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name", "part"),
    [
        ("lora", "adapter/adapter_model.safetensors", "could not be"),
        ("bitfit", "changed.safetensors", "could not be read as safetensors"),
        ("full", "head.safetensors", "could not be read as safetensors"),
        ("full", "trunk/model.safetensors", "could not be read as safetensors"),
    ],
)
def test_a_truncated_file_with_a_fitting_hash_is_refused(
    copy: Callable[[str], Path], method: str, name: str, part: str
) -> None:
    folder = copy(method)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    reseal(folder)
    refusal(folder, part)


def test_a_head_of_another_size_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    reseal(folder, labels=["a", "b", "c", "d"])
    refusal(folder, "head.safetensors does not hold the head that card.json describes")


@pytest.mark.parametrize(
    ("card", "part"),
    [
        ("{", "cannot be read as one"),
        ("[]", "cannot be read as one"),
        ('{"format": 99, "files": {}}', "format 99"),
    ],
)
def test_a_card_that_is_none_is_refused(copy: Callable[[str], Path], card: str, part: str) -> None:
    folder = copy("full")
    (folder / "card.json").write_text(card)
    refusal(folder, part)


def test_a_run_without_a_bundle_yet_says_so(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("seed: 1\n")
    refusal(tmp_path, "The best bundle of the run", "it has none yet", f"--resume {tmp_path}")


def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    refusal(tmp_path, f"A bundle was wanted in {tmp_path}", "no card.json", "Give a run's folder")
    refusal(tmp_path / "nowhere", "there is no such folder")


def test_another_folder_of_a_run_is_not_taken_for_its_best_bundle(tuned: Tuned) -> None:
    last = tuned().folder / "last"
    refusal(last, f"A bundle was wanted in {last}; it has no card.json")


def test_a_folder_of_bundles_names_those_inside(tmp_path: Path) -> None:
    for inside in ("small/1-int8", "runs/desk/best"):
        (tmp_path / inside).mkdir(parents=True)
        (tmp_path / inside / "card.json").write_text("{}")
    refusal(tmp_path / "small", f"Inside it are {tmp_path / 'small' / '1-int8'}.")
    refusal(tmp_path / "runs", f"Inside it are {tmp_path / 'runs' / 'desk'}.")


def test_a_bundle_caught_between_two_renames_is_read_where_it_stands(copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    folder.rename(folder.with_name(".copy.old"))
    assert len(load(folder).predict(TEXTS)) == 3
    assert not folder.exists()  # a reader moves nothing: that would break the writer's rename


def test_a_bundle_replaced_while_it_is_read_is_read_anew(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy("full")
    real, calls = bundles._load, []

    def replaced_once(place: Path, *rest: Any) -> Any:
        calls.append(place)
        if len(calls) == 1:
            reseal(folder, step=99)
            raise NotSupported("another SHA-256")
        return real(place, *rest)

    monkeypatch.setattr(bundles, "_load", replaced_once)
    assert load(folder).card["step"] == 99


def test_a_bundle_taken_as_a_base_sums_up_sequences_as_it_did(copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    about = json.loads((folder / "card.json").read_text())["base"]
    assert open_base(str(folder)).pooling == about["pooling"] == "cls"
    reseal(folder, base={**about, "pooling": "mean"})
    assert open_base(str(folder)).pooling == "mean"


def test_a_bundle_taken_as_a_base_goes_on_with_the_dense_layer_it_tuned(tuned: Tuned, tiny: Any) -> None:
    run = tuned("full")
    ours, began = (
        load(run.folder, precision="fp32", device="cpu").model.head.dense,
        open_base(str(tiny("bert"))),
    )
    taken = open_base(str(run.folder)).pooler
    assert taken is not None
    assert torch.equal(taken.weight, ours.weight)
    assert torch.equal(taken.bias, ours.bias)
    assert not torch.equal(taken.weight, began.pooler.weight)


@pytest.mark.parametrize("family", ["bert", "albert", "roberta"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_task_that_has_no_use_for_the_dense_layer_keeps_it_for_the_next(
    family: str, cut: bool, tiny: Any, tmp_path: Path
) -> None:
    """Also beside a trunk whose sizes its config does not say."""
    base = open_base(str(tiny(family)))
    head = ClassHead(base.width, 2, pooling="mean", dropout=0.0)
    if cut:
        with torch.no_grad():
            linears = [m for m in base.trunk.modules() if isinstance(m, torch.nn.Linear)]
            linears[-1].bias = None
    bundles.save(tmp_path / "b", model=Model(base.trunk, head, base.way), base=base, saves="full", card={})
    taken = open_base(str(tmp_path / "b")).pooler
    assert (tmp_path / "b/trunk/stored.json").is_file() == cut
    assert base.trunk.pooler is None
    assert base.pooler is not None
    assert taken is not None
    assert torch.equal(taken.weight, base.pooler.weight)


@pytest.mark.parametrize("other", ["sentence_order", "masked"])
def test_a_language_model_has_the_dense_layer_where_it_was_taught(
    other: str, tiny: Any, tmp_path: Path
) -> None:
    from safetensors import safe_open

    base = open_base(str(tiny("bert")))
    task = mixed(of=["masked", other]).bind(base, [], weights=True)
    model = Model(base.trunk, task.head(base.width, [], base.pooling, base.pooler), base.way)
    bundles.save(tmp_path / "b", model=model, base=base, saves="full", card={})
    with safe_open(tmp_path / "b/trunk/model.safetensors", framework="pt") as file:
        assert ("bert.pooler.dense.weight" in file.keys()) == (other == "sentence_order")  # noqa: SIM118
    if other == "sentence_order":
        assert torch.equal(open_base(str(tmp_path / "b")).pooler.weight, base.pooler.weight)
