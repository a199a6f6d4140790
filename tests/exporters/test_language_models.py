"""Language models score words in every target that holds them as they do here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import put
from penjing.jobs.export import export

Tiny = Callable[..., Path]
SAID = [{"source": "my card", "target": "was charged"}, {"source": "the parcel", "target": "is late"}]


@pytest.fixture(scope="module")
def speakers(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`speakers("llama", "lora")` -> the run of a language model tuned to say answers."""

    def get(family: str, method: str) -> Path:
        from penjing import tune

        folder = tmp_path_factory.mktemp("speakers")
        rows = put(folder, "said.jsonl", "".join(json.dumps(row) + "\n" for row in SAID * 8))
        task: Any = {"generate": {"longest": 6}}
        given = {
            "steps": 2,
            "evals": 1,
            "device": "cpu",
            "precision": "fp32",
            "out": folder,
            "max_length": 24,
        }
        return tune(base=tiny(family), train=rows, valid=rows, task=task, method=method, **given).folder

    return get


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method", "target", "kind"),
    [
        ("llama", "full", "hf", "AutoModelForCausalLM"),
        ("gpt2", "lora", "hf", "AutoModelForCausalLM"),
        ("t5", "full", "hf", "AutoModelForSeq2SeqLM"),
        ("llama", "lora", "peft", "AutoPeftModelForCausalLM"),
        ("qwen3", "lora", "peft", "AutoPeftModelForCausalLM"),
        ("gpt2", "lora", "onnx", "onnxruntime"),
        ("t5", "full", "torch", "torch.export"),
    ],
)
def test_a_language_model_scores_words_alike_there(
    family: str, method: str, target: str, kind: str, speakers: Any, tmp_path: Path
) -> None:
    if target == "onnx":
        pytest.importorskip("onnxruntime")
    made = export(speakers(family, method), tmp_path / "out", to=target)
    assert made.opens.startswith(kind)
    assert made.parity["outputs"]["of_largest_output"] < 1e-4
    assert made.parity["outputs"]["same_best"] == 1.0
    assert made.parity["edges"]["n"] == 5  # no empty text is answered


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_gguf_reads_back_and_scores_words_alike_in_transformers(
    family: str, speakers: Any, tmp_path: Path
) -> None:
    gguf = pytest.importorskip("gguf")
    made = export(speakers(family, "lora"), tmp_path / "out", to="gguf")
    assert made.parity["outputs"]["of_largest_output"] < 1e-4
    assert made.parity["outputs"]["same_best"] == 1.0
    reader = gguf.GGUFReader(str(made.folder / "model.gguf"))
    assert reader.fields["general.architecture"].contents() == family
    assert reader.fields["tokenizer.ggml.pre"].contents() == "gpt-2"
