"""A folder that answers by itself: graph, tokenizer, labels and a short program that needs three packages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.data.tokenize import has_pair_frame
from penjing.errors import NotSupported
from penjing.exporter import Exporter, Sent, wanted
from penjing.exporters.hf import save_words
from penjing.exporters.onnx import FILE, graph_fits, labels_of, opened, write_graph
from penjing.files import write_json
from penjing.models.heads import ClassHead
from penjing.models.towers import Vectors

RUNNER = Path(__file__).parent / "edge_files" / "run.py"
HIDDEN = ("penjing", "torch", "transformers", "peft", "safetensors")  # that the runner must do without
WAIT_S = 600
_START = "import sys, runpy\nfor name in {hidden!r}: sys.modules[name] = None\nsys.argv = [{run!r}]\n"


def edge(*, opset: int = 18) -> Exporter:
    """model.onnx, tokenizer.json, labels.json and run.py, which takes onnxruntime, tokenizers and numpy
    alone.

    For classes (one or several a text), numbers, vectors, and pairs that are read together. opset: version of
    ONNX's operators. Takes `penjing[export]`.
    """

    def fits(sent: Sent) -> Sequence[str]:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            wanted(package, "export", "An ONNX graph")
        _refuse(sent)
        return graph_fits(sent, "edge")

    def write(sent: Sent, folder: Path) -> None:
        write_graph(sent, folder, opset)
        aside = folder / "words"
        save_words(sent, aside)
        (aside / "tokenizer.json").rename(folder / "tokenizer.json")
        shutil.rmtree(aside)
        write_json(folder / "labels.json", {**labels_of(sent), **_numbers(sent), "lead": _lead(sent)})
        shutil.copyfile(RUNNER, folder / "run.py")

    return Exporter(
        "edge",
        fits,
        write,
        opened,
        lambda sent: "python {folder}/run.py",
        needs=("onnx", "onnxscript", "onnxruntime"),
        says=_said,
    )


def _refuse(sent: Sent) -> None:
    held = sent.held
    words, head = held.base.tokenizer, held.model.head
    if (
        held.base.way.sight is not None
        or not isinstance(head, ClassHead | Vectors)
        or held.task.name == "choose"
    ):
        raise NotSupported(
            f"A program of a few lines was wanted for the bundle in {sent.folder}; `{held.task.name}` needs "
            "more than "
            "texts in and one row of numbers out. Export to `onnx`: labels.json there says what the outputs "
            "mean."
        )
    if getattr(words, "backend_tokenizer", None) is None:
        raise NotSupported(
            f"tokenizer.json was wanted; the tokenizer of {held.base.name} ({type(words).__name__}) is not "
            "one of "
            "the tokenizers library. Export to `onnx` and tokenize with transformers."
        )


def _lead(sent: Sent) -> str:
    """What stands before the second text of a pair."""
    return "" if has_pair_frame(sent.held.base.tokenizer) else "\n"


def _numbers(sent: Sent) -> dict[str, Any]:
    """The line from a graph's outputs to the numbers that the task says; none where it says labels.

    It is asked of the task itself, at 0 and at 1.
    """
    import torch

    from penjing.regression import straight

    task, n = sent.held.task, len(sent.held.labels)
    if task.best not in ("r2", "spearman"):
        return {"numbers": None}
    ends = task.probabilities(torch.tensor([[0.0] * n, [1.0] * n]))
    low, high = straight(ends, sent.card["chosen"]).tolist()
    line = {"shift": low, "stretch": [b - a for a, b in zip(low, high, strict=True)]}
    return {"numbers": line if task.within == (None, None) else {**line, "within": task.within}}


def _said(sent: Sent, folder: Path, inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """What run.py says of inputs, in a process of its own that can import none of the large libraries.

    Raises:
        NotSupported: it died, or took too long.
    """
    start = _START.format(hidden=HIDDEN, run=str(folder / "run.py"))
    program = f"{start}runpy.run_path({str(folder / 'run.py')!r}, run_name='__main__')"
    lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in inputs)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", program],
            input=lines,
            capture_output=True,
            encoding="utf-8",
            timeout=WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotSupported(
            f"run.py beside {FILE} was tried on {len(inputs)} texts; it had not answered after {WAIT_S} "
            "seconds. Nothing is kept; export to `onnx` instead."
        ) from error
    if done.returncode:
        raise NotSupported(
            f"run.py beside {FILE} was tried on {len(inputs)} texts; it ended with {done.returncode}: "
            f"{done.stderr.strip()[-300:]}. Nothing is kept; export to `onnx` instead."
        )
    return [json.loads(line) for line in done.stdout.split("\n") if line]  # labels may hold U+2028
