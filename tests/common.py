"""What several test files use: the families of tiny bases, and rows written to files in many ways."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from penjing.data.read import read
from penjing.errors import DataError
from penjing.records import Rows

FAMILIES = [
    "bert",
    "roberta",
    "electra",
    "distilbert",
    "albert",
    "modernbert",
    "mpnet",
    "gpt2",
    "llama",
    "qwen3",
    "t5",
]
ROWS = [("my card was charged twice", "billing"), ("the parcel is late", "delivery"), ("我要退款", "refund")]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_csv(rows: list[tuple[str, ...]], *, head: str = "text,label", delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return (head.replace(",", delimiter) + "\n" if head else "") + out.getvalue()


def pairs(rows: Rows) -> list[tuple[str, ...]]:
    return [(text, *labels) for text, labels in zip(rows.texts, rows.labels, strict=True)]


def complaint(source: Any, **keywords: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **keywords)
    return str(caught.value)
