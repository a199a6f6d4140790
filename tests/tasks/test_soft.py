"""Learning from probabilities: the loss against its formula, rows as read, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penjing.errors import DataError
from penjing.records import Batch
from penjing.tasks.soft import soft

NAMES = ["a", "b", "c"]
SOFT = [{"a": 0.7, "b": 0.2, "c": 0.1}, {"b": 1.0}]


class Given(nn.Module):
    def forward(self, batch: Batch) -> torch.Tensor:
        return torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 0.0]])


def written(folder: Path, lines: list[Any]) -> str:
    (folder / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(folder / "s.jsonl")


def test_the_loss_is_the_cross_entropy_with_the_probabilities(tmp_path: Path) -> None:
    task = soft(labels=NAMES)
    assert task.rows is not None
    rows = task.rows(written(tmp_path, [{"text": f"t{i}", "probabilities": p} for i, p in enumerate(SOFT)]))
    targets = task.encode(rows, NAMES)
    assert targets == pytest.approx(np.array([[0.7, 0.2, 0.1], [0, 1, 0]]))
    assert rows.labels == [("a",), ("b",)]
    lengths = torch.ones(2, dtype=torch.int64)
    batch = Batch(lengths[:0], lengths, torch.from_numpy(targets), 2.0, (0, 1))
    logits = Given()(batch).double().numpy()
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(task.loss(Given(), batch).mean) == pytest.approx(-(targets * logs).sum() / 2)


def test_a_line_ends_where_the_file_s_lines_do(tmp_path: Path) -> None:
    task = soft(labels=NAMES)
    assert task.rows is not None
    line = json.dumps({"text": "one\u2028row", "probabilities": SOFT[0]}, ensure_ascii=False)
    (tmp_path / "s.jsonl").write_bytes(f"\ufeff{line}\r\n\r\n{line}\r\n".encode())
    rows = task.rows(str(tmp_path / "s.jsonl"))
    assert (rows.texts, rows.lines.tolist()) == (["one\u2028row"] * 2, [1, 3])


def test_plain_labels_are_read_as_usual(tmp_path: Path) -> None:
    task = soft(labels=NAMES)
    assert task.rows is not None
    rows = task.rows(written(tmp_path, [{"text": "x", "label": "c"}, {"text": "y", "label": "a"}]))
    assert task.encode(rows, NAMES).tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"text": "x", "probabilities": {"a": 0.7, "b": 0.7}}, r"line 2: .* sum to 1 .* 1\.4\. Divide"),
        ({"text": "x", "probabilities": {"a": 0.5, "d": 0.5}}, r"line 2: the label `d` is not among the 3"),
        ({"text": "x"}, r"line 2: an object .* was wanted; .* Mend it"),
    ],
)
def test_lines_that_cannot_be_learned_from_are_refused(tmp_path: Path, line: Any, told: str) -> None:
    task = soft(labels=NAMES)
    assert task.rows is not None
    with pytest.raises(DataError, match=told):
        task.rows(written(tmp_path, [{"text": "t", "probabilities": SOFT[0]}, line]))
