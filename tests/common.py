"""What several test files use: the families of tiny bases, how they are run, and rows written to files."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.data.read import read
from penjing.errors import DataError, PenjingError
from penjing.models import packing
from penjing.models.load import Base
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
QUICK = ("bert", "gpt2")  # tried in `make check` where all families are meant


def each(families: list[str]) -> list[Any]:
    """The families as parameters of a test; those beyond QUICK are marked slow."""
    return [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in families]


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


def entities_of(rows: Rows, row: int = 0) -> list[tuple[str, str]]:
    """(text, label) of a row's entities."""
    item = (rows.items or [])[row]
    return [(item.text[e.start : e.end], e.label) for e in item.entities]


def complaint(source: Any, **keywords: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **keywords)
    return str(caught.value)


def words(base: Base, n: int, *, seed: int = 0) -> Tensor:
    """`n` ids that the base knows, none of them special."""
    special = set(base.tokenizer.all_special_ids)
    allowed = torch.tensor([i for i in range(len(base.tokenizer)) if i not in special])
    return allowed[torch.randint(len(allowed), (n,), generator=torch.Generator().manual_seed(seed))]


def padded(base: Base, ids: Tensor, lengths: list[int]) -> Tensor:
    """States of the base's trunk, with all that a method put in, as transformers itself runs it: (T, D).

    The trunk is left set for padded runs.
    """
    base.trunk.set_attn_implementation("eager")  # type: ignore[operator]
    return packing.run(base.trunk, packing.Way(False), ids, lengths)


def stir(trunk: nn.Module, *, by: float = 0.1) -> None:
    """Move all that trains, so that nothing stands at zero any more."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn(parameter.shape, generator=generator)


def gap(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest value wanted."""
    return float((found - wanted).detach().abs().max() / wanted.detach().abs().max())


def told(error: pytest.ExceptionInfo[PenjingError], *parts: str) -> None:
    """What was wanted, what was found, where, what to do: each part stands in the text."""
    for part in parts:
        assert part in str(error.value), str(error.value)
