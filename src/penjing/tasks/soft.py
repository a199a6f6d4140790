"""Classification learned from probabilities in place of labels: what teachers said of unlabelled rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn
from torch.nn import functional as F

from penjing.data.read import read
from penjing.errors import DataError, nearest
from penjing.records import Batch, Loss, Part, Rows, Scores
from penjing.task import Task
from penjing.tasks.classify import classify

KEY = "probabilities"


def soft(
    *,
    labels: list[str],
    pooling: Literal["auto", "cls", "mean", "last"] = "auto",
    head_dropout: float = 0.1,
) -> Task:
    """Give each text one label, learned from soft labels: `{"text": …, "probabilities": {label: p}}` a line.

    Files of other rows (validation and test rows have plain labels) are read as usual.

    labels: their names in order. pooling: as in `classify`. head_dropout: before the last layer.
    """
    hard = classify(labels=labels, pooling=pooling, head_dropout=head_dropout)

    def rows(source: Any, *, labelled: bool = True, **reading: Any) -> Rows:
        path = Path(source) if isinstance(source, str | Path) else None
        if labelled and path is not None and path.suffix == ".jsonl" and _is_soft(path):
            return _read(path, labels)
        return read(source, labelled=labelled, **reading)

    def encode(rows: Rows, names: list[str]) -> np.ndarray:
        sure = np.eye(len(names), dtype=np.float32)[hard.encode(rows, names)]
        for i, item in enumerate(rows.items or ()):
            if item is not None:
                sure[i] = [item.get(name, 0.0) for name in names]
        return sure

    def loss(model: nn.Module, batch: Batch) -> Loss:
        logits = model(batch).float()  # (S, C)
        assert batch.labels is not None
        each = F.cross_entropy(logits, batch.labels, reduction="sum")
        return Loss(each / batch.n_targets, outputs=logits)

    def score(p: Any, targets: np.ndarray, names: list[str], chosen: dict[str, Any], seed: int = 0) -> Scores:
        return hard.score(p, targets.argmax(1), names, chosen, seed)

    def difference(ours: Any, theirs: Any, targets: np.ndarray, *rest: Any) -> Any:
        assert hard.difference is not None
        return hard.difference(ours, theirs, targets.argmax(1), *rest)

    def mistakes(p: Any, rows: Rows, targets: np.ndarray, *rest: Any) -> Any:
        assert hard.mistakes is not None
        return hard.mistakes(p, rows, targets.argmax(1), *rest)

    def baseline(rows: Rows, targets: np.ndarray, names: list[str], seed: int) -> Any:
        assert hard.baseline is not None
        return hard.baseline(rows, targets.argmax(1), names, seed)

    def reference(part: Part, names: list[str]) -> dict[str, Any]:
        return {"label_shares": dict(zip(names, part.targets.mean(0).tolist(), strict=True))}

    return replace(
        hard,
        name="soft",
        rows=rows,
        encode=encode,
        loss=loss,
        score=score,
        difference=difference,
        mistakes=mistakes,
        baseline=baseline,
        reference=reference,
        teach=None,
    )


def _is_soft(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return KEY in json.loads(file.readline() or "{}")
    except (OSError, ValueError, TypeError):
        return False  # the usual reader says what is wrong


def _read(path: Path, names: list[str]) -> Rows:
    """Rows whose label is the likeliest one, their probabilities as items.

    Raises:
        DataError: a line is not such an object, names another label, or its numbers are no probabilities.
    """
    texts: list[str] = []
    labels: list[tuple[str, ...]] = []
    items: list[dict[str, float]] = []
    lines: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():  # not splitlines: a text may hold U+2028
            continue
        where = f"{path.name}, line {number}"
        try:
            found = json.loads(line)
            text, said = str(found["text"]), {str(k): float(v) for k, v in found[KEY].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f'{where}: an object `{{"text": …, "{KEY}": {{label: number}}}}` was wanted; the line is '
                f"{line[:80]!r}. Mend it, or leave it out."
            ) from error
        strange = [name for name in said if name not in names]
        if strange:
            raise DataError(
                f"{where}: the label `{strange[0]}` is not among the {len(names)} of `soft.labels`."
                f"{nearest(strange[0], names)} Mend it, or name it in the spec."
            )
        total = sum(said.values())
        if min(said.values(), default=-1.0) < 0 or not 0.99 < total < 1.01:
            raise DataError(
                f"{where}: probabilities of 0 or more that sum to 1 were wanted; they sum to {total:g}. "
                "Divide them by their sum."
            )
        texts.append(text)
        labels.append((max(said, key=lambda name: said[name]),))
        items.append({name: p / total for name, p in said.items()})
        lines.append(number)
    if not texts:
        raise DataError(f"{path}: rows were wanted; it has none. Give a line for each row.")
    return Rows(
        texts, labels, (str(path),), np.zeros(len(texts), np.int32), np.array(lines, np.int64), items=items
    )
