"""Export: each target opens with its own library and gives what the bundle gives; what it cannot hold is
refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing.bundle import load
from penjing.jobs.export import export

Tuned = Callable[..., Any]
TEXTS = ["my card was charged twice", "the parcel is late", "我的快递还没有到", ""]


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
