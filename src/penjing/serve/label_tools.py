"""Requests out to label tools and labels back in: JSON lines, and Label Studio's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.data.conll import laid_out
from penjing.data.taught import said_of
from penjing.errors import DataError, SpecError, nearest
from penjing.files import write_text
from penjing.serve.traffic import Kept, Traffic, asked_of

FORMS = ("jsonl", "label-studio")


def write_rows(rows: Sequence[Kept], path: Path, *, form: str = "jsonl") -> int:
    """Write requests with what was answered, and the truth where it is known; how many.

    jsonl: {id, text, answer, confidence, form, label} a line; `label`, the truth or null, is what is right in
    place of `answer`. label-studio: tasks with the text (of inputs of several fields these, too), the
    request's id, and the answer as a prediction, for a project whose template has `toName="text"` and
    `name="label"` of `<Choices>`, `<Labels>` (entities; intents beside them are `name="intent"`), `<Number>`
    or `<TextArea>`.

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
    said = {"answer": said_of(row.answer), "confidence": row.confidence, "form": _form(row.answer)}
    return {"id": row.id, "text": row.text, **said, "label": row.truth}


def _form(answer: dict[str, Any]) -> str:
    """What people choose, mark or write to correct an answer, by its name in Label Studio."""
    if "entities" in answer:
        return "labels"
    if any(key in answer for key in ("label", "labels", "choice")):
        return "choices"
    return "number" if isinstance(said_of(answer), float | int) else "textarea"


def _task(row: Kept) -> dict[str, Any]:
    said, form = said_of(row.answer), _form(row.answer)
    data: dict[str, Any] = {"text": row.text, "request": row.id}
    asked = asked_of(row)
    if isinstance(asked, dict):
        data |= {key: value for key, value in asked.items() if key not in data}
    if form == "labels":
        tokens = asked.get("tokens") if isinstance(asked, dict) else asked
        data |= {"text": laid_out(tokens)[0] if isinstance(tokens, list) else row.text, "form": form}
    results = [] if said is None else _results(said, form)
    about = {"model_version": f"{row.model}@{row.version}", "score": row.confidence, "result": results}
    return {"data": data, "predictions": [about] if results else []}


def _results(said: Any, form: str) -> list[dict[str, Any]]:
    def one(kind: str, value: dict[str, Any], name: str = "label") -> dict[str, Any]:
        return {"from_name": name, "to_name": "text", "type": kind, "value": value}

    if form == "labels":
        whole = said if isinstance(said, dict) else {"entities": said}
        beside = [one("choices", {"choices": [whole["intent"]]}, "intent")] if "intent" in whole else []
        return [*(one(form, {**e, "labels": [e["label"]]}) for e in whole["entities"]), *beside]
    if form == "choices":
        names = said if isinstance(said, list) else [said]
        return [one(form, {"choices": names})] if names else []
    if form == "number":
        return [one(form, {"number": said})]
    return [one(form, {"text": [said]})] if isinstance(said, str) else []


def read_labels(path: Path) -> dict[str, Any]:
    """Request id -> its label, or list of labels; rows without one are passed over.

    Raises:
        DataError: neither JSON lines of `id` and `label` nor what Label Studio exports; the line is named.
    """
    if not path.is_file():
        raise DataError(
            f"Labels were wanted in {path}; there is no such file. Give what the label tool wrote."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"Labels in UTF-8 were wanted in {path}; byte {error.start + 1} is "
            f"0x{error.object[error.start]:02x}. Save it as UTF-8, or export it anew."
        ) from error
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
        if label is not None and not _open(label, row):
            found[id] = label
    return found


def keep_labels(store: Traffic, labels: Mapping[str, Any], *, by: str) -> list[str]:
    """Keep labels as feedback to the requests they are of; the ids of those that the store does not hold.

    Raises:
        DataError: it holds none of them.
    """
    lost: list[str] = []
    for id, truth in labels.items():
        try:
            store.feedback(id, truth, by=by)
        except DataError:  # past its retention, say: the others are words on other requests
            if len(lost) + 1 == len(labels):
                raise
            lost.append(id)
    return lost


def _open(label: Any, row: dict[str, Any]) -> bool:
    """Whether nobody said anything yet: nothing at all is a word on entities and texts only."""
    return label in ("", []) and not (
        (label == [] and isinstance(row.get("answer"), list | dict))
        or (label == "" and row.get("form") == "textarea")
    )


def _of_tasks(path: Path, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        for task in json.loads(text):
            id, form = str(task["data"]["request"]), task["data"].get("form")
            kept = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
            truth = _truth(kept[-1]["result"], form) if kept else None
            found |= {} if truth is None else {id: truth}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} was to be what Label Studio exports as JSON, tasks with `data.request` and "
            f"`annotations`; it is not ({type(error).__name__}: {error}). Export it as JSON, of tasks that "
            "`penjing traffic export --form label-studio` wrote."
        ) from error
    return found


def _truth(results: list[dict[str, Any]], form: str | None) -> Any:
    """What somebody said of a task; None where that is nothing."""
    values = [result["value"] for result in results]
    chosen = [name for value in values for name in value.get("choices", [])]
    if form == "labels":
        marks = [value for value in values if "labels" in value]
        own = [{"start": v["start"], "end": v["end"], "label": v["labels"][0]} for v in marks]
        return {"entities": own, "intent": chosen[0]} if chosen else own
    if chosen:
        return chosen[0] if len(chosen) == 1 else chosen
    written = [text for value in values for text in _list(value.get("text"))]
    numbers = [value["number"] for value in values if "number" in value]
    return next(iter([*numbers, *written]), None)


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else [*(value or [])]
