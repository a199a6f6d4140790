"""Export: each target opens with its own library and gives what the bundle gives; what it cannot hold is
refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from common import put, told
from penjing import plugin
from penjing.bundle import load, save
from penjing.cli import app
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs.export import export
from penjing.models.load import load as load_base
from penjing.models.model import Model

Tuned = Callable[..., Any]
Tiny = Callable[..., Path]
TEXTS = ["my card was charged twice", "the parcel is late", "我的快递还没有到", ""]


@pytest.fixture(scope="module")
def untrained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`untrained("bert", {"tag": {}}, ["a", "b"])` -> a bundle of a task whose head is random."""

    def get(family: str, task: Any, labels: list[str], **card: Any) -> Path:
        base = load_base(str(tiny(family)), whole=card.pop("whole", False))
        picked = plugin.choice(task, kind="tasks", key="task")
        made = plugin.build("tasks", picked)
        if made.bind:
            made = made.bind(base, labels)
        torch.manual_seed(1)
        pooling = card.pop("pooling", base.pooling)
        head = made.head(base.width, labels, pooling, base.pooler)
        with torch.no_grad():
            for parameter in head.parameters():
                if parameter.ndim == 1 and len(parameter) < 40:
                    parameter += torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp("untrained") / "bundle"
        about = {"task": picked.written(), "method": "full", "labels": labels, "max_length": 64, "chosen": {}}
        about |= {"dense": getattr(head, "dense", None) is not None, "precision": "fp32", **card}
        model = Model(base.trunk, head, base.way).eval()
        with torch.no_grad():
            save(folder, model=model, base=base, saves="full", card=about)
        return folder

    return get


