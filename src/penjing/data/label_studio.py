"""Label Studio's JSON export: a task an object, with what was shown under `data` and labels in `annotations`.

`flat` makes a row of a task: the fields of `data`, and for each control of the labelling page, by its name,
what was chosen there. Of several annotations the last that was not cancelled counts.
"""

from __future__ import annotations

from typing import Any

# Type of a result: the key under which its value stands.
VALUES = {
    "choices": "choices",
    "taxonomy": "taxonomy",
    "rating": "rating",
    "number": "number",
    "textarea": "text",
}
SPANS = frozenset(("labels", "hypertextlabels"))


def is_task(row: Any) -> bool:
    """Whether an object is a task of Label Studio."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("data"), dict)
        and isinstance(row.get("annotations"), list)
        and all(isinstance(one, dict) and isinstance(one.get("result"), list) for one in row["annotations"])
    )


def annotation_of(task: dict[str, Any]) -> dict[str, Any] | None:
    """The annotation that counts; None where nobody labelled the task."""
    kept = [one for one in task["annotations"] if not one.get("was_cancelled")]
    return kept[-1] if kept else None


def flat(task: dict[str, Any]) -> dict[str, Any]:
    """The row of a task: spans as a list of {start, end, label, text}, one choice by itself, several as a
    list."""
    found: dict[str, list[Any]] = {}
    for result in (annotation_of(task) or {"result": []})["result"]:
        kind, name, value = result.get("type"), str(result.get("from_name")), result.get("value") or {}
        if kind in SPANS:
            whole = value | ({"id": result["id"]} if "id" in result else {})
            found.setdefault(name, []).extend(_span(whole, label) for label in value.get(kind) or [])
        elif kind == "relation":
            ends = {key: result.get(key) for key in ("from_id", "to_id")}
            found.setdefault("relations", []).append(
                {**ends, "type": (result.get("labels") or ["related"])[0]}
            )
        elif kind in VALUES:
            chosen = value.get(VALUES[kind])
            found.setdefault(name, []).extend(chosen if isinstance(chosen, list) else [chosen])
    spans = {name for name, values in found.items() if any(isinstance(one, dict) for one in values)}
    return {
        **task["data"],
        **{name: v if name in spans or len(v) != 1 else v[0] for name, v in found.items()},
    }


def _span(value: dict[str, Any], label: str) -> dict[str, Any]:
    whole = {"start": value.get("start"), "end": value.get("end"), "label": label}
    return whole | {key: value[key] for key in ("text", "id") if key in value}
