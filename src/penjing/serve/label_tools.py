"""Requests out to label tools and labels back in: JSON lines, and Label Studio's JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.errors import DataError, SpecError, nearest
from penjing.files import write_text
from penjing.serve.traffic import Kept

FORMS = ("jsonl", "label-studio")


def write_rows(rows: Sequence[Kept], path: Path, *, form: str = "jsonl") -> int:
    """Write requests with what was answered, and the truth where it is known; how many.

    jsonl: {id, text, answer, confidence, label} a line, `label` being the truth or null. label-studio: tasks
    with the text, the request's id, and the answer as a prediction (to import into a project whose template
    has `<Choices name="label" toName="text">`).

    Raises:
        SpecError: another form.
    """
    if form not in FORMS:
        raise SpecError(
            f"Requests are written as {' or '.join(FORMS)}; `form` is `{form}`.{nearest(form, FORMS)} Take "
            "one of them."
        )
    if form == "jsonl":
        lines = (json.dumps(_line(row), ensure_ascii=False) for row in rows)
        write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        write_text(path, json.dumps([_task(row) for row in rows], ensure_ascii=False, indent=1) + "\n")
    return len(rows)


def _line(row: Kept) -> dict[str, Any]:
    said = row.answer.get("label", row.answer.get("labels"))
    return {"id": row.id, "text": row.text, "answer": said, "confidence": row.confidence, "label": row.truth}


def _task(row: Kept) -> dict[str, Any]:
    said = row.answer.get("labels") or [row.answer[key] for key in ("label",) if key in row.answer]
    result = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": said}}
    about = {"model_version": f"{row.model}@{row.version}", "score": row.confidence, "result": [result]}
    return {"data": {"text": row.text, "request": row.id}, "predictions": [about] if said else []}


def read_labels(path: Path) -> dict[str, Any]:
    """Request id -> its label, or list of labels; rows without one are passed over.

    Raises:
        DataError: neither JSON lines of `id` and `label` nor what Label Studio exports; the line is named.
    """
    if not path.is_file():
        raise DataError(
            f"Labels were wanted in {path}; there is no such file. Give what the label tool wrote."
        )
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return _of_tasks(path, text)
    found = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            id, label = str(row["id"]), row["label"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: a JSON object with `id` and `label` was wanted; it is "
                f"{line.strip()[:60]!r} ({type(error).__name__}). `penjing traffic export` writes such lines."
            ) from error
        if label not in (None, "", []):
            found[id] = label
    return found


def _of_tasks(path: Path, text: str) -> dict[str, Any]:
    found = {}
    try:
        for task in json.loads(text):
            id = str(task["data"]["request"])
            kept = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
            labels = [c for r in (kept[-1]["result"] if kept else []) for c in r["value"].get("choices", [])]
            if labels:
                found[id] = labels[0] if len(labels) == 1 else labels
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} was to be what Label Studio exports as JSON, tasks with `data.request` and "
            f"`annotations`; it is not ({type(error).__name__}: {error}). Export it as JSON, of tasks that "
            "`penjing traffic export --form label-studio` wrote."
        ) from error
    return found