def rows_of(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    """A file of rows."""
    return put(tmp_path, "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


CLASSES = [{"text": text, "label": "abc"[i % 3]} for i, text in enumerate([*TEXTS[:3], "an order " * 40])]
TAGGED = [
    {"tokens": ["my", "card", "is", "lost"], "tags": ["O", "B-thing", "O", "O"]},
    {"tokens": ["order", "51", "is", "late"], "tags": ["B-thing", "B-number", "O", "O"]},
]
ASKED = [
    {
        "question": "what is late",
        "context": "the parcel is late",
        "answers": {"text": ["the parcel"], "answer_start": [0]},
    }
]
PAIRS = [
    {"text_a": "my card", "text_b": "a card", "label": "a"},
    {"text_a": "late", "text_b": "my fee", "label": "b"},
]
CHOICES = [{"question": "what is lost", "choices": ["the parcel", "my login"], "answer": 0}]
NUMBERS = [{"text": "my card was charged", "label": "1.5"}, {"text": "the parcel is late", "label": "-2"}]
NUMBER = {"regress": {"mean": [3.0], "spread": [2.0]}}
HELD = {"regress": {**NUMBER["regress"], "low": -3.0, "high": 3.0}}
MANY = {"classify": {"multi_label": True}}


@pytest.mark.parametrize(
    ("family", "task", "labels", "rows", "kind"),
    [
        ("bert", "classify", ["a", "b", "c"], CLASSES, "SequenceClassification"),
        pytest.param(
            *("bert", MANY, ["a", "b", "c"], CLASSES, "SequenceClassification"), marks=pytest.mark.slow
        ),
        pytest.param(
            *("roberta", "classify", ["a", "b", "c"], CLASSES, "SequenceClassification"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("gpt2", "classify", ["a", "b", "c"], CLASSES, "SequenceClassification"), marks=pytest.mark.slow
        ),
        pytest.param(*("bert", NUMBER, ["score"], NUMBERS, "SequenceClassification"), marks=pytest.mark.slow),
        pytest.param(*("bert", "pair", ["a", "b"], PAIRS, "SequenceClassification"), marks=pytest.mark.slow),
        ("bert", "tag", ["number", "thing"], TAGGED, "TokenClassification"),
        pytest.param(
            *("llama", "tag", ["number", "thing"], TAGGED, "TokenClassification"), marks=pytest.mark.slow
        ),
        pytest.param(*("bert", "answer", [], ASKED, "QuestionAnswering"), marks=pytest.mark.slow),
        pytest.param(*("bert", "choose", [], CHOICES, "MultipleChoice"), marks=pytest.mark.slow),
    ],
)
def test_hf_holds_the_head_in_the_class_of_the_task(
    family: str, task: Any, labels: list[str], rows: Any, kind: str, untrained: Any, tmp_path: Path
) -> None:
    made = export(untrained(family, task, labels), tmp_path / "out", to="hf", rows=rows_of(tmp_path, *rows))
    assert made.opens.startswith(f"AutoModelFor{kind}.")
    assert made.parity["held"]
    assert made.parity["outputs"]["of_largest_output"] < 1e-4
    config = json.loads((made.folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"][0].endswith(f"For{kind}")
    if kind == "TokenClassification":
        assert [*config["id2label"].values()] == ["O", "B-number", "I-number", "B-thing", "I-thing"]
    if task == MANY:
        assert config["problem_type"] == "multi_label_classification"


@pytest.mark.slow
def test_hf_opens_as_a_classifier_of_transformers_with_the_labels_and_equal_scores(
    tuned: Tuned, tmp_path: Path
) -> None:
    from transformers import pipeline

    run = tuned("lora")
    made = export(run.folder, tmp_path / "out", to="hf")
    assert made.opens == f"AutoModelForSequenceClassification.from_pretrained({str(tmp_path / 'out')!r})"
    assert made.parity["held"]
    assert made.parity["outputs"]["of_largest_output"] < 1e-4
    told_there = pipeline("text-classification", model=str(made.folder), top_k=None, device="cpu")(TEXTS)
    ours = load(run.folder).predict(TEXTS)
    for scores, one in zip(told_there, ours, strict=True):
        assert scores[0]["label"] == one["label"]
        for score in scores:
            assert score["score"] == pytest.approx(one["scores"][score["label"]], abs=1e-5)
    kept = json.loads((made.folder / "parity.json").read_text(encoding="utf-8"))
    assert kept["target"] == "hf"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(kept["files"])


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino", "torch", "sentence-transformers"])
def test_a_target_gives_what_the_bundle_gives(target: str, tuned: Tuned, tmp_path: Path) -> None:
    needed = {"onnx": "onnxruntime", "openvino": "openvino"}.get(target)
    if needed:
        pytest.importorskip(needed)
    made = export(tuned("lora").folder, tmp_path / "out", to=target)
    assert made.parity["held"]
    assert made.parity["answers"]["alike"] == 1.0
    assert made.parity["outputs"]["largest_difference"] < 1e-4
    assert made.parity["edges"]["largest_difference"] < 1e-4


@pytest.mark.slow
def test_the_edge_folder_answers_in_a_process_that_has_none_of_the_large_libraries(
    tuned: Tuned, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    made = export(tuned("lora").folder, tmp_path / "out", to="edge")
    files = {path.name for path in made.folder.iterdir()}
    assert files == {"model.onnx", "tokenizer.json", "labels.json", "run.py", "parity.json"}
    assert made.parity["said_without_penjing"] == 15
    assert len((made.folder / "run.py").read_text(encoding="utf-8").splitlines()) <= 150
    texts = '[URGENT] where is my parcel\n"late" they said\n[2024]\n"two\\nlines"\n'  # the last alone is JSON
    command = [sys.executable, str(made.folder / "run.py")]
    done = subprocess.run(command, input=texts, capture_output=True, encoding="utf-8", check=True)
    wanted = load(tuned("lora").folder).predict([*texts.split("\n")[:3], "two\nlines"])
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["confidence"] for one in said] == pytest.approx(
        [one["confidence"] for one in wanted], abs=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "labels", "rows"),
    [(MANY, ["a", "b", "c"], CLASSES), (HELD, ["score"], NUMBERS), ("pair", ["a", "b"], PAIRS)],
)
def test_the_edge_program_says_several_labels_numbers_and_pairs(
    task: Any, labels: list[str], rows: Any, untrained: Any, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    made = export(untrained("bert", task, labels), tmp_path / "out", to="edge", rows=rows_of(tmp_path, *rows))
    assert made.parity["said_without_penjing"] > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "task", "labels", "rows"),
    [
        ("bert", {"tag": {"crf": True}}, ["number", "thing"], TAGGED),
        ("modernbert", "classify", ["a", "b", "c"], CLASSES),
        ("t5", "classify", ["a", "b", "c"], CLASSES),
        ("llama", "classify", ["a", "b", "c"], CLASSES),
        ("bert", "answer", [], ASKED),
    ],
)
def test_a_graph_holds_other_families_and_tasks(
    family: str, task: Any, labels: list[str], rows: Any, untrained: Any, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    made = export(untrained(family, task, labels), tmp_path / "out", to="onnx", rows=rows_of(tmp_path, *rows))
    assert made.parity["outputs"]["of_largest_output"] < 1e-4
    about = json.loads((made.folder / "labels.json").read_text(encoding="utf-8"))
    assert ("transitions" in about) == (task == {"tag": {"crf": True}})


@pytest.mark.slow
def test_a_head_that_the_class_lacks_is_refused_and_nothing_is_left(untrained: Any, tmp_path: Path) -> None:
    bundle = untrained("bert", {"classify": {"pooling": "mean"}}, ["a", "b", "c"])
    with pytest.raises(NotSupported) as error:
        export(bundle, tmp_path / "out", to="hf", rows=rows_of(tmp_path, *CLASSES))
    told(
        error,
        "BertForSequenceClassification",
        str(bundle),
        "`mean`",
        "bert.pooler.dense",
        "`sentence-transformers`",
    )
    assert not (tmp_path / "out").exists()
    made = export(bundle, tmp_path / "out", to="sentence-transformers", rows=rows_of(tmp_path, *CLASSES))
    assert made.parity["held"]


@pytest.mark.slow
def test_what_answers_otherwise_is_refused_and_an_earlier_export_stays(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penjing.exporters import hf

    folder = tuned("lora").folder
    export(folder, tmp_path / "out", to="hf")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    plain = hf.state_of

    def damaged(sent: Any) -> Any:
        config, state = plain(sent)
        return config, {name: value * 1.5 if "query" in name else value for name, value in state.items()}

    monkeypatch.setattr(hf, "state_of", damaged)
    with pytest.raises(NotSupported) as error:
        export(folder, tmp_path / "out", to="hf")
    told(error, "A folder for hf", "classify", "differ by up to", "not kept", "`tolerance`")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_tags_with_transitions_are_no_class_of_transformers(untrained: Any, tmp_path: Path) -> None:
    bundle = untrained("bert", {"tag": {"crf": True}}, ["number", "thing"])
    with pytest.raises(NotSupported) as error:
        export(bundle, tmp_path / "out", to="hf", rows=rows_of(tmp_path, *TAGGED))
    told(error, "transitions of a CRF", str(bundle), "`onnx`")


@pytest.mark.slow
def test_a_prompt_is_no_graph(tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(NotSupported) as error:
        export(tuned("prompt").folder, tmp_path / "out", to="torch")
    told(error, "virtual tokens", "packed only", "`method: lora`")


def test_a_folder_with_something_else_in_it_is_left_alone(tuned: Tuned, tmp_path: Path) -> None:
    put(tmp_path, "out/mine.txt", "precious")
    with pytest.raises(SpecError) as error:
        export(tuned("lora").folder, tmp_path / "out", to="hf")
    told(error, "mine.txt", "Give a new folder")


def test_a_target_that_is_none_is_named_with_the_nearest(tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Did you mean `onnx`"):
        export(tuned("lora").folder, tmp_path / "out", to="onx")
    with pytest.raises(SpecError, match="must be 18 to 23"):
        export(tuned("lora").folder, tmp_path / "out", to={"onnx": {"opset": 9}})


def test_a_bundle_without_its_run_needs_rows(untrained: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--rows FILE"):
        export(untrained("bert", "classify", ["a", "b", "c"]), tmp_path / "out", to="hf")


@pytest.mark.slow
def test_the_verb_tells_what_was_proved_and_a_dry_run_writes_nothing(tuned: Tuned, tmp_path: Path) -> None:
    given = ["export", str(tuned("lora").folder), "--to", "hf", "-o", str(tmp_path / "out")]
    dry = CliRunner().invoke(app, [*given, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, [*given, "--tolerance", "difference=0.01"])
    assert done.exit_code == 0, done.output
    for part in ("AutoModelForSequenceClassification", "10 held-out rows", "edge cases", "accuracy"):
        assert part in done.output
    wrong = CliRunner().invoke(app, [*given, "--tolerance", "answer=0.9"])
    assert wrong.exit_code == 1
    assert "Did you mean `answers`?" in wrong.output
    for option, said in (("--tolerance=answers=most", "wants a number"), ("--set=opset=[", "is not YAML")):
        assert said in CliRunner().invoke(app, [*given, option]).output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, at transformers
def test_peft_puts_the_adapter_on_its_base_and_gives_equal_scores(tuned: Tuned, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    bundle = load(tuned("lora").folder)
    made = export(tuned("lora").folder, tmp_path / "out", to="peft")
    assert made.parity["outputs"]["of_largest_output"] < 1e-4
    config = json.loads((made.folder / "adapter_config.json").read_text(encoding="utf-8"))
    model = PeftModel.from_pretrained(
        AutoModel.from_pretrained(config["base_model_name_or_path"]), made.folder
    )
    words = AutoTokenizer.from_pretrained(made.folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        first = model.eval()(**words).last_hidden_state[:, 0]
        head: Any = bundle.model.head
        p = head.out(torch.tanh(head.dense(first))).softmax(-1).double().numpy()
    assert abs(p - bundle.probabilities(TEXTS)).max() < 1e-5


def test_a_full_model_is_no_adapter(untrained: Any, tmp_path: Path) -> None:
    bundle = untrained("bert", "classify", ["a", "b", "c"])
    with pytest.raises(NotSupported) as error:
        export(bundle, tmp_path / "out", to="peft", rows=rows_of(tmp_path, *CLASSES))
    told(error, "An adapter was wanted", str(bundle), "`full`", "`method: lora`")


def test_gguf_is_for_models_that_say_words(untrained: Any, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    bundle = untrained("gpt2", "classify", ["a", "b", "c"])
    with pytest.raises(NotSupported) as error:
        export(bundle, tmp_path / "out", to="gguf", rows=rows_of(tmp_path, *CLASSES))
    told(error, "language model", "`classify`", str(bundle), "`onnx`")


ANCHORS = [
    {"anchor": "my card", "positive": "a card was charged"},
    {"anchor": "the parcel", "positive": "a parcel is late"},
    {"anchor": "my login", "positive": "the password was reset"},
]


@pytest.mark.slow
def test_vectors_are_equal_in_sentence_transformers(untrained: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    bundle = untrained("bert", {"embed": {"pooling": "mean"}}, [])
    made = export(bundle, tmp_path / "out", to="sentence-transformers", rows=rows_of(tmp_path, *ANCHORS))
    assert made.parity["held"]
    found = SentenceTransformer(str(made.folder), device="cpu").encode(TEXTS)
    assert abs(found - load(bundle).embed(TEXTS)).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hf", "onnx"])
def test_images_are_seen_alike(target: str, tmp_path: Path) -> None:
    from penjing import tune
    from pictures import painted, tiny_vit

    pytest.importorskip("PIL")
    if target == "onnx":
        pytest.importorskip("onnxruntime")
    shots = painted(tmp_path / "shots", 30)
    given = {"steps": 2, "evals": 1, "device": "cpu", "precision": "fp32", "out": tmp_path / "runs"}
    run = tune(base=tiny_vit(tmp_path / "vit"), task="see", train=shots, **given)
    made = export(run.folder, tmp_path / "out", to=target)
    assert made.parity["held"]
    assert made.parity["edges"] is None
    assert (made.folder / "preprocessor_config.json").is_file()


def test_an_ensemble_is_not_one_model(tuned: Tuned, tmp_path: Path) -> None:
    from penjing.bundle_card import FORMAT
    from penjing.files import write_json

    shutil.copytree(tuned("lora").folder / "best", tmp_path / "both" / "members" / "0")
    shutil.copytree(tuned("lora").folder / "best", tmp_path / "both" / "members" / "1")
    card = json.loads((tmp_path / "both/members/0/card.json").read_text(encoding="utf-8"))
    card |= {"format": FORMAT, "saves": "ensemble", "way": "mean", "files": {}}
    write_json(tmp_path / "both" / "card.json", {**card, "members": ["members/0", "members/1"]})
    with pytest.raises(NotSupported) as error:
        export(tmp_path / "both", tmp_path / "out", to="onnx", rows=rows_of(tmp_path, *CLASSES))
    told(error, "One model was wanted", "ensemble of 2", "members/0")


def test_layers_of_few_bits_are_refused_with_what_can_be_had(
    untrained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import penjing.exporter as contract

    monkeypatch.setattr(contract, "kind_of", lambda m: "int8" if isinstance(m, torch.nn.Linear) else None)
    bundle = untrained("bert", "classify", ["a", "b", "c"])
    with pytest.raises(NotSupported) as error:
        export(bundle, tmp_path / "out", to="torch", rows=rows_of(tmp_path, *CLASSES))
    told(error, "plain layers", str(bundle), "int8", "before that step")
