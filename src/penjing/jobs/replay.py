"""What a comparison of two bundles replays: held-out rows and edge cases, as each of them reads them, and
what its head gives of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from penjing.bundle import Bundle
from penjing.data.parts import rows_of
from penjing.data.tokenize import tokenize
from penjing.errors import DataError, NotSupported
from penjing.jobs.prepare import digest, task_of
from penjing.jobs.prepare import rows_of as split_of
from penjing.models.heads import RelationHead
from penjing.models.model import Model
from penjing.records import Batch, Part, Rows
from penjing.run import Run

MOST = 256  # rows that are replayed, evenly chosen of what there is
EDGES = {
    "empty": "",
    "one character": "a",
    "emoji": "so happy 🙂 👩‍👩‍👧‍👦 ❤️",
    "Chinese": "我的快递还没有到,请问什么时候送达?",
    "signs": "!?…«»—\u00a0\u200b{}[]<>",
}


def chosen_of(rows: Rows, most: int = MOST) -> Rows:
    """At most so many of the rows, evenly chosen.

    Raises:
        DataError: there is none.
    """
    if not len(rows):
        raise DataError(
            "Rows to replay were wanted; none are given. Give a file of labelled rows (`--rows FILE`)."
        )
    return rows if len(rows) <= most else rows.take(np.linspace(0, len(rows) - 1, most).astype(np.int64))


def held_out(bundle: Bundle) -> tuple[Rows, tuple[str, ...]]:
    """The rows that a run validated its bundle on, read again from where its spec names them, and notes.

    Raises:
        DataError: the bundle lies in no run, or the rows cannot be read any more.
    """
    near = [
        bundle.folder,
        *bundle.folder.absolute().parents[:2],
    ]  # a run's best, or a step of its compression
    folder = next((place for place in near if (place / "spec.yaml").is_file()), None)
    if folder is None:
        raise DataError(
            f"Held-out rows to replay were wanted; the bundle in {bundle.folder} lies in no run that says "
            "where its rows are. Give a file of labelled rows with `--rows FILE` (in Python `rows=`)."
        )
    if bundle.task.feed:
        return _held_texts(folder)
    try:
        found = split_of(Run(folder).spec, task_of(Run(folder).spec)).valid
    except DataError as error:
        raise DataError(
            f"The rows that {folder} validated on were to be replayed; they cannot be read any more. {error} "
            "Or give others with `--rows FILE` (in Python `rows=`)."
        ) from error
    wanted = Run(folder).read("lineage.json").get("data", {}).get("valid", {}).get("sha256")
    moved = wanted is not None and wanted != digest(found)
    return found, ("the run's rows have changed since it was made",) if moved else ()


def _held_texts(folder: Path) -> tuple[Rows, tuple[str, ...]]:
    from penjing.jobs.feeding import texts_of

    texts: list[str] = []
    for document in texts_of(Run(folder).spec).valid():
        texts.append(document.text)
        if len(texts) == MOST:
            break
    if not texts:
        raise DataError(
            f"Held-out texts to replay were wanted; the corpus of {folder} holds out none. Give a file of "
            "texts with `--rows FILE` (in Python `rows=`)."
        )
    return rows_of(texts), ()


def part_of(bundle: Bundle, rows: Rows, *, labelled: bool) -> Part:
    """Rows as the bundle reads them; of an objective, the texts as they are.

    What an encoder-decoder is to say of a text that has no answer is the text itself.
    """
    both, task = bundle.base.kind == "encoder-decoder" and bundle.task.whole, bundle.task
    if not task.feed:
        if both and not labelled:
            rows = replace(rows, items=[(text, text) for text in rows.texts])
        return bundle.part(rows, labelled=labelled or both)
    found = tokenize(bundle.tokenizer, rows.texts, max_length=bundle.card["max_length"], cache=False)
    kept = np.flatnonzero(found.lengths)
    tokens = found.take(kept)
    none = np.zeros(len(kept), np.int64)
    return Part(rows.take(kept), tokens, none, answers=tokens if both else None)


def edges_of(original: Bundle, artefact: Bundle) -> tuple[tuple[Part, Part] | None, list[str]]:
    """Edge cases as both read them, and their names; None where the task reads no texts.

    A text of which a tokenizer makes no token is none that a bundle answers.
    """
    if original.task.sees:
        return None, []
    long = "the parcel 包裹 was late, " * original.card["max_length"]
    kept: list[Any] = []
    names = []
    for name, text in {**EDGES, "longest": long}.items():
        for given in (text, [text, text], {"question": text, "choices": [text, f"{text} b"]}):
            rows = _asked(original, given)
            if rows is not None:
                kept.append(given)
                names.append(name)
                break
    if not kept:
        return None, []
    rows = _rows(original, kept)
    return (part_of(original, rows, labelled=False), part_of(artefact, rows, labelled=False)), [
        n for n in names if n != "longest"
    ]


def _asked(bundle: Bundle, given: Any) -> Rows | None:
    try:
        rows = _rows(bundle, [given])
        return rows if len(part_of(bundle, rows, labelled=False)) else None
    except (DataError, NotSupported):
        return None


def _rows(bundle: Bundle, inputs: Sequence[Any]) -> Rows:
    return (bundle.task.ask or rows_of)(inputs)


def outputs_of(bundle: Bundle, batch: Batch) -> list[list[Tensor]]:
    """What the head gives of each row, fp32 on the CPU: numbers of the whole, or (L, C) of its tokens, or
    both; of each of its sequences, where it has several."""
    model: Any = bundle.model
    batch = batch.to(next(model.parameters()).device)
    if isinstance(getattr(model, "head", None), RelationHead) and isinstance(model, Model):
        found = model.head(model.states(batch), batch.lengths, batch.marks)
    else:
        found = model(batch)
    lengths = (batch.lengths if batch.answer is None else batch.answer.lengths).tolist()
    ends, rows = batch.ends(), [[] for _ in batch.rows]  # type: list[int], list[list[Tensor]]
    for one in found if isinstance(found, tuple) else (found,):
        if one is not None:
            part = one.float().cpu()
            each = len(part) == sum(lengths) > len(lengths)  # with one token a sequence both are the same
            items = part.split(lengths) if each else part.unbind()
            bounds = ends if len(items) == ends[-1] else range(len(items) + 1)
            for row, own in enumerate(rows):
                own += items[bounds[row] : bounds[row + 1]]
    return rows
