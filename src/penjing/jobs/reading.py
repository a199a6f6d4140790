"""What a run folder says, read so that a damaged, dead or half-written run can still be reported."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penjing.errors import DataError


@dataclass(frozen=True)
class Facts:
    """All files of a run folder as plain values; what is missing is empty, what is damaged is counted."""

    folder: Path
    spec_text: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    damaged: tuple[tuple[str, int], ...] = ()  # (file, places that could not be read)


def read_facts(folder: Path) -> Facts:
    """Read a run folder. Bytes that are not UTF-8 are replaced, lines that are not JSON left out and counted.

    Raises:
        DataError: there is no such folder, or nothing in it that a run leaves.
    """
    known = (
        "spec.yaml",
        "lineage.json",
        "data.json",
        "log.jsonl",
        "scores.jsonl",
        "result.json",
        "error.txt",
    )
    found = [name for name in known if (folder / name).is_file()]
    if not found:
        there = "holds none of them" if folder.is_dir() else "is no folder"
        raise DataError(
            f"A report needs a run's folder ({', '.join(known[:3])}, …); {folder} {there}. "
            f"Give the folder that `penjing tune` named at its end, such as runs/classify-1."
        )
    damaged: dict[str, int] = {}
    text = {name: (folder / name).read_bytes().decode("utf-8", "replace") for name in found}
    return Facts(
        folder,
        text.get("spec.yaml", ""),
        _yaml(text, damaged),
        _object("lineage.json", text, damaged),
        _object("data.json", text, damaged),
        _lines("log.jsonl", text, damaged),
        _lines("scores.jsonl", text, damaged),
        _object("result.json", text, damaged),
        text.get("error.txt"),
        tuple(damaged.items()),
    )


def of(value: Any, *keys: str) -> Any:
    """`value[key][key]…`, or None where a step is missing or is not a dictionary."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def dicts(value: Any) -> list[dict[str, Any]]:
    """The dictionaries among the elements of a list; empty when it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _yaml(text: dict[str, str], damaged: dict[str, int]) -> dict[str, Any]:
    import yaml

    if "spec.yaml" not in text:
        return {}
    try:
        value = yaml.safe_load(text["spec.yaml"])
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        damaged["spec.yaml"] = 1
    return value if isinstance(value, dict) else {}


def _object(name: str, text: dict[str, str], damaged: dict[str, int]) -> dict[str, Any]:
    if name not in text:
        return {}
    try:
        value = json.loads(text[name])
    except ValueError:
        value = None
    if not isinstance(value, dict):
        damaged[name] = 1
    return value if isinstance(value, dict) else {}


def _lines(name: str, text: dict[str, str], damaged: dict[str, int]) -> list[dict[str, Any]]:
    found = []
    for line in text.get(name, "").split("\n"):  # not splitlines: a note may hold U+2028
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError:  # the last line of a killed run is often half a line
                value = None
            if isinstance(value, dict):
                found.append(value)
            else:
                damaged[name] = damaged.get(name, 0) + 1
    return found
